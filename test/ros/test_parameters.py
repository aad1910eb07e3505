"""Parameters are the settings: declared, checked and followed."""

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.parameter import Parameter

from s4net_core.config import Leaf, Settings, leaves
from s4net_core.errors import SettingsError
from s4net_ros.node_base import S4NetNode
from s4net_ros.parameters import descriptor


class Bare(S4NetNode[None]):
    """Declares its parameters and does nothing."""

    live = ("segmentation.", "learner.", "guard.", "adaptation.")

    def configure(self, undo):
        pass

    def activate(self, configured, undo):
        pass


def make_node(ros, **values):
    overrides = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    return ros.add(Bare("settings_test", context=ros.context, parameter_overrides=overrides))


def test_every_setting_is_a_parameter_with_its_default_help_and_read_only_flag(ros):
    node = make_node(ros)
    for leaf in leaves(Settings()):
        found: ParameterDescriptor = node.describe_parameter(leaf.name)
        assert node.get_parameter(leaf.name).value == leaf.value, leaf.name
        assert found.description == leaf.help
        assert found.read_only is not leaf.live, leaf.name


def test_ranges_and_choices_are_described():
    settings = {leaf.name: leaf for leaf in leaves(Settings())}
    overlap = descriptor(settings["learner.min_overlap"]).floating_point_range[0]
    assert (overlap.from_value, overlap.to_value) == (0.0, 1.0)
    batch = descriptor(settings["learner.source_batch"]).integer_range[0]
    assert (batch.from_value, batch.to_value) == (1, 64)
    assert "deeplabv3plus, pspnet" in descriptor(settings["model.architecture"]).additional_constraints


def test_a_range_that_is_open_on_one_side_is_described():
    leaf = Leaf("x", int, 3, "Help.", "", 2, None, (), live=True)
    limits = descriptor(leaf).integer_range[0]
    assert limits.from_value == 2
    assert limits.to_value == 2**63 - 1


def test_given_values_are_taken_and_an_integer_is_good_enough_for_a_number(ros):
    node = make_node(ros, adaptation__duty_cycle=1, model__width=320, checkpoint="a.safetensors")
    assert node.settings.adaptation.duty_cycle == 1.0
    assert isinstance(node.get_parameter("adaptation.duty_cycle").value, float)
    assert node.settings.model.width == 320
    assert node.get_parameter("checkpoint").value == "a.safetensors"


def test_the_defaults_of_the_caller_hold_where_nobody_says_otherwise(ros):
    defaults = Settings(seed=7)
    node = ros.add(Bare("settings_test", defaults, context=ros.context))
    assert node.get_parameter("seed").value == 7


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("learner__min_overlap", 1.5, "learner.min_overlap = 1.5"),
        ("model__width", "wide", "model.width = 'wide'"),
        ("model__architecture", "segnet", "deeplabv3plus"),
    ],
)
def test_a_bad_value_at_start_up_is_refused_by_name(ros, name, value, said):
    with pytest.raises(SettingsError, match=said):
        make_node(ros, **{name: value})


def test_a_misspelt_parameter_is_pointed_out(ros, capfd):
    make_node(ros, learner__learnrate=0.1)
    assert "learner.learnrate" in capfd.readouterr().err


def test_qos_overrides_are_said_to_have_no_effect(ros, capfd):
    make_node(ros, **{"qos_overrides./camera/color.subscription.depth": 7})
    assert "qos_overrides are not read: set stream.*_reliability" in capfd.readouterr().err


def test_a_live_parameter_acts_at_once(ros):
    node = make_node(ros)
    segmentation = node.settings.segmentation
    assert node.set_parameters([Parameter("segmentation.min_confidence", value=0.25)])[0].successful
    assert segmentation.min_confidence == 0.25


def test_a_bad_value_is_refused_and_changes_nothing(ros):
    node = make_node(ros)
    zero = Parameter("learner.learning_rate", value=0.0)  # inside the described range, but it must be greater
    (result,) = node.set_parameters([zero])
    assert not result.successful
    assert "learner.learning_rate = 0.0" in result.reason
    assert node.settings.learner.learning_rate == Settings().learner.learning_rate
    assert node.get_parameter("learner.learning_rate").value == Settings().learner.learning_rate


def test_a_set_of_changes_is_taken_whole_or_not_at_all(ros):
    node = make_node(ros)
    good = Parameter("segmentation.overlay_alpha", value=0.9)
    assert not node.set_parameters_atomically([good, Parameter("learner.learning_rate", value=0.0)]).successful
    assert node.settings.segmentation.overlay_alpha == 0.5


@pytest.mark.parametrize(
    ("live", "name", "value"),
    [
        pytest.param(Bare.live, "model.width", 320, id="fixed at start-up"),
        pytest.param(("segmentation.",), "learner.learning_rate", 1e-3, id="of another node"),
    ],
)
def test_what_would_change_nothing_cannot_be_set(ros, monkeypatch, live, name, value):
    monkeypatch.setattr(Bare, "live", live)
    node = make_node(ros)
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert "read-only" in result.reason


def test_the_nodes_let_change_what_they_use(ros):
    from s4net_ros.adaptation_node import AdaptationNode
    from s4net_ros.segmentation_node import SegmentationNode
    from s4net_ros.semantic_map_node import SemanticMapNode

    can_change = {leaf.name for leaf in leaves(Settings()) if leaf.live}
    found = {
        node: {name for name in can_change if name.startswith(node.live)}
        for node in (SegmentationNode, AdaptationNode, SemanticMapNode)
    }
    assert found[SegmentationNode] == {"segmentation.min_confidence", "segmentation.overlay_alpha"}
    assert found[SemanticMapNode] == {"segmentation.min_confidence"}
    assert found[SegmentationNode] | found[AdaptationNode] == can_change
