"""Captures that hold one file an image: any frame can be asked for by position."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from s4net_core.errors import BadFrame
from s4net_core.frames import Frame


class IndexedCapture(ABC):
    """A `FrameSource` by position: iteration leaves out what cannot be used and counts it.

    Args:
        path: folder of the capture.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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

    @abstractmethod
    def __len__(self) -> int:
        """Number of positions."""

    @abstractmethod
    def __getitem__(self, position: int) -> Frame:
        """The frame at that position.

        Raises:
            BadFrame: it cannot be used.
        """
