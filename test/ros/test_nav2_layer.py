"""What we publish, read as kiwicampus/semantic_segmentation_layer reads it (segmentation_buffer.cpp)."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs.msg")

import numpy as np
import yaml
from std_msgs.msg import Header

from s4net_core.api import load_model
from s4net_core.files import share_file
from s4net_core.io.captures.opening import open_capture
from s4net_core.labels import SUNRGBD37, to_mask
from s4net_ros.conversions import image_message, points_message
from s4net_ros.publishers import confidence_message, label_info
from tools.docs.topics import PUBLISHED

CELL = 0.05  # m, nav2's default resolution
HEADER = Header(frame_id="camera_color_optical_frame")


@pytest.fixture(scope="module")
def source():
    """The layer's parameters for its one source."""
    file = yaml.safe_load(share_file("config", "nav2_semantic_layer.yaml").read_text())
    return file["local_costmap"]["local_costmap"]["ros__parameters"]["semantic_layer"]["camera"]


def listed(source):
    return [name for group in source["class_types"] for name in source[group]["classes"]]


def test_the_layer_knows_every_class_and_none_twice(source):
    names = [entry.class_name for entry in label_info(SUNRGBD37, 0.0, Header()).class_map]
    assert sorted(listed(source)) == sorted(names)


def test_its_topics_are_ours(source):
    topics = {name: topic for name, topic in source.items() if name.endswith("_topic")}
    assert len(topics) == 4
    assert {topic.removeprefix("/") for topic in topics.values()} <= set(PUBLISHED["segmentation"])


def refusal(mask, confidence, cloud, info, source):
    """Why the layer would refuse the messages, in its order; empty = it takes them."""
    if mask.width * mask.height != cloud.width * cloud.height:
        return "Pointcloud and segmentation sizes are different"
    if len(mask.data) < mask.width * mask.height:
        return "segmentation arrays have wrong sizes"
    if not {entry.class_name for entry in info.class_map} & set(listed(source)):
        return "Class map is empty"
    if (mask.encoding, confidence.encoding) != ("mono8", "mono8"):
        return "the layer takes one byte for one pixel, without looking at the encoding"
    return ""


def cells(mask, confidence, cloud, T_world_camera, source):
    """Pixel index that the layer takes for each cell: the most certain of those that fall into it."""
    raw = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    xyz = raw[:, :12].copy().view(np.float32)
    distance = np.linalg.norm(xyz, axis=1)
    near = (distance > source["min_obstacle_distance"]) & (distance < source["max_obstacle_distance"])
    chosen = {}
    certainty = np.frombuffer(bytes(confidence.data), np.uint8)
    world = xyz @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    for pixel in np.flatnonzero(near):  # v * width + u; NaN is never near
        cell = tuple(np.floor(world[pixel, :2] / CELL).astype(int))
        if cell not in chosen or certainty[pixel] > certainty[chosen[cell]]:
            chosen[cell] = pixel
    return np.array(list(chosen.values())), near


def test_cells_of_the_demos_room_are_right_nearly_as_often_as_the_mask(demo, source):
    segmenter = load_model(demo / "weights" / "base.safetensors", device="cpu")
    info = label_info(SUNRGBD37, 0.0, Header())
    right_cells, right_pixels = [], []
    for frame in open_capture(demo / "capture", stride=16):
        result = segmenter.segment(frame.color)
        mask = image_message(to_mask(result.label), "mono8", HEADER)
        confidence = confidence_message(result.confidence, "mono8", HEADER)
        cloud = points_message(frame.depth, frame.color, to_mask(result.label), frame.intrinsics, HEADER)
        assert refusal(mask, confidence, cloud, info, source) == ""
        chosen, near = cells(mask, confidence, cloud, frame.T_world_camera, source)
        known = frame.label.ravel() > 0
        right = np.frombuffer(bytes(mask.data), np.uint8) == frame.label.ravel()
        right_cells.append(right[chosen[known[chosen]]])
        right_pixels.append(right[near & known])
    assert len(right_cells) > 3
    assert np.concatenate(right_cells).mean() >= np.concatenate(right_pixels).mean() - 0.02  # 0.689 and 0.703
