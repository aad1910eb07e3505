"""ScanNet's .sens files, version 4: one scan in one file, read frame by frame without unpacking.

Header: sensor, calibration, compression, sizes, number of frames. Then, for every frame, its pose, two stamps, two
sizes, colour, depth. IMU samples follow; they are not read.
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.files import open_regular
from s4net_core.frames import Intrinsics, check_pose
from s4net_core.io.bags.messages import intrinsics_from_calibration
from s4net_core.io.images.codec import MILLIMETRES, decode_color, decode_compressed_color, decode_depth
from s4net_core.io.images.pixels import check_pixels

VERSION = 4
COLOR_COMPRESSION = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSION = {0: "raw_ushort", 1: "zlib_ushort"}
"""ScanNet's library has a third one, occi_ushort, which no published scan uses."""
_LONGEST_NAME = 4096
_MATRIX = struct.Struct("<16f")
_SETUP = struct.Struct("<iiIIIIfQ")  # compression, sizes, units, number of frames
_FRAME = struct.Struct("<16fQQQQ")


class SensHeader(NamedTuple):
    """Fields that hold for all frames.

    Args:
        sensor: its name.
        color, depth: lenses, with the sizes of the images.
        T_base_color, T_base_depth: (4, 4), from each camera to the base; a frame's pose is that of the base.
        color_compression, depth_compression: e.g. ``jpeg``, ``zlib_ushort``.
        units_per_metre: of depth.
        frames: number of frames that the file claims to hold.
    """

    sensor: str
    color: Intrinsics
    depth: Intrinsics
    T_base_color: NDArray[np.float64]
    T_base_depth: NDArray[np.float64]
    color_compression: str
    depth_compression: str
    units_per_metre: float
    frames: int


class _Entry(NamedTuple):
    T_world_base: NDArray[np.float64]
    color: tuple[int, int]  # offset, size
    depth: tuple[int, int]


class SensFile:
    """Random access to the frames; each part is read when it is asked for.

    Args:
        path: the file.

    Attributes:
        header: fields that hold for all frames.
        damage: why the frames end early; empty = nothing found yet.

    Raises:
        CaptureError: it is missing, truncated before its first frame, or of another version or compression.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        try:
            with open_regular(path) as file:
                self.header = _read_header(file, path)
                self._next = file.tell()
        except (OSError, struct.error, BadFrame) as error:
            raise CaptureError(f"{path} is no whole .sens file ({error}): fetch it again") from error
        self._size = path.stat().st_size
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        """Number of frames that the file claims to hold, at most as many as its size allows."""
        return min(self.header.frames, self._size // _FRAME.size)

    def pose(self, position: int) -> NDArray[np.float64]:
        """T_world_base, (4, 4).

        Raises:
            BadFrame: ``pose`` where the tracker was lost, ``unreadable`` after the end of a truncated file.
        """
        T_world_base = self._entry(position).T_world_base
        check_pose(T_world_base)
        return T_world_base

    def color(self, position: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            BadFrame: ``color_format``, or ``unreadable`` after the end of a truncated file.
        """
        data, lens = self._read(*self._entry(position).color), self.header.color
        if self.header.color_compression == "raw":
            return decode_color("rgb8", lens.height, lens.width, 3 * lens.width, False, data)
        return decode_compressed_color(self.header.color_compression, data)

    def depth(self, position: int) -> NDArray[np.float32]:
        """(H, W) float32 metres, 0 = none, as the depth camera sees it.

        Raises:
            BadFrame: ``depth_format``, or ``unreadable`` after the end of a truncated file.
        """
        data, lens = self._read(*self._entry(position).depth), self.header.depth
        if self.header.depth_compression == "zlib_ushort":
            try:
                check_pixels(lens.width, lens.height)
                data = zlib.decompressobj().decompress(data, 2 * lens.width * lens.height + 1)  # + 1: to the checksum
            except zlib.error as error:
                raise BadFrame("depth_format", f"depth {position} of {self.path} is damaged: {error}") from error
        depth = decode_depth("16UC1", lens.height, lens.width, 2 * lens.width, False, data)  # as if millimetres
        depth *= np.float32(MILLIMETRES / self.header.units_per_metre)
        return depth

    def _entry(self, position: int) -> _Entry:
        """Where a frame lies in the file; the headers before it are walked once."""
        if position >= len(self._entries) and not self.damage:
            with open_regular(self.path) as file:
                while position >= len(self._entries) and not self.damage:
                    self._walk(file)
        if position >= len(self._entries):
            raise BadFrame("unreadable", f"frame {position} of {self.path} is missing: {self.damage}")
        return self._entries[position]

    def _walk(self, file: BinaryIO) -> None:
        file.seek(self._next)
        head = file.read(_FRAME.size)
        start = self._next + _FRAME.size
        if len(head) == _FRAME.size:
            *numbers, _, _, color_size, depth_size = _FRAME.unpack(head)
            end = start + color_size + depth_size
            if end <= self._size:
                T_world_base = np.array(numbers, np.float64).reshape(4, 4)
                self._entries.append(_Entry(T_world_base, (start, color_size), (start + color_size, depth_size)))
                self._next = end
                return
        self.damage = f"the file ends in frame {len(self._entries)} of {self.header.frames}, fetch it again"

    def _read(self, offset: int, size: int) -> bytes:
        with open_regular(self.path) as file:
            file.seek(offset)
            return file.read(size)


def _read_header(file: BinaryIO, path: Path) -> SensHeader:
    version, length = struct.unpack("<IQ", file.read(12))
    if version == VERSION and length > _LONGEST_NAME:
        raise CaptureError(f"{path} is damaged: its sensor's name has {length} bytes. Fetch it again")
    if version != VERSION:
        raise CaptureError(f"{path} is no .sens file of version {VERSION} (it says {version}): use ScanNet v2's")
    sensor = file.read(length).decode(errors="replace")
    matrices = [np.array(_MATRIX.unpack(file.read(_MATRIX.size)), np.float64).reshape(4, 4) for _ in range(4)]
    color_kind, depth_kind, *sizes, units, frames = _SETUP.unpack(file.read(_SETUP.size))
    if color_kind not in COLOR_COMPRESSION or depth_kind not in DEPTH_COMPRESSION:
        raise CaptureError(
            f"{path} has compression {color_kind} of colour and {depth_kind} of depth: {COLOR_COMPRESSION} and "
            f"{DEPTH_COMPRESSION} are read; export others with ScanNet's SensReader"
        )
    if not 0 < units < np.inf:
        raise CaptureError(f"{path} has a depth shift of {units}: it must be units a metre, usually 1000")
    K_color, T_base_color, K_depth, T_base_depth = matrices
    for T in (T_base_color, T_base_depth):
        check_pose(T)
    return SensHeader(
        sensor=sensor,
        color=intrinsics_from_calibration(sizes[0], sizes[1], K_color[:3, :3].ravel().tolist(), ()),
        depth=intrinsics_from_calibration(sizes[2], sizes[3], K_depth[:3, :3].ravel().tolist(), ()),
        T_base_color=T_base_color,
        T_base_depth=T_base_depth,
        color_compression=COLOR_COMPRESSION[color_kind],
        depth_compression=DEPTH_COMPRESSION[depth_kind],
        units_per_metre=units,
        frames=frames,
    )
