"""TUM RGB-D (Sturm et al., IROS 2012): colour, depth and poses, each with its own stamps, matched like live topics.

``rgb.txt`` and ``depth.txt`` (stamp, file), ``groundtruth.txt`` (stamp, tx ty tz, qx qy qz qw; T_world_camera). The
lens is that of the data set's camera. Other cameras say theirs in an ``intrinsics.json`` as in a scene folder, where
``depth_scale`` replaces the data set's 5000 units a metre.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Intrinsics
from s4net_core.geometry.poses import pose_matrix
from s4net_core.io.captures.intrinsics_file import INTRINSICS_FILE, lens_beside
from s4net_core.io.captures.recorded import RecordedCapture
from s4net_core.io.captures.scene_folder import FRAME_ID
from s4net_core.io.captures.trajectory import TUM_WORDS, Poses, nanoseconds, numbered_lines, text_of
from s4net_core.io.images.files import read_color, read_depth
from s4net_core.streams.assembler import Picture
from s4net_core.streams.offline import StreamAssembler

GROUND_TRUTH = "groundtruth.txt"
UNITS_PER_METRE = 5000.0
CAMERAS = {
    "1": Intrinsics(640, 480, 517.3, 516.5, 318.6, 255.3),
    "2": Intrinsics(640, 480, 520.9, 521.0, 325.1, 249.7),
    "3": Intrinsics(640, 480, 535.4, 539.2, 320.1, 247.6),
}
"""Calibrations that the data set publishes, by the camera's number (freiburg1, ...); depth is registered to colour.

The published distortion is left out: undoing it makes views of freiburg1_xyz differ more when warped into each other,
most of all at the borders.
"""
UNKNOWN_CAMERA = Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)
"""The data set's recommendation where no calibration is known."""


class _Event(NamedTuple):
    stamp: int
    order: int
    kind: Literal["pose", "depth", "color"]
    words: list[str]


class TumCapture(RecordedCapture):
    """Frames of one TUM RGB-D sequence; the pose at the colour image's stamp is interpolated.

    As in the live node, a colour image is matched only when later images show that no nearer depth image will come.

    Args:
        path: folder of the sequence. Its ``intrinsics.json`` tells the camera, or else its name or the comment in
            ``groundtruth.txt`` (``freiburg1`` or ``fr1``).
        stream: slop of the association, waiting time for poses.
        poses: replace ``groundtruth.txt``, which may then be missing.
        stride: take every n-th frame.
        with_depth: False = depth is not read, every colour image becomes a frame without it.

    Raises:
        CaptureError: a text file is missing or cannot be parsed, or ``intrinsics.json`` has a lens for each image.
    """

    def __init__(
        self,
        path: str | Path,
        stream: StreamSettings | None = None,
        *,
        poses: Poses | None = None,
        stride: int = 1,
        with_depth: bool = True,
    ) -> None:
        super().__init__(path, stream, poses=poses, stride=stride, with_depth=with_depth)
        colors = _read_list(self.path / "rgb.txt", "color", 2)
        depths = _read_list(self.path / "depth.txt", "depth", 2) if with_depth else []
        tracked = [] if poses else _read_list(self.path / GROUND_TRUTH, "pose", TUM_WORDS)
        self._events = sorted(tracked + depths + colors)
        self._count = len(colors)
        self._lens, self._units_per_metre = _camera(self.path)

    def _play(self, assembler: StreamAssembler) -> Iterator[None]:
        for event in self._events:
            self._add(assembler, event)
            yield

    def _add(self, assembler: StreamAssembler, event: _Event) -> None:
        if event.kind == "pose":
            try:
                numbers = [float(word) for word in event.words]
                T_world_camera = pose_matrix(numbers[:3], numbers[3:])
            except (ValueError, BadFrame) as error:
                raise CaptureError(f"{self.path / GROUND_TRUTH}: {' '.join(event.words)}: {error}") from error
            assembler.add_transform(self._stream.fixed_frame, FRAME_ID, event.stamp, T_world_camera)
        elif event.kind == "depth":
            assembler.add_depth(self._picture(event, partial(read_depth, units_per_metre=self._units_per_metre)))
        else:
            assembler.add_camera_info(event.stamp, lambda: self._lens)
            assembler.add_color(self._picture(event, read_color))

    def _picture(self, event: _Event, read: Callable[[Path], object]) -> Picture:
        return Picture(event.stamp, FRAME_ID, partial(read, self.path / event.words[0]))  # type: ignore[arg-type]


def is_tum(path: Path) -> bool:
    """Whether `path` looks like a sequence of TUM RGB-D."""
    return (path / "rgb.txt").is_file() and (path / "depth.txt").is_file()


def _camera(path: Path) -> tuple[Intrinsics, float]:
    """Lens, and depth units per metre."""
    truth = path / GROUND_TRUTH
    lines = text_of(truth).splitlines()[:3] if truth.is_file() else []
    comments = [line for line in lines if line.startswith("#")]
    match = re.search(r"(?:freiburg|fr)([123])", " ".join([path.resolve().name, *comments]))
    if match and not (path / INTRINSICS_FILE).is_file():
        return CAMERAS[match[1]], UNITS_PER_METRE
    return lens_beside(path, UNKNOWN_CAMERA, UNITS_PER_METRE)


def _read_list(path: Path, kind: Literal["pose", "depth", "color"], words: int) -> list[_Event]:
    if not path.is_file():
        hint = "; `s4net register` finds poses where there are none" if kind == "pose" else ""
        raise CaptureError(f"{path} is missing: a TUM RGB-D folder has rgb.txt, depth.txt and groundtruth.txt{hint}")
    events = []
    order = {"pose": 0, "depth": 1, "color": 2}[kind]
    for number, fields in numbered_lines(path):
        if len(fields) != words:
            raise CaptureError(f"{path}:{number}: '{' '.join(fields)}' has {len(fields)} words, not {words}")
        events.append(_Event(nanoseconds(fields[0], f"{path}:{number}"), order, kind, fields[1:]))
    return events
