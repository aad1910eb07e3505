"""Captures that hold one file an image: any frame can be asked for by position."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Frame

Item = TypeVar("Item")

STEP_30_HZ = 33_333_333
"""Nanoseconds between two images of a depth camera, where a data set keeps no stamps."""


class IndexedCapture(ABC):
    """A `FrameSource` by position: iteration leaves out what cannot be used and counts it.

    Args:
        path: folder of the capture.
        stride: take every n-th frame; the others are not read.

    Raises:
        CaptureError: `stride` is below 1.
    """

    def __init__(self, path: str | Path, stride: int = 1) -> None:
        if stride < 1:
            raise CaptureError(f"stride is {stride}: it must be 1 or more")
        self.path = Path(path)
        self.stride = stride
        self._skipped: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The last two parts of the path, e.g. ``T1/scan1``."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def skipped(self) -> dict[str, int]:
        """Frames left out by the last iteration, by `BadFrame.reason`."""
        return dict(self._skipped)

    def __iter__(self) -> Iterator[Frame]:
        """Frames in time order."""
        self._skipped = Counter()
        for position in range(len(self)):
            try:
                frame = self[position]
            except BadFrame as error:
                self._skipped[error.reason] += 1
                continue
            yield frame

    def strided(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every n-th of the items."""
        return items[:: self.stride]

    @abstractmethod
    def __len__(self) -> int:
        """Number of positions."""

    @abstractmethod
    def __getitem__(self, position: int) -> Frame:
        """The frame at that position.

        Raises:
            BadFrame: it cannot be used.
        """
