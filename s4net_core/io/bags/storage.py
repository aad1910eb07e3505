"""Raw messages of a ROS 2 or ROS 1 recording, from any storage; a ROS 2 recording may be damaged or never closed."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import quote

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag1 import Reader as Rosbag1Reader
from rosbags.rosbag1 import ReaderError as Rosbag1Error
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from s4net_core.errors import CaptureError
from s4net_core.files import open_regular, read_file
from s4net_core.io.bags.checksums import MAGIC
from s4net_core.io.bags.rosbag1 import deserialize_ros1, is_rosbag1

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
"""Types of images, the same in ROS 1 and 2."""
STORAGE_SUFFIXES = (".mcap", ".db3")
DEFAULT_STORE = Stores.ROS2_JAZZY
"""Message types for a bag that does not name its distribution; images, calibration and tf are the same in all."""
_MAX_METADATA = 1 << 24
"""Bytes; that of a recording has about 1000 a topic."""
_KNOWN_ERRORS = (ReaderError, Rosbag1Error, sqlite3.Error, OSError)


def is_bag(path: Path) -> bool:
    """Whether `path` is a rosbag2 folder or one of its files, or a bag of ROS 1."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(_storage_files(path))
    return path.is_file() and (path.suffix in STORAGE_SUFFIXES or is_rosbag1(path))


class Bag:
    """A recording, opened with ``with``. A damaged ROS 2 recording is read as far as possible.

    Args:
        path: rosbag2 folder, .mcap or .db3 file, or .bag file of ROS 1.

    Attributes:
        damage: what is wrong with the recording; empty = nothing found yet.

    Raises:
        CaptureError: on entering, when nothing can be read, or a ROS 1 bag is damaged or lacks its index.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = ""
        self._storages: list[_Storage] = []
        self._stack = ExitStack()
        self._distribution = ""
        self._store: Typestore | None = None

    def __enter__(self) -> "Bag":
        if not is_bag(self.path):
            raise CaptureError(
                f"{self.path} is no rosbag2 recording and no ROS 1 bag: give its folder, or a .mcap, .db3 or .bag file"
            )
        _check_files(self.path)
        with self._stack:
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._storages = []

    @property
    def ros1(self) -> bool:
        """Whether it was recorded by ROS 1, whose messages have another encoding."""
        return any(isinstance(connection.ext, ConnectionExtRosbag1) for connection in self.connections)

    @property
    def connections(self) -> list[Connection]:
        """One for each topic and publisher: topic, msgtype, definition, offered QoS."""
        return [connection for storage in self._storages for connection in storage.connections]

    @property
    def topics(self) -> dict[str, str]:
        """Message type of each topic, by name."""
        return {c.topic: c.msgtype for c in sorted(self.connections, key=lambda c: c.topic)}

    def count(self, topic: str) -> int:
        """Number of messages of a topic; 0 when unknown because the bag is damaged."""
        return sum(c.msgcount for c in self.connections if c.topic == topic)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, log time in nanoseconds and bytes of these topics' messages, in time order.

        A storage's messages end where it is damaged, and `damage` says why.
        """
        for storage in self._storages:
            wanted = [c for c in storage.connections if c.topic in topics]
            if not wanted:
                continue
            messages = iter(storage.messages(wanted))
            while True:
                try:
                    connection, stamp, data = next(messages)
                except StopIteration:
                    break
                except Exception as error:  # the parsers promise no type of error for damaged bytes
                    self._report(error)
                    break
                yield connection, stamp, data

    def deserialize(self, connection: Connection, data: bytes) -> Any:
        """The message, with the attributes that the same message has in rclpy (or, of a ROS 1 bag, in rospy).

        Raises:
            CaptureError: its type is unknown, or the bytes do not fit the type.
        """
        if self._store is None:
            self._store = self._typestore()
        try:
            if self.ros1:
                return deserialize_ros1(self._store, connection, data)
            return self._store.deserialize_cdr(data, connection.msgtype)
        except Exception as error:  # the deserialiser promises no type of error either
            raise CaptureError(
                f"{self.path}: a message of {connection.topic} is no {connection.msgtype} "
                f"({type(error).__name__}: {error}): was it recorded with another version of that type?"
            ) from error

    def _open(self) -> None:
        try:
            if is_rosbag1(self.path):
                self._storages = [self._stack.enter_context(Rosbag1Reader(self.path))]
            else:
                reader = self._stack.enter_context(Reader(self.path))
                self._storages = [reader]
                self._distribution = reader.ros_distro or ""
            return
        except Exception as error:  # the parsers of rosbags promise no type of error for damaged bytes
            self._report(error)
            if is_rosbag1(self.path):
                raise CaptureError(
                    f"{self.path} cannot be read: {self.damage}. `rosbag reindex` of ROS 1 repairs a bag that is "
                    "cut off or was never closed"
                ) from error
        for path in [self.path] if self.path.is_file() else sorted(_storage_files(self.path)):
            self._open_damaged(path)
        if not self.connections:
            raise CaptureError(f"{self.path} cannot be read: {self.damage}. Copy it again, or record a new one")

    def _open_damaged(self, path: Path) -> None:
        """Open one file of a recording that cannot be opened as a whole; the file itself may be sound."""
        if path != self.path:
            try:
                self._storages.append(self._stack.enter_context(Reader(path)))
                return
            except Exception as error:  # as in `_open`
                self._report(error)
        try:
            self._storages.append(self._stack.enter_context(closing(_remains(path))))
        except _KNOWN_ERRORS as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        known = isinstance(error, _KNOWN_ERRORS)
        self.damage = str(error).rstrip(".") if known else f"{type(error).__name__}: {error}"

    def _typestore(self) -> Typestore:
        """Types of the distribution that recorded the bag."""
        if self.ros1:
            return get_typestore(Stores.ROS1_NOETIC)
        return get_typestore(next((s for s in Stores if s.value == f"ros2_{self._distribution}"), DEFAULT_STORE))


