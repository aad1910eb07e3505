"""Recorded streams: a recording is played through the assembler that the live node uses, and gives the same frames."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Frame
from s4net_core.geometry.association import Synchroniser
from s4net_core.geometry.time_jumps import EDGE, Stamp, TimeJumps
from s4net_core.geometry.transforms import TransformBuffer
from s4net_core.io.captures.assembly import FrameAssembler, Picture
from s4net_core.io.captures.trajectory import Poses

_log = logging.getLogger(__name__)


class RecordedCapture(ABC):
    """A `FrameSource` whose colour, depth and poses have stamps of their own.

    Args:
        path: file or folder of the recording.
        stream: fixed frame, slop, waiting times: as for the live node.
        poses: others than those of the recording, or where it has none.
        stride: take every n-th frame.
        with_depth: False = depth is not read, every colour image becomes a frame without it.

    Raises:
        CaptureError: `stride` is below 1.
    """

    damage = ""
    """Why the recording ends early; empty = it does not. Known after an iteration."""
    _count = 0
    """Colour images; 0 = not known."""

    def __init__(
        self,
        path: str | Path,
        stream: StreamSettings | None = None,
        *,
        poses: Poses | None = None,
        stride: int = 1,
        with_depth: bool = True,
    ) -> None:
        if stride < 1:
            raise CaptureError(f"stride is {stride}: it must be 1 or more")
        self.path = Path(path)
        self.stride = stride
        self._stream = stream or StreamSettings()
        self._poses = poses
        self._with_depth = with_depth
        self._assembler = StreamAssembler(self._stream, poses, with_depth=with_depth)

    @property
    def name(self) -> str:
        """Name of the folder or file."""
        return self.path.resolve().name

    @property
    def skipped(self) -> dict[str, int]:
        """Colour images left out by the last iteration, by reason."""
        return dict(self._assembler.skipped)

    def __iter__(self) -> Iterator[Frame]:
        """Frames in time order; those of a damaged recording up to the damage.

        Raises:
            CaptureError: at the end, when not one frame could be used.
        """
        self._assembler = assembler = StreamAssembler(self._stream, self._poses, with_depth=self._with_depth)
        yield from islice(self._frames(assembler), 0, None, self.stride)
        if not assembler.delivered:
            raise _no_frames(self.path, assembler, self.damage)
        if self.damage:
            _log.warning(
                "%s is damaged or was not closed (%s): %d frames lie before that",
                *(self.path, self.damage, assembler.delivered),
            )

    def __len__(self) -> int:
        """Number of frames that iteration will try; 0 when the recording does not say."""
        return -(-self._count // self.stride)

    def _frames(self, assembler: "StreamAssembler") -> Iterator[Frame]:
        for _ in self._play(assembler):
            yield from assembler.poll()
        yield from assembler.flush()

    @abstractmethod
    def _play(self, assembler: "StreamAssembler") -> Iterator[None]:
        """Add everything to `assembler` in the order of the recording, and yield after each."""


class StreamAssembler(FrameAssembler):
    """`FrameAssembler` with its own synchroniser and transform buffer: for recorded streams, where there is no ROS.

    Add everything in the order of the recording and `poll` after each; at the end `flush`.

    Args:
        stream: settings.
        poses: where poses come from instead of transforms.
        with_depth: whether colour waits for the depth that belongs to it; if not, depth is passed over.
    """

    def __init__(self, stream: StreamSettings, poses: Poses | None = None, *, with_depth: bool = True) -> None:
        self._with_depth = with_depth
        self.transforms = TransformBuffer(round(stream.tf_history * 1e9))
        streams = ("color", "depth") if with_depth else ("color",)
        self.synchroniser = Synchroniser(streams, slop_ns=round(stream.sync_slop * 1e9), queue=stream.sync_queue)
        self._jumps = TimeJumps()
        self._numbers: dict[int, int] = {}
        super().__init__(stream, self.transforms.lookup if poses is None else partial(self._pose_from, poses))

    def add_color(self, color: Picture) -> None:
        """One colour image."""
        stale = self._jumps.see_color(color.stamp)
        if stale is not None:
            self.synchroniser.clear(["color", *(stream for stream in stale if stream == "depth")])
            self.transforms.forget(stream.removeprefix(EDGE) for stream in stale if stream.startswith(EDGE))
        self._numbers[color.stamp] = self.received
        self.see_color(color.stamp)
        self._match("color", color)

    def add_depth(self, depth: Picture) -> None:
        """One depth image, registered to colour."""
        seen = self._jumps.see("depth", depth.stamp)
        if self._with_depth and seen != Stamp.LEFT_OVER:
            if seen == Stamp.WENT_BACK:
                self.synchroniser.clear(["depth"])
            self._match("depth", depth)

    def add_transform(
        self, parent: str, child: str, stamp: int, T_parent_child: NDArray[np.float64], static: bool = False
    ) -> None:
        """One transform of /tf or /tf_static; one that is no rigid transform is left out, see `details["pose"]`."""
        if not static and self._jumps.see(EDGE + child.lstrip("/"), stamp) == Stamp.LEFT_OVER:
            return
        try:
            self.transforms.set(parent, child, stamp, T_parent_child, static)
        except BadFrame as error:
            self.details[error.reason] = f"transform {parent} -> {child}: {error}"

    def _pose_from(self, poses: Poses, target: str, source: str, stamp: int) -> NDArray[np.float64]:
        return poses.at(stamp, self._numbers[stamp])

    def _match(self, stream: str, picture: Picture) -> None:
        for color, *depth in self.synchroniser.add(stream, picture.stamp, picture):
            self.add_view(color, depth[0] if depth else None)


def _no_frames(path: Path, assembler: FrameAssembler, damage: str) -> CaptureError:
    """The error for a capture of which not one frame could be used, with every reason."""
    reasons = [f"{count} x {reason}: {assembler.details[reason]}" for reason, count in assembler.skipped.items()]
    reasons += [damage] if damage else []
    return CaptureError(f"{path} has no frame that can be used ({'; '.join(reasons) or 'it has no colour image'})")
