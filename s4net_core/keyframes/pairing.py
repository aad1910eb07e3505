"""Keyframes and what was measured between them: who sees whom, and who may teach whom."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.geometry.poses import inverse
from s4net_core.geometry.views import Views
from s4net_core.keyframes.gate import Measured, Overlaps, PairGate, Verdict
from s4net_core.keyframes.graph import OverlapGraph
from s4net_core.keyframes.places import Places
from s4net_core.keyframes.segments import Segments, same_pose
from s4net_core.keyframes.view import Keyframe, coarse_view

NEAR_IN_TIME = 4
"""Keyframes whose ids differ by no more than this tell about one another whether their poses and depths are good."""
MANY = 3
"""Keyframes near it in time that must contradict a keyframe, and be most of those that overlap, before it is given up.
"""


@dataclass(frozen=True)
class PairCounts:
    """Pairs of keyframes that see at least `min_overlap` of one another, each counted once.

    Args:
        usable: those that teach each other.
        refused: those whose depths contradict each other so that they do not teach each other.
        parted: those that fit, but lie in segments that were not shown to fit.
    """

    usable: int = 0
    refused: int = 0
    parted: int = 0


class Pairing:
    """Holds keyframes, measures each against those near it, and connects those that may teach each other.

    Strained pairs, `Verdict.STRAINED`, teach each other if nothing speaks against either keyframe itself. A wrong pose,
    or frozen depth, contradicts most of the views near in time. Drift of odometry contradicts views from long ago
    alone, and labels that many views share bear it.

    It is not safe for threads: the buffer's lock guards it.

    Args:
        settings: `candidates`, `coarse_width`, nearness, and those of `Segments` and `PairGate`.
        geometry: which pixels of two views count as the same point.
        min_overlap: share of a view that another one must see to count as covering it.
        from_sensor: as of `PairGate`.

    Attributes:
        keyframes: by id, in the order of their ids.
        measured: overlaps of each keyframe with older ones, by id; some of those may be gone.
        segments: which keyframes are in one frame.
        graph: the pairs that may teach each other.
        nbytes: memory of colour and depth, bytes.
    """

    def __init__(
        self, settings: KeyframeSettings, geometry: GeometrySettings, *, min_overlap: float, from_sensor: bool
    ) -> None:
        self.keyframes: dict[int, Keyframe] = {}
        self.measured: dict[int, Overlaps] = {}
        self.segments = Segments(settings)
        self.graph = OverlapGraph(min_overlap)
        self.nbytes = 0
        self._settings = settings
        self._min_overlap = min_overlap
        self._gate = PairGate(settings, geometry, min_overlap=min_overlap, from_sensor=from_sensor)
        self._coarse: dict[int, Views] = {}
        self._places = Places()
        self._by_stamp: dict[int, int] = {}
        self._doubted: set[int] = set()
        """Keyframes that do not fit those near them in time."""
        self._outdated: dict[int, set[int]] = {}
        """Pairs that were measured at other poses, the newer first: what was measured holds until it is done again."""
        self._counts: PairCounts | None = None
        """None = something has changed since they were counted."""

    def at_stamp(self, stamp: int) -> Keyframe | None:
        """The keyframe of an image, nanoseconds; None = there is none."""
        return self.keyframes.get(self._by_stamp.get(stamp, -1))

    def is_known(self, T_world_camera: NDArray[np.float64], segment: int) -> bool:
        """Whether a keyframe in the same frame is near a pose, (4, 4), and looks the same way."""
        around = self._places.around(T_world_camera[:3, 3], self._settings.min_translation)
        near = [self.keyframes[id] for id in around]
        near = [keyframe for keyframe in near if self.segments.group(keyframe.segment) == self.segments.group(segment)]
        if not near:
            return False
        rotations = np.stack([keyframe.T_world_camera[:3, :3] for keyframe in near])
        cosines = (np.einsum("nij,ij->n", rotations, T_world_camera[:3, :3]) - 1) / 2
        angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
        return bool((angles < self._settings.min_rotation).any())

    def insert(self, keyframe: Keyframe, overlaps: Overlaps | None = None) -> None:
        """Add a keyframe; its overlaps are measured unless they are given."""
        id = keyframe.id
        coarse = coarse_view(keyframe, self._settings.coarse_width)
        self._coarse[id], self.keyframes[id] = coarse, keyframe
        self._by_stamp[keyframe.stamp] = id
        self._places.put(id, coarse)
        self.measured[id] = self._measure(id) if overlaps is None else overlaps
        self.nbytes += keyframe.nbytes
        joined, doubts_change = self._judge(keyframe), self._doubt_around(id)
        if joined or doubts_change:
            self._connect_all()
        else:
            self.graph.add(id, self._usable(keyframe))
            self._counts = None

    def is_contradicted(self, id: int) -> bool:
        """Whether most of the keyframes near one in time contradict it; False when it is gone or few overlap with it.

        Then its own pose, depth or lens is wrong, or something moved: drift contradicts views of other times alone.
        """
        return id in self._doubted and self._near_fits(id).count(False) >= MANY

    def remove(self, id: int) -> None:
        """Forget a keyframe."""
        forgotten = self.keyframes.pop(id)
        self.nbytes -= forgotten.nbytes
        del self.measured[id], self._coarse[id]
        self._outdated.pop(id, None)
        if self._by_stamp.get(forgotten.stamp) == id:
            del self._by_stamp[forgotten.stamp]
        self._places.remove(id)
        self.graph.remove(id)
        self._doubted.discard(id)
        self._counts = None
        if self._doubt_around(id):
            self._connect_all()

    def join(self, first: int, second: int) -> None:
        """Two segments have been shown to be in one frame."""
        if self.segments.group(first) != self.segments.group(second):
            self.segments.join(first, second)
            self._connect_all()

    def move(self, moved: Mapping[int, NDArray[np.float64]]) -> list[int]:
        """Put keyframes at other poses. What was measured of them is as before until `measure_again` and `judge_all`.

        Returns:
            Ids of the keyframes to measure: those that moved, and newer ones whose pose relative to one has changed.
        """
        old = {id: keyframe.T_world_camera for id, keyframe in self.keyframes.items()}
        for id, T_world_camera in moved.items():
            keyframe = self.keyframes[id]
            self.keyframes[id] = replace(keyframe, T_world_camera=T_world_camera, revision=keyframe.revision + 1)
            self._coarse[id] = replace(self._coarse[id], T_world_camera=T_world_camera[None])
            self._places.put(id, self._coarse[id])
        for id, other in self._changed_pairs(old, moved):
            self._outdated.setdefault(id, set()).add(other)
        return sorted({*moved, *self._outdated})

    def _changed_pairs(self, old: Mapping[int, NDArray[np.float64]], moved: Collection[int]) -> list[tuple[int, int]]:
        """Measured pairs, the newer first, whose relative pose is not what it was when all had their `old` poses."""
        pairs = [
            (id, other)
            for id, overlaps in self.measured.items()
            for other in overlaps
            if other in old and (id in moved or other in moved)
        ]
        if not pairs:
            return []

        def relative(T_world_camera: Callable[[int], NDArray[np.float64]]) -> NDArray[np.float64]:
            T_first, T_second = (np.stack([T_world_camera(id) for id in ids]) for ids in zip(*pairs, strict=True))
            return inverse(T_first) @ T_second

        # All at once: a room has thousands of pairs, and the caller holds the buffer's lock.
        same = same_pose(relative(old.__getitem__), relative(lambda id: self.keyframes[id].T_world_camera))
        return [pair for pair, as_before in zip(pairs, same, strict=True) if not as_before]

    def measure_again(self, id: int, moved: Collection[int]) -> None:
        """Measure the pairs of a keyframe that `move` has changed, or brought about; `judge_all` must follow.

        Args:
            id: one of those that `move` has returned; it may be gone.
            moved: ids of the keyframes that have moved: one of them may have come near newer ones that have not.
        """
        if id not in self.keyframes:
            return
        self._forget_outdated(id, self._outdated.get(id, ()))
        self.measured[id] |= self._measure(id)
        if id in moved:
            near = self._nearest(id, lambda other: other > id and other not in moved and not self._knows(other, id))
            for prove, newer in zip((False, True), near, strict=True):
                for other in newer:
                    self._forget_outdated(other, (id,))
                views = {other: self._coarse[other] for other in newer}
                for other, pair in self._gate.measure(self._coarse[id], views, prove=prove, newer=True).items():
                    self.measured[other][id] = pair
        self._counts = None

    def _knows(self, id: int, other: int) -> bool:
        """Whether a pair, the newer first, was measured at the poses of now."""
        return other in self.measured[id] and other not in self._outdated.get(id, ())

    def _forget_outdated(self, id: int, others: Iterable[int]) -> None:
        outdated = self._outdated.pop(id, set())
        for other in outdated.intersection(others):
            del self.measured[id][other]
        if left := outdated.difference(others):
            self._outdated[id] = left

    def up_to_date(self, id: int) -> Overlaps:
        """What was measured of a keyframe and older ones at the poses of now."""
        return {other: pair for other, pair in self.measured[id].items() if self._knows(id, other)}

    def judge_all(self) -> None:
        """Judge all pairs anew, because poses were corrected, and connect those that may teach each other."""
        self.segments.forget_evidence()
        for keyframe in self.keyframes.values():
            self._judge(keyframe)
        self._connect_all()

    @property
    def counts(self) -> PairCounts:
        """Pairs by whether they may teach each other; counted when something has changed."""
        if self._counts is None:
            self._counts = self._counted()
        return self._counts

    def refused(self) -> list[tuple[int, int]]:
        """Ids of the keyframes, the newer first, that do not teach each other because their depths contradict."""
        return [
            (id, other)
            for id, overlaps in self.measured.items()
            for other, pair in overlaps.items()
            if other in self.keyframes and self._refuses(id, other, pair)
        ]

    def _counted(self) -> PairCounts:
        counts = Counter[str]()
        for id, overlaps in self.measured.items():
            for other, pair in overlaps.items():
                if other not in self.keyframes:
                    continue
                if self._refuses(id, other, pair):
                    counts["refused"] += 1
                elif max(pair.of_new, pair.of_other) >= self._min_overlap:
                    counts["usable" if self._may_teach(self.keyframes[id], other, pair) else "parted"] += 1
        return PairCounts(**counts)

    def _measure(self, id: int) -> Overlaps:
        """Overlaps of a keyframe with the nearest older ones of its own segment, and with the nearest of others."""
        new, known = self._coarse[id], self.measured.get(id, {})
        own, others = self._nearest(id, lambda other: other < id and other not in known)
        measured = self._gate.measure(new, {id: self._coarse[id] for id in own}, prove=False)
        return measured | self._gate.measure(new, {id: self._coarse[id] for id in others}, prove=True)

    def _nearest(self, id: int, wanted: Callable[[int], bool]) -> tuple[list[int], list[int]]:
        """Ids of the wanted keyframes nearest to one: of its own frame, and of others; `candidates` each at most."""
        group = self.segments.group(self.keyframes[id].segment)
        own, others = list[int](), list[int]()
        for other in filter(wanted, self._places.nearest(self._coarse[id])):
            (own if self.segments.group(self.keyframes[other].segment) == group else others).append(other)
        return own[: self._settings.candidates], others[: self._settings.candidates]

    def _judge(self, keyframe: Keyframe) -> bool:
        """Take pairs of a new keyframe as evidence about their segments. Returns whether any are joined by it."""
        joined = False
        for other, pair in self.measured[keyframe.id].items():
            if other in self.keyframes and pair.verdict != Verdict.FITS:
                segments = keyframe.segment, self.keyframes[other].segment
                joined |= self.segments.note(*segments, fits=pair.verdict == Verdict.PROVES)
        return joined

    def _usable(self, keyframe: Keyframe) -> Overlaps:
        """The measured pairs of a keyframe that may teach each other."""
        measured = self.measured[keyframe.id]
        return {other: pair for other, pair in measured.items() if self._may_teach(keyframe, other, pair)}

    def _may_teach(self, keyframe: Keyframe, other: int, pair: Measured) -> bool:
        if other not in self.keyframes or self._refuses(keyframe.id, other, pair):
            return False
        return self.segments.group(keyframe.segment) == self.segments.group(self.keyframes[other].segment)

    def _refuses(self, id: int, other: int, pair: Measured) -> bool:
        strained = pair.verdict == Verdict.STRAINED
        return pair.verdict == Verdict.CONTRADICTS or (strained and not self._doubted.isdisjoint((id, other)))

    def _doubt_around(self, id: int) -> bool:
        """Judge a keyframe that has come or gone, and those near it in time. Returns whether it changes others."""
        near = self._near_in_time(id)
        before = self._doubted - {id}
        self._doubted = self._doubted.difference(near) | {n for n in near if self._is_doubted(n)}
        return self._doubted - {id} != before

    def _near_in_time(self, id: int) -> list[int]:
        """Ids of the keyframes near one in time, its own among them if it is there."""
        return [near for near in range(id - NEAR_IN_TIME, id + NEAR_IN_TIME + 1) if near in self.keyframes]

    def _is_doubted(self, id: int) -> bool:
        """Whether a keyframe fits fewer than half of those that are near it in time, or nothing is known of them."""
        fits = self._near_fits(id)
        return not fits or sum(fits) < len(fits) / 2

    def _near_fits(self, id: int) -> list[bool]:
        """For each keyframe near one in time and in its segment that overlaps with it: whether the two fit."""
        segment, fits = self.keyframes[id].segment, []
        for other in self._near_in_time(id):
            pair = self.measured.get(max(id, other), {}).get(min(id, other))
            if pair is None or self.keyframes[other].segment != segment:
                continue
            if not pair.fits or max(pair.of_new, pair.of_other) >= self._min_overlap:
                fits.append(pair.fits)
        return fits

    def _connect_all(self) -> None:
        """Make the graph anew from what was measured: segments were joined, views moved, or doubts have changed."""
        self.graph = OverlapGraph(self._min_overlap)
        self._doubted = {id for id in self.keyframes if self._is_doubted(id)}
        for id, keyframe in self.keyframes.items():
            self.graph.add(id, self._usable(keyframe))
        self._counts = None
