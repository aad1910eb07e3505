"""Settings: one home for defaults, ranges and help; files, command line and ROS parameters say the same."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from s4net_core import config
from s4net_core.config import (
    PAPER_TARGET_BATCH,
    ModelSettings,
    Settings,
    from_values,
    leaves,
    load_settings,
    to_yaml,
)
from s4net_core.errors import SettingsError
from s4net_core.experiments.results import NETWORKS

ROOT = Path(__file__).parents[1]


def test_the_defaults_are_the_papers():
    settings = Settings()
    learner = settings.learner
    assert (learner.learning_rate, learner.lambda_geometric, learner.teacher_refresh) == (1e-5, 0.01, 100)
    assert (learner.source_batch, learner.target_images("deeplabv3plus")) == (4, 4)
    assert (learner.neighbours, learner.min_overlap) == (4, 0.25)
    assert (settings.model.width, settings.model.height) == (480, 360)
    assert (learner.lambda_depth, learner.merge, learner.geometric_weights) == (0.1, "argmax", "none")
    assert learner.target_images("pspnet") == 3
    assert from_values({"learner.target_batch": 5}).learner.target_images("pspnet") == 5


def test_every_setting_has_help_and_one_plain_type():
    for leaf in leaves(Settings()):
        assert len(leaf.help) > 10, leaf.name
        assert leaf.type in (bool, int, float, str), leaf.name
        assert type(leaf.value) is leaf.type, leaf.name


def test_every_architecture_has_its_batch_and_its_name_in_tables():
    architectures = set(get_args(ModelSettings.model_fields["architecture"].annotation))
    assert set(PAPER_TARGET_BATCH) == set(NETWORKS) == architectures


def attributes_read(source: str) -> set[str]:
    """Names of all attributes that a piece of code reads."""
    nodes = ast.walk(ast.parse(source))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def own_methods() -> Iterator[tuple[str, set[str]]]:
    """Methods and properties of the settings, each with what it reads."""
    for _, group in inspect.getmembers(config, inspect.isclass):
        for name, member in vars(group).items() if issubclass(group, config.Group) else ():
            function = member.fget if isinstance(member, property) else member
            if inspect.isfunction(function) and not name.startswith("_"):
                yield name, attributes_read(textwrap.dedent(inspect.getsource(function)))


def test_every_setting_is_read_somewhere():
    modules = [path for package in ("s4net_core", "s4net_ros") for path in (ROOT / package).rglob("*.py")]
    read = set.union(*(attributes_read(path.read_text()) for path in modules if path != Path(config.__file__)))
    read |= set.union(*(inner for name, inner in own_methods() if name in read))
    unread = [leaf.name for leaf in leaves(Settings()) if leaf.name.rpartition(".")[2] not in read]
    assert not unread


def test_every_default_lies_in_its_range():
    for leaf in leaves(Settings()):
        if leaf.minimum is not None:
            assert leaf.value >= leaf.minimum, leaf.name
        if leaf.maximum is not None:
            assert leaf.value <= leaf.maximum, leaf.name
        if leaf.choices:
            assert leaf.value in leaf.choices, leaf.name


def test_the_written_file_reads_back_as_the_same_settings(tmp_path):
    settings = from_values({"learner.learning_rate": 3e-4, "model": {"width": 160}, "source.path": "a b: c"})
    (tmp_path / "all.yaml").write_text(to_yaml(settings))
    assert load_settings(tmp_path / "all.yaml") == settings


def test_a_ros_parameters_file_is_read_too(tmp_path):
    parameters = {"use_sim_time": True, "learner": {"learning_rate": 2e-4}, "keyframes.min_rotation": 7.0}
    (tmp_path / "ros.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    settings = load_settings(tmp_path / "ros.yaml")
    assert (settings.learner.learning_rate, settings.keyframes.min_rotation) == (2e-4, 7.0)


def test_overrides_win_over_the_file(tmp_path):
    (tmp_path / "some.yaml").write_text("learner: {learning_rate: 1.0e-3, mirror: false}\n")
    settings = load_settings(tmp_path / "some.yaml", ["learner.learning_rate=1e-4", "device=cpu"])
    assert settings.learner.learning_rate == pytest.approx(1e-4)
    assert settings.learner.mirror is False
    assert settings.device == "cpu"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("learner.lerning_rate=1", r"learner\.lerning_rate"),
        ("keyframes.min_rotation=999", r"keyframes\.min_rotation = 999"),
        ("learner.source_batch=many", r"learner\.source_batch = 'many'"),
        ("model.architecture=unet", "deeplabv3plus"),
        ("nonsense", "name=value"),
        ("device.x=1", "device"),
    ],
)
def test_bad_values_are_named_with_their_value(override, told):
    with pytest.raises(SettingsError, match=told):
        load_settings(None, [override])


@pytest.mark.parametrize("text", ["- a\n- list\n", "learner: [unclosed\n"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"bad\.yaml"):
        load_settings(tmp_path / "bad.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
