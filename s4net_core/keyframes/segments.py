"""Segments: stretches of a stream whose poses are in one frame for certain, and which of them were shown to fit."""

import math
import statistics
from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import KeyframeSettings

SLACK, TURN_SLACK = 0.1, 10.0
"""Metres and degrees by which two poses may differ however short the time between them: noise of tracking."""
MAX_TURN_RATE = 180.0
"""Degrees a second; a camera that seems to turn faster has jumped."""
UNUSUAL = 5.0
"""Only a step this many times as large as usual breaks a stream: a slow or coarse capture is no series of jumps."""
RECENT = 30
"""Number of recent steps between views whose median is usual."""
PROOFS = 3
"""Number of pairs that must fit in all directions before two segments count as one..."""
PROOFS_PER_CONTRADICTION = 4
"""...and how many there must be for each pair of the two whose depths contradict each other."""
SAME_PLACE, SAME_DIRECTION = 0.001, 0.1
"""Metres and degrees within which two poses of the same stamp are the same."""


class Segments:
    """Numbers the segments of a stream of posed views, and joins those that were shown to fit.

    A new segment begins when the pose jumps, after a gap in time, and when time goes back: nobody knows then whether
    poses are still in the same frame. Two segments are joined, for good, when `PROOFS` pairs of their views fit, and
    few contradict; views of joined segments are compared and taught like views of one.

    Args:
        settings: `max_speed` and `max_gap`.
    """

    def __init__(self, settings: KeyframeSettings) -> None:
        self._settings = settings
        self.current = 0
        """Segment of the newest view."""
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=RECENT)
        self._parents: dict[int, int] = {}
        self._proofs: Counter[tuple[int, int]] = Counter()
        self._contradictions: Counter[tuple[int, int]] = Counter()

    def follow(self, stamp: int, T_world_camera: NDArray[np.float64]) -> int:
        """Segment of a view; call it for every view of the stream, in the order in which they come.

        Args:
            stamp: nanoseconds.
            T_world_camera: (4, 4).
        """
        if self._last is not None and self._broken(stamp, *self._last, T_world_camera):
            self.begin()
        self._last = stamp, T_world_camera
        return self.current

    def begin(self) -> None:
        """The next view begins a new segment."""
        self.current += 1
        self._last = None

    def group(self, segment: int) -> int:
        """Smallest number among the segments that are joined with this one."""
        while (parent := self._parents.get(segment, segment)) != segment:
            segment = parent
        return segment

    def join(self, first: int, second: int) -> None:
        """Two segments have been shown to be in one frame."""
        low, high = sorted((self.group(first), self.group(second)))
        if low == high:
            return
        self._parents[high] = low
        for counts in (self._proofs, self._contradictions):  # evidence about the one is evidence about both
            for pair in [pair for pair in counts if high in pair]:
                other = pair[0] if pair[1] == high else pair[1]
                number = counts.pop(pair)
                if other != low:
                    counts[_ordered(low, other)] += number

    def note(self, first: int, second: int, *, fits: bool) -> bool:
        """Count a pair of views of two segments as evidence.

        Args:
            first, second: segments of the views.
            fits: their depths fit as they do in no pose nearby; False = they contradict each other.

        Returns:
            Whether the two are joined by that.
        """
        pair = _ordered(self.group(first), self.group(second))
        if pair[0] == pair[1]:
            return False
        (self._proofs if fits else self._contradictions)[pair] += 1
        if self._proofs[pair] < max(PROOFS, PROOFS_PER_CONTRADICTION * self._contradictions[pair]):
            return False
        self.join(*pair)
        return True

    def forget_evidence(self) -> None:
        """Forget what pairs have shown, because poses were corrected; what is joined stays so."""
        self._proofs.clear()
        self._contradictions.clear()

    @property
    def joined(self) -> list[tuple[int, int]]:
        """Every segment that is joined, with the smallest number of its group."""
        return [(segment, self.group(segment)) for segment in sorted(self._parents)]

    def restore(self, newest: int, joined: Iterable[tuple[int, int]], *, same_frame: bool) -> None:
        """Go on from saved segments.

        Args:
            newest: largest number of a saved segment.
            joined: as the property.
            same_frame: whether the views to come are in the frame of that segment; otherwise they begin a new one.
        """
        self.current, self._last = newest, None
        for first, second in joined:
            self.join(first, second)
        if not same_frame:
            self.begin()

    def _broken(
        self, stamp: int, last_stamp: int, T_last: NDArray[np.float64], T_world_camera: NDArray[np.float64]
    ) -> bool:
        """Whether nobody knows that a view is in the frame of the one before it."""
        seconds = (stamp - last_stamp) / 1e9
        if seconds < 0:
            return True
        distance, angle = difference(T_last, T_world_camera)
        step = (seconds, float(distance), float(angle))
        usual = [statistics.median(values) for values in zip(*self._steps, strict=True)]
        self._steps.append(step)
        if not usual:  # of a slow or coarse capture, the first step alone says nothing
            return False
        limits = [self._settings.max_gap or math.inf, math.inf, math.inf]
        if self._settings.max_speed:
            limits[1:] = SLACK + self._settings.max_speed * seconds, TURN_SLACK + MAX_TURN_RATE * seconds
        return any(value > max(limit, UNUSUAL * often) for value, limit, often in zip(step, limits, usual, strict=True))


def same_pose(T_first: NDArray[np.float64], T_second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether two poses, (..., 4, 4) -> (...), of the same stamp come from the same recording."""
    distance, angle = difference(T_first, T_second)
    return (distance < SAME_PLACE) & (angle < SAME_DIRECTION)


def difference(
    T_first: NDArray[np.float64], T_second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance, metres, and angle, degrees, between two poses, (..., 4, 4) -> (...)."""
    cosine = (np.einsum("...ij,...ij->...", T_first[..., :3, :3], T_second[..., :3, :3]) - 1) / 2
    distance = np.linalg.norm(T_first[..., :3, 3] - T_second[..., :3, 3], axis=-1)
    return np.asarray(distance), np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _ordered(first: int, second: int) -> tuple[int, int]:
    return min(first, second), max(first, second)
