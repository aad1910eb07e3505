"""The header of a raw message is the one that rclpy reads, whatever its byte order."""

import struct

import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from s4net_ros import raw_messages
from s4net_ros.raw_messages import raw_message


@pytest.mark.parametrize("kind", [Image, CompressedImage])
@pytest.mark.parametrize("name", ["", "c", "camera_color_optical_frame", "/küche"])
def test_header_and_message_are_those_that_were_sent(kind, name):
    sent = kind(header=Header(stamp=Time(sec=-3, nanosec=999_999_999), frame_id=name), data=[1, 2, 3])
    raw = raw_message(serialize_message(sent), kind)
    assert raw.header == sent.header
    assert raw.message() == sent


def test_a_publisher_of_the_other_byte_order_is_understood():
    data = b"\0\0\0\0" + struct.pack(">iII", 7, 8, 4) + b"cam\0" + b"the rest"
    assert raw_message(data, Image).header == Header(stamp=Time(sec=7, nanosec=8), frame_id="cam")


def test_nothing_but_the_header_is_read_at_first(monkeypatch):
    data = serialize_message(Image(data=[1, 2, 3]))
    monkeypatch.setattr(raw_messages, "deserialize_message", None)
    assert raw_message(data, Image).header == Header()
