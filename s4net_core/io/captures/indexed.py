"""Captures whose frames can be read by position, e.g. because every image is a file."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Frame, LazyView, decoded

Item = TypeVar("Item")

STEP_30_HZ = 33_333_333
"""Nanoseconds between two images at 30 Hz, for data sets that keep no stamps."""


class Place(NamedTuple):
    """Stamp and pose of a frame whose images are not read yet.

    Args:
        stamp: acquisition time, nanoseconds.
        T_world_camera: (4, 4) float64.
        load: reads the images; may raise BadFrame.
    """

    stamp: int
    T_world_camera: NDArray[np.float64]
    load: Callable[[], Frame]


class IndexedCapture(ABC):
    """A `Capture` with access by position. Iteration leaves out unusable frames and counts them.

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
        self._details: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The last two parts of the path, e.g. ``T1/scan1``."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def skipped(self) -> dict[str, int]:
        """Frames left out by the last iteration, by `BadFrame.reason`."""
        return dict(self._skipped)

    @property
    def details(self) -> dict[str, str]:
        """The newest message for each reason in `skipped`."""
        return dict(self._details)

    def __iter__(self) -> Iterator[Frame]:
        """Frames in time order.

        Raises:
            CaptureError: at the end, if no frame could be used.
        """
        return decoded(self.views())

    def views(self) -> Iterator[LazyView]:
        """Views in time order, not decoded.

        Raises:
            CaptureError: at the end, if there was no view, or none could be decoded.
        """
        self._skipped, self._details = Counter(), {}
        for position in range(len(self)):
            try:
                view = LazyView(*self.locate(position), self._count)
            except BadFrame as error:
                self._count(error)
                continue
            yield view
        if self._skipped.total() >= len(self):
            raise no_frames(self.path, self.skipped, self.details)

    def __getitem__(self, position: int) -> Frame:
        """The frame at that position.

        Raises:
            BadFrame: it cannot be used.
        """
        return LazyView(*self.locate(position)).decode()

    def strided(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every n-th of the items."""
        return items[:: self.stride]

    @abstractmethod
    def __len__(self) -> int:
        """Number of positions."""

    @abstractmethod
    def locate(self, position: int) -> Place:
        """Stamp and pose of the frame at that position, and the function that reads its images.

        Raises:
            BadFrame: it cannot be used.
        """

    def _count(self, error: Exception) -> None:
        if isinstance(error, BadFrame):
            self._skipped[error.reason] += 1
            self._details[error.reason] = str(error)


def no_frames(path: Path, skipped: Mapping[str, int], details: Mapping[str, str], damage: str = "") -> CaptureError:
    """The error for a capture without a usable frame; it lists every reason.

    Args:
        path: the capture.
        skipped: frames left out, by reason.
        details: a message for each of these reasons.
        damage: why the capture ends early; empty = it does not.
    """
    reasons = [f"{count} x {reason}: {details[reason]}" for reason, count in skipped.items()]
    reasons += [damage] if damage else []
    return CaptureError(f"{path} has no frame that can be used ({'; '.join(reasons) or 'it has no colour image'})")
