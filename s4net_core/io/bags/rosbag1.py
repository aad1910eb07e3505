"""Bags of ROS 1: recognises their files and deserialises their messages."""

from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

MAGIC = b"#ROSBAG V2.0\n"


def is_rosbag1(path: Path) -> bool:
    """Whether `path` is a file that begins like a bag of ROS 1."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def deserialize_ros1(store: Typestore, connection: Connection, data: bytes) -> Any:
    """The message; a type that `store` lacks is taken from the bag, which holds its definition.

    Raises:
        Exception: of any type, when the bytes do not fit the type.
    """
    if connection.msgtype not in store.types:
        store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
    return store.deserialize_ros1(data, connection.msgtype)