class _Storage(Protocol):
    @property
    def connections(self) -> list[Connection]: ...

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]: ...


class _ClosableStorage(_Storage, Protocol):
    def close(self) -> None: ...


def _remains(path: Path) -> "_ClosableStorage":
    return _McapRemains(path) if path.suffix == ".mcap" else _Sqlite3Remains(path)


class _McapRemains:
    """An MCAP file without its end (index and footer): read by scanning from its beginning."""

    def __init__(self, path: Path) -> None:
        self._reader = McapReader(path)
        self._reader.bio = bio = path.open("rb")
        if bio.read(8) != MAGIC or bio.read(1) != b"\x01":
            self.close()
            raise ReaderError(f"{path} does not begin like an MCAP file")
        self._reader.data_start = 17 + int.from_bytes(bio.read(8), "little")
        self._reader.data_end = path.stat().st_size
        with suppress(Exception):  # the scan fails at the damage in any way; it has collected what lies before
            self._reader.meta_scan()

    @property
    def connections(self) -> list[Connection]:
        return self._reader.connections

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        return self._reader.messages_scan(connections)

    def close(self) -> None:
        self._reader.close()


class _Sqlite3Remains:
    """A damaged sqlite3 file: read row by row without its index."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)
        # Without this, sqlite refuses a file that is shorter than its header says before it reads any row.
        self._database.execute("PRAGMA writable_schema=ON")
        rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        none = MessageDefinition(MessageDefinitionFormat.NONE, "")
        self.connections = [
            Connection(key, topic, kind, none, "", 0, ConnectionExtRosbag2(serialization, []), self)
            for key, topic, kind, serialization in rows
        ]

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = {connection.id: connection for connection in connections}
        for key, stamp, data in self._database.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        ):
            if key in wanted:
                yield wanted[key], stamp, data

    def close(self) -> None:
        self._database.close()


def _check_files(path: Path) -> None:
    """Refuse pipes and devices, which would be waited for, and a description that rosbags would not end parsing."""
    for file in [path] if path.is_file() else [*_storage_files(path), *path.glob("metadata.yaml")]:
        try:
            if file.suffix == ".yaml":
                read_file(file, _MAX_METADATA)
            else:
                open_regular(file).close()
        except OSError as error:
            raise CaptureError(f"{file} cannot be read ({error}): copy the recording again") from error


def _storage_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix in STORAGE_SUFFIXES)
