"""Messages of the segmentation node, one by one."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs.msg")

import numpy as np
from builtin_interfaces.msg import Time
from own_classes import NAMES, five_classes
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from vision_msgs.msg import VisionClass

from s4net_core.labels import SUNRGBD37
from s4net_ros.publishers import confidence_message, label_info, with_header


def test_label_info_gives_every_class_its_value_and_name():
    info = label_info(SUNRGBD37, 0.5, Header())
    assert [entry.class_id for entry in info.class_map] == list(range(1, 38))
    assert info.class_map[3] == VisionClass(class_id=4, class_name="bed")
    assert info.threshold == 0.5


def test_label_info_of_ones_own_classes_leaves_out_what_means_no_class(tmp_path):
    info = label_info(five_classes(tmp_path), 0.0, Header())
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == list(enumerate(NAMES[:4], 1))


def test_confidence_is_a_byte_for_nav2_or_exact():
    confidence = np.float32([[0.0, 0.5, 1.0]])
    assert list(confidence_message(confidence, "mono8", Header()).data) == [0, 128, 255]
    exact = confidence_message(confidence, "32FC1", Header())
    assert (exact.encoding, np.frombuffer(exact.data, np.float32).tolist()) == ("32FC1", [0.0, 0.5, 1.0])


def test_a_camera_info_with_another_header_is_the_same_camera():
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.1] * 5, k=np.arange(9.0))
    info.header.frame_id = "old"
    info.roi.width = 12
    copy = with_header(info, Header(stamp=Time(sec=5), frame_id="new"))
    assert (copy.header.stamp.sec, copy.header.frame_id) == (5, "new")
    assert (copy.width, copy.height, list(copy.d), copy.roi.width) == (640, 480, [0.1] * 5, 12)
    assert list(copy.k) == list(range(9))
    assert info.header.frame_id == "old"
