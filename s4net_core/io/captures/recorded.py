"""Recorded streams: a recording is played through the live node's assembler, so that it gives the same frames."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import Frame, LazyView, decoded
from s4net_core.io.captures.indexed import no_frames
from s4net_core.io.captures.trajectory import Poses
from s4net_core.streams.offline import StreamAssembler

_log = logging.getLogger(__name__)


class RecordedCapture(ABC):
    """A `Capture` whose colour, depth and poses each have their own stamps.

    Args:
        path: file or folder of the recording.
        stream: fixed frame, slop and waiting times, as for the live node.
        poses: replace the recording's own poses, or supply missing ones.
        stride: take every n-th frame.
        with_depth: False = depth is not read, every colour image becomes a frame without it.

    Raises:
        CaptureError: `stride` is below 1.
    """

    damage = ""
    """Why the recording ends early; empty = it does not. Known after an iteration."""
    _count = 0
    """Number of colour images; 0 = unknown."""

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
        self._assembler = self._new_assembler()

    @property
    def name(self) -> str:
        """Name of the folder or file."""
        return self.path.resolve().name

    @property
    def skipped(self) -> dict[str, int]:
        """Colour images left out by the last iteration, by reason."""
        return dict(self._assembler.skipped)

    @property
    def details(self) -> dict[str, str]:
        """The newest message for each reason in `skipped`."""
        return {reason: text for reason, text in self._assembler.details.items() if reason in self.skipped}

    def __iter__(self) -> Iterator[Frame]:
        """Frames in time order; a damaged recording is read up to the damage.

        Raises:
            CaptureError: at the end, if no frame could be used.
        """
        return decoded(self.views())

    def views(self) -> Iterator[LazyView]:
        """Views in time order, not decoded; a damaged recording is read up to the damage.

        Raises:
            CaptureError: at the end, if there was no view, or none could be decoded.
        """
        self._assembler = assembler = self._new_assembler()
        yield from islice(self._played(assembler), 0, None, self.stride)
        if not assembler.delivered:
            raise no_frames(self.path, assembler.skipped, assembler.details, self.damage)
        if self.damage:
            _log.warning(
                "%s is damaged or was not closed (%s): %d frames lie before that",
                *(self.path, self.damage, assembler.delivered),
            )

    def __len__(self) -> int:
        """Number of frames that iteration will try; 0 when the recording does not say."""
        return -(-self._count // self.stride)

    def _new_assembler(self) -> StreamAssembler:
        poses = self._poses
        pose_of = None if poses is None else lambda color: poses.at(color.stamp, color.number)
        return StreamAssembler(self._stream, pose_of, with_depth=self._with_depth)

    def _played(self, assembler: StreamAssembler) -> Iterator[LazyView]:
        for _ in self._play(assembler):
            while (view := assembler.poll()) is not None:
                yield view
        assembler.end()
        while (view := assembler.poll()) is not None:
            yield view

    @abstractmethod
    def _play(self, assembler: StreamAssembler) -> Iterator[None]:
        """Add every image and pose to `assembler` in recorded order, and yield after each."""
