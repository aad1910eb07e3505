"""Messages of the segmentation node, one by one."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import numpy as np
from builtin_interfaces.msg import Time
from own_classes import NAMES, five_classes
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from s4net_core.labels import SUNRGBD37
from s4net_ros.publishers import label_info, with_header


def test_label_info_gives_every_class_its_value_name_and_colour():
    info = label_info(SUNRGBD37, Header())
    assert (info.label_space, info.unlabelled) == ("sunrgbd37", 255)
    assert list(info.ids) == list(range(1, 38))
    bed = list(info.ids).index(4)
    assert info.names[bed] == "bed"
    assert tuple(info.colors[3 * bed : 3 * bed + 3]) == (255, 187, 120)
    assert len(info.colors) == 3 * 37


def test_label_info_of_ones_own_classes_leaves_out_what_means_no_class(tmp_path):
    info = label_info(five_classes(tmp_path), Header())
    assert (info.label_space, list(info.ids), info.names) == ("warehouse", [1, 2, 3, 4], list(NAMES[:4]))
    assert tuple(info.colors[3:6]) == (200, 120, 40)
    assert len(info.colors) == 3 * 4


def test_a_camera_info_with_another_header_is_the_same_camera():
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.1] * 5, k=np.arange(9.0))
    info.header.frame_id = "old"
    info.roi.width = 12
    copy = with_header(info, Header(stamp=Time(sec=5), frame_id="new"))
    assert (copy.header.stamp.sec, copy.header.frame_id) == (5, "new")
    assert (copy.width, copy.height, list(copy.d), copy.roi.width) == (640, 480, [0.1] * 5, 12)
    assert list(copy.k) == list(range(9))
    assert info.header.frame_id == "old"
