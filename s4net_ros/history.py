"""Points of a whole run in bounded memory: curves of the cockpit, reports of a live run."""

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class History(Generic[T]):
    """Points that span the whole run in bounded memory: the longer the run, the farther apart they are.

    Args:
        most: points that are kept, an even number. When there are more, every second one of them is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._points: list[T] = []
        self._every = 1
        self._offered = 0

    def add(self, point: T) -> None:
        """Offer a point; the newest one is always kept, to be replaced by the next if it falls between two others."""
        if self._offered % self._every and self._points:
            self._points[-1] = point
        else:
            self._points.append(point)
        self._offered += 1
        if len(self._points) > self._most:
            self._points = self._points[::2]
            self._every *= 2

    @property
    def points(self) -> Sequence[T]:
        """Those that are kept, oldest first."""
        return self._points
