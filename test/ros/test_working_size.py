"""The nodes work at the size of their base model where no parameter gives one."""

import shutil

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from scenes import make_room_frames

from s4net_core.config import Settings
from s4net_core.geometry.camera import rescale_frame
from s4net_ros.adaptation_node import AdaptationNode
from s4net_ros.segmentation_node import SegmentationNode
from s4net_ros.semantic_map_node import SemanticMapNode


def keyframe_size(keyframes):
    """The size to which a view of a camera is brought."""
    id = keyframes.offer(rescale_frame(make_room_frames(1)[0], 320, 240)).id
    height, width, _ = keyframes.get(id).color.shape
    return width, height


@pytest.mark.parametrize(
    ("kind", "live", "settings_of", "size_of"),
    [
        (
            SegmentationNode,
            ("segmentation.min_confidence", 0.75),
            lambda node: node._segmenter.settings,
            lambda node: node._segmenter.settings.model.size,
        ),
        (
            SemanticMapNode,
            ("segmentation.min_confidence", 0.75),
            lambda node: node._configured._segmenter.settings,
            lambda node: keyframe_size(node._configured.keyframes),
        ),
        (
            AdaptationNode,
            ("learner.learning_rate", 0.25),
            lambda node: node._configured._session.settings,
            lambda node: keyframe_size(node._configured._session.keyframes),
        ),
    ],
    ids=["segmentation", "semantic_map", "adaptation"],
)
def test_the_size_is_the_base_models_and_changes_with_it(
    ros, make_checkpoint, tmp_path, capfd, kind, live, settings_of, size_of
):
    file, (name, value) = tmp_path / "base.safetensors", live
    settings = Settings(device="cpu", checkpoint=str(file), state_dir=str(tmp_path / "state"))
    shutil.copy(make_checkpoint(), file)
    node = ros.add(kind(settings, context=ros.context))
    assert node.autostart()
    assert size_of(node) == (64, 48)
    assert "".join(capfd.readouterr()).count("working at 64x48") == 1
    node.set_parameters([Parameter(name, value=value)])
    group, _, key = name.partition(".")
    assert getattr(getattr(settings_of(node), group), key) == value
    assert (node.get_parameter("model.width").value, node.get_parameter("model.height").value) == (0, 0)

    assert ros.on_executor(node.trigger_deactivate) == TransitionCallbackReturn.SUCCESS
    assert ros.on_executor(node.trigger_cleanup) == TransitionCallbackReturn.SUCCESS
    shutil.copy(make_checkpoint(size=(96, 72)), file)
    assert ros.on_executor(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    assert size_of(node) == (96, 72)
    assert "working at 96x72" in "".join(capfd.readouterr())
    assert getattr(getattr(settings_of(node), group), key) == value
