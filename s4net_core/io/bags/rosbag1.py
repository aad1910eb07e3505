"""Bags of ROS 1: which files they are, their messages, and what is left of one that is damaged or was never closed."""

import os
from collections import defaultdict
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader, ReaderError
from rosbags.rosbag1.reader import Header, IndexData, RecordType, read_bytes, read_uint32
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


class Rosbag1Remains(Reader):
    """A bag without its index, read by walking through its chunks; those that are whole count.

    Args:
        path: .bag file.

    Raises:
        ReaderError: not one chunk is whole.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bio = path.open("rb")
        self.bio.seek(len(MAGIC))
        self._index: dict[int, list[IndexData]] = defaultdict(list)
        self._found: dict[int, Connection] = {}
        with suppress(Exception):  # the scan ends at the damage, in any way; what lies before it is collected by then
            self._skip_record(Header.read(self.bio, RecordType.BAGHEADER))
            while self._next_record(path.stat().st_size):
                pass
        if not self._found:
            self.close()
            raise ReaderError(f"not one chunk of {path} is whole")
        self.connections = [c._replace(msgcount=len(self._index[c.id])) for c in self._found.values()]
        self.indexes = {c.id: sorted(self._index[c.id]) for c in self.connections}

    def _next_record(self, size: int) -> bool:
        """Take in the next record; False at the end of the file."""
        assert self.bio is not None
        start = self.bio.tell()
        if start >= size:
            return False
        header = Header.read(self.bio)
        if header.get_uint8("op") != RecordType.CHUNK:
            self._skip_record(header)
            return True
        self.bio.seek(start)
        chunk = self.read_chunk()
        end = self.bio.tell()
        self.bio.seek(chunk.datapos)
        content = chunk.decompressor(read_bytes(self.bio, chunk.datasize))
        self.chunks[start] = chunk
        self._take_chunk(start, content)
        self.bio.seek(end)
        return True

    def _skip_record(self, header: Header) -> None:
        assert self.bio is not None
        self.bio.seek(read_uint32(self.bio), os.SEEK_CUR)

    def _take_chunk(self, start: int, content: bytes) -> None:
        """Connections and places of messages of one chunk."""
        file, self.bio = self.bio, BytesIO(content)
        try:
            while (offset := self.bio.tell()) < len(content):
                header = Header.read(self.bio)
                if header.get_uint8("op") == RecordType.CONNECTION:
                    self.bio.seek(offset)
                    connection = self.read_connection()
                    self._found.setdefault(connection.id, connection)
                    continue
                self._index[header.get_uint32("conn")].append(IndexData(header.get_time("time"), start, offset))
                self._skip_record(header)
        finally:
            self.bio = file
