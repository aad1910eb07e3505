"""Images as they come from the middleware: the header is read, and the rest is deserialised only when it is wanted.

A robot that stands still sends sixty megabytes of images a second that show nothing new.
"""

import struct
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

_LITTLE_ENDIAN = 1
"""Lowest bit of the second byte of CDR."""
_HEADER = "iII"
"""Seconds, nanoseconds, and length of the frame's name with its final zero, behind four bytes about the encoding."""
_NAME = 4 + struct.calcsize(f"<{_HEADER}")


@dataclass(frozen=True)
class RawMessage:
    """A message that begins with a header.

    Args:
        header: std_msgs/Header.
        data: the whole message, CDR.
        kind: its class.
    """

    header: Header
    data: bytes
    kind: type

    def message(self) -> Any:
        """The whole message, deserialised at each call."""
        return deserialize_message(self.data, self.kind)


def raw_message(data: bytes, kind: type) -> RawMessage:
    """What a subscription with ``raw=True`` gives -> its header, and the rest for later.

    Args:
        data: CDR.
        kind: class of a message whose first field is a header.

    Raises:
        struct.error: `data` is shorter than a header.
    """
    order = "<" if data[1] & _LITTLE_ENDIAN else ">"
    seconds, nanoseconds, length = struct.unpack_from(order + _HEADER, data, 4)
    name = data[_NAME : _NAME + length].rstrip(b"\0").decode(errors="replace")
    return RawMessage(Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=name), data, kind)
