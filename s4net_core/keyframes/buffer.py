"""The keyframe buffer: takes views that show something new, forgets the most redundant, knows who teaches whom."""

import statistics
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import KeyframeError
from s4net_core.frames import Frame, View
from s4net_core.geometry.camera import working_frame
from s4net_core.geometry.poses import inverse
from s4net_core.geometry.views import Views
from s4net_core.keyframes import store
from s4net_core.keyframes.corrections import Trail, moved_poses
from s4net_core.keyframes.gate import Measured, Overlaps, PairGate, Verdict
from s4net_core.keyframes.graph import OverlapGraph
from s4net_core.keyframes.places import Places
from s4net_core.keyframes.segments import Segments, same_pose
from s4net_core.keyframes.view import Decision, Keyframe, coarse_view, keyframe_of, sharpness, usable_depth

BYTES_PER_MEGABYTE = 1_000_000
BYTES_PER_PIXEL = 5
"""uint8 red, green, blue, and uint16 millimetres."""

DepthPrediction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W, 3) uint8 RGB -> (H, W) float32, metres."""


@dataclass(frozen=True)
class PairCounts:
    """Pairs of keyframes that see at least `min_overlap` of one another, each counted once.

    Args:
        usable: those that teach each other.
        refused: those whose depths contradict each other.
        parted: those that fit, but lie in segments that were not shown to fit.
    """

    usable: int = 0
    refused: int = 0
    parted: int = 0


class KeyframeBuffer:
    """Views of one scene, bounded in bytes.

    A view becomes a keyframe when no keyframe is both near it and looks the same way, it is sharp, and it has enough
    depth. Its overlap with the nearest keyframes is measured once and kept as a graph, so that asking for neighbours
    never looks through all keyframes. When memory is full, the view that the others cover best is forgotten.

    Neighbours are views whose depths do not contradict each other (`PairGate`), of one segment or of segments that
    were shown to fit (`Segments`). A view is known only by keyframes of such a segment.

    All methods may be called from any thread. Same views in the same order give the same buffer. There are two locks:
    `_lock` guards everything that the buffer holds, and nobody decodes an image, predicts depth or writes a file while
    holding it; `_saving` lets one `save` at a time into a folder.

    Args:
        keyframes: what is taken and kept.
        geometry: which pixels of two views count as the same point.
        min_overlap: share of a view that another one must see to count as covering it.
        size: (width, height), pixels, to which views are brought, without distortion; None = they are taken as they
            come, all of one size and undistorted.
        predict_depth: gives the depth of a view from its colour, for a camera without depth; the depth that a frame has
            of its own is not used then. It is called for each view that is new and sharp, on the caller's thread. What
            is predicted of a view later does not change its depth and overlaps here.
    """

    def __init__(
        self,
        keyframes: KeyframeSettings,
        geometry: GeometrySettings,
        *,
        min_overlap: float,
        size: tuple[int, int] | None = None,
        predict_depth: DepthPrediction | None = None,
    ) -> None:
        self._settings = keyframes
        self._geometry = geometry
        self._min_overlap = min_overlap
        self._gate = PairGate(keyframes, geometry, min_overlap=min_overlap, from_sensor=predict_depth is None)
        self._size = size
        self._predict_depth = predict_depth
        self._lock = threading.RLock()
        self._saving = threading.Lock()
        self._next_id = 0
        self._reset()

    def _reset(self) -> None:
        self._keyframes: dict[int, Keyframe] = {}
        self._measured: dict[int, Overlaps] = {}
        self._segments = Segments(self._settings)
        self._by_stamp: dict[int, int] = {}
        self._trail = Trail()
        self._corrections: dict[int, NDArray[np.float64]] = {}
        """By segment: maps the stream's world to the corrected one, for views to come."""
        self._coarse: dict[int, Views] = {}
        self._places = Places()
        self._nbytes = 0
        self._evicted = 0
        self._graph = OverlapGraph(self._min_overlap)
        self._recent_sharpness: deque[float] = deque(maxlen=self._settings.sharpness_window)

    def offer(self, view: View) -> Decision:
        """Take the view if it shows something new: its pose decides first, and only then is it decoded.

        Args:
            view: its arrays are copied when it is taken.

        Raises:
            BadFrame: it cannot be decoded, or its lens distortion is of an unknown kind.
            KeyframeError: it has another size than the keyframes, or is larger than the whole buffer may be.
        """
        with self._lock:
            segment, T_world_camera = self._follow(view)
            if self._is_known(T_world_camera, segment):
                return Decision(None, "known_view")
        frame = view.decode()
        if self._size is not None:
            frame = working_frame(frame, *self._size)
        value = sharpness(frame.color) if self._settings.min_sharpness else 0.0
        with self._lock:
            if self._is_blurred(value):
                return Decision(None, "blurred")
        depth = frame.depth if self._predict_depth is None else self._predict_depth(frame.color)
        if depth is not None:
            depth = usable_depth(depth, self._geometry.min_depth, self._geometry.max_depth)
        with self._lock:
            return self._take(frame, depth, segment)

    def move(self, path: Mapping[int, NDArray[np.float64]], *, follow: bool) -> int:
        """Move keyframes to where a corrected trajectory puts them, and measure anew what has moved.

        The correction is known at those stamps of the trajectory at which the stream gave a pose, and interpolated
        between them. Pairs whose relative pose has changed teach nobody until they are measured again.

        Args:
            path: corrected T_world_camera, (4, 4), by stamp, nanoseconds; the stamps need not be those of keyframes.
            follow: whether views to come need the newest correction too: the stream goes on in the old world.

        Returns:
            Number of keyframes that have moved.
        """
        with self._lock:
            knots = self._trail.knots(path)
            for stamp, T_corrected in path.items():
                keyframe = self._keyframes.get(self._by_stamp.get(stamp, -1))
                if keyframe is not None:
                    correction = T_corrected @ inverse(keyframe.T_world_camera)
                    knots.setdefault(keyframe.segment, {})[stamp] = correction
            moved = moved_poses(self._keyframes, knots)
            if not moved:
                return 0
            self._trail.move(knots)
            if follow:
                for segment, own in knots.items():
                    before = self._corrections.get(segment, np.eye(4))
                    self._corrections[segment] = own[max(own)] @ before
            stale = self._replace(moved)
        for id in stale:  # one at a time, so that nobody waits long
            with self._lock:
                if id in self._keyframes:
                    self._measured[id] |= self._measure(id)
        with self._lock:
            self._segments.forget_evidence()
            for id, keyframe in self._keyframes.items():
                self._judge(keyframe, self._measured[id])
            self._connect_all()
        return len(moved)

    def neighbours(self, id: int, n: int, min_overlap: float, rng: np.random.Generator) -> list[int]:
        """Up to `n` keyframes at random among those that see at least `min_overlap` of view `id`; [] if there is none.

        Args:
            id: of the target; an evicted one has no neighbours.
            n: number wanted; 0 = all, in the order in which they came.
            min_overlap: share of the target's view.
            rng: source of the choice; not asked for all.
        """
        with self._lock:
            able = [other for other, share in self._graph.seen_by(id).items() if share >= min_overlap]
        if not n:
            return sorted(able)
        if not able:
            return []
        chosen = rng.permutation(len(able))[:n]
        return [able[i] for i in chosen.tolist()]

    def overlapping(self, id: int, min_overlap: float) -> list[tuple[int, float]]:
        """Keyframes that see at least `min_overlap` of view `id`, with that share, largest first."""
        with self._lock:
            able = [(other, share) for other, share in self._graph.seen_by(id).items() if share >= min_overlap]
        return sorted(able, key=lambda pair: (-pair[1], pair[0]))

    def draw(
        self, count: int, neighbours: int, min_overlap: float, rng: np.random.Generator
    ) -> list[tuple[Keyframe, list[Keyframe]]]:
        """Target views at random, each with some of its neighbours at random (the paper's e and N(e)).

        Keyframes that are held out are never targets, but may be neighbours.
        Other threads may offer views meanwhile: what is drawn is what the buffer held at one moment.

        Args:
            count: target views wanted; fewer come when fewer have a neighbour.
            neighbours: largest number of neighbours of each; 0 = all.
            min_overlap: share of the target's view that a neighbour sees.
            rng: source of the choice.

        Returns:
            (target, neighbours), no target twice, at least one neighbour each; [] when no view has one.
        """
        with self._lock:
            able = [id for id in self.trainable(min_overlap) if not self._is_held_out(id)]
            targets = rng.choice(able, size=min(count, len(able)), replace=False).tolist() if able else []
            return [
                (self._keyframes[id], [self._keyframes[i] for i in self.neighbours(id, neighbours, min_overlap, rng)])
                for id in targets
            ]

    def trainable(self, min_overlap: float) -> list[int]:
        """Ids of the keyframes that have a neighbour with at least this overlap, ascending."""
        with self._lock:
            return [id for id in self._keyframes if self._graph.best(id) >= min_overlap]

    def held_out(self, min_overlap: float) -> list[int]:
        """Ids of the keyframes that the learner must not learn from, ascending: every `keyframes.holdout`-th one.

        Args:
            min_overlap: only those that have a neighbour with at least this overlap.
        """
        return [id for id in self.trainable(min_overlap) if self._is_held_out(id)]

    def any_trainable(self, min_overlap: float) -> bool:
        """Whether `trainable` would return any id; stops at the first."""
        with self._lock:
            return any(self._graph.best(id) >= min_overlap for id in self._keyframes)

    def __len__(self) -> int:
        return len(self._keyframes)

    def __contains__(self, id: object) -> bool:
        return id in self._keyframes

    def ids(self) -> list[int]:
        """Ids of all keyframes, ascending, which is the order in which they came."""
        with self._lock:
            return list(self._keyframes)

    def get(self, id: int) -> Keyframe:
        """The keyframe `id`.

        Raises:
            KeyframeError: it is not in the buffer, or no longer.
        """
        with self._lock:
            if id not in self._keyframes:
                raise KeyframeError(
                    f"keyframe {id} is not in the buffer of {len(self)}: it may have been evicted; ask ids() again"
                )
            return self._keyframes[id]

    def views(self, ids: Iterable[int]) -> dict[int, Keyframe]:
        """The keyframes among `ids` that are still in the buffer, by id, in the order given."""
        with self._lock:
            return {id: self._keyframes[id] for id in ids if id in self._keyframes}

    @property
    def pairs(self) -> PairCounts:
        """How many pairs teach each other, and how many do not although they overlap."""
        with self._lock:
            counts = Counter[str]()
            for id, overlaps in self._measured.items():
                for other, pair in overlaps.items():
                    if other not in self._keyframes:
                        continue
                    if pair.verdict == Verdict.CONTRADICTS:
                        counts["refused"] += 1
                    elif max(pair.of_new, pair.of_other) >= self._min_overlap:
                        counts["usable" if self._may_teach(self._keyframes[id], other, pair) else "parted"] += 1
            return PairCounts(**counts)

    def refused_pairs(self) -> list[tuple[int, int]]:
        """Ids of the keyframes, the newer first, whose depths contradict each other."""
        with self._lock:
            return [
                (id, other)
                for id, overlaps in self._measured.items()
                for other, pair in overlaps.items()
                if pair.verdict == Verdict.CONTRADICTS and other in self._keyframes
            ]

    def segments(self) -> dict[int, int]:
        """Segment of each keyframe by its id; segments that were shown to fit have the same number, the smallest."""
        with self._lock:
            return {id: self._group(keyframe.segment) for id, keyframe in self._keyframes.items()}

    @property
    def nbytes(self) -> int:
        """Memory of colour and depth of all keyframes, bytes."""
        return self._nbytes

    @property
    def newest(self) -> Keyframe | None:
        """The keyframe that came last; None = there is none."""
        with self._lock:
            return next(reversed(self._keyframes.values()), None)

    @property
    def evicted(self) -> int:
        """Keyframes forgotten to stay within memory."""
        return self._evicted

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the keyframes, pixels; None while any size may come."""
        first = next(iter(self._keyframes.values()), None)
        return self._size if first is None else _size_of(first)

    def clear(self) -> None:
        """Forget all keyframes; ids continue, so that an old id never names a new view."""
        with self._lock:
            self._reset()

    def save(self, folder: Path | str) -> None:
        """Write what is not yet in `folder`, and delete what was evicted; readable at any moment.

        Raises:
            KeyframeError: the folder cannot be written.
        """
        with self._saving:
            with self._lock:
                saved = store.Saved(
                    self._next_id,
                    self._evicted,
                    [(k, self._measured[k.id]) for k in self._keyframes.values()],
                    predicted=self._predict_depth is not None,
                    segment=self._segments.current,
                    joined=self._segments.joined,
                )
            store.write(Path(folder), saved)

    def load(self, folder: Path | str) -> list[str]:
        """Replace the contents by saved ones.

        Keyframes that do not fit any more (another size, less memory) are left out or evicted. All are left out if
        their depth was predicted and this buffer holds depth of a camera.

        Returns:
            What was left out, and why; one text a keyframe where it is about single ones.

        Raises:
            KeyframeError: there is no index in `folder`, or it is damaged or of an unknown version.
        """
        saved, problems = store.read(Path(folder))
        keyframes = saved.keyframes
        if saved.predicted and self._predict_depth is None:
            keyframes, problems = [], ["left out, their depth was predicted (setting geometry.depth)"]
        if self._size is not None and any(_size_of(keyframe) != self._size for keyframe, _ in keyframes):
            keyframes = [pair for pair in keyframes if _size_of(pair[0]) == self._size]
            problems.append("left out, images are processed at {}x{} now".format(*self._size))
        with self._lock:
            self._reset()
            self._next_id = max(self._next_id, saved.next_id)
            self._evicted = saved.evicted
            same_frame = self._settings.after_restart == "keep"
            self._segments.restore(saved.segment, saved.joined, same_frame=same_frame)
            for keyframe, overlaps in keyframes:
                try:
                    self._check_size(keyframe)
                except KeyframeError as error:
                    problems.append(str(error))
                    continue
                self._insert(keyframe, overlaps)
                self._evict(newest=keyframe.id)
        return problems

    def _check_size(self, view: Frame | Keyframe) -> None:
        width, height = _size_of(view)
        if self.size not in (None, (width, height)):
            raise KeyframeError(
                f"view at stamp {view.stamp} is {width}x{height} but the keyframes are {self.size}: rescale it, give "
                "the buffer a size, or clear it when the working size has changed"
            )
        if width * height * BYTES_PER_PIXEL > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            raise KeyframeError(
                f"one view of {width}x{height} takes more than keyframes.max_megabytes = "
                f"{self._settings.max_megabytes}: raise it"
            )

    def _follow(self, view: View) -> tuple[int, NDArray[np.float64]]:
        """Segment and corrected pose of a view that is offered.

        A view that was offered before, or is a keyframe, is of a recording that is played again, in the same frame.
        """
        segment = self._segments.follow(view.stamp, view.T_world_camera)
        T_world_camera = self._corrected(view.T_world_camera, segment)
        known = self._trail.played_again(view.stamp)
        self._trail.add(view.stamp, segment, T_world_camera)
        keyframe = self._keyframes.get(self._by_stamp.get(view.stamp, -1))
        if known is None and keyframe is not None:
            known = keyframe.segment, keyframe.T_world_camera
        if known is not None and same_pose(known[1], T_world_camera):
            self._join(known[0], segment)
        return segment, T_world_camera

    def _corrected(self, T_world_camera: NDArray[np.float64], segment: int) -> NDArray[np.float64]:
        correction = self._corrections.get(segment)
        return T_world_camera if correction is None else correction @ T_world_camera

    def _join(self, first: int, second: int) -> None:
        if self._group(first) != self._group(second):
            self._segments.join(first, second)
            self._connect_all()

    def _take(self, frame: Frame, depth: NDArray[np.float32] | None, segment: int) -> Decision:
        """Make the frame a keyframe if it has enough usable depth."""
        # Checked again: others may have been offered or loaded while this one was decoded and its depth was predicted.
        self._check_size(frame)
        frame = replace(frame, T_world_camera=self._corrected(frame.T_world_camera, segment))
        if self._is_known(frame.T_world_camera, segment):
            return Decision(None, "known_view")
        pixels = 0 if depth is None else np.count_nonzero(depth)
        if depth is None or pixels == 0:
            return Decision(None, "no_depth")
        if pixels / depth.size < self._settings.min_depth_coverage:
            return Decision(None, "little_depth")
        keyframe = keyframe_of(frame, depth, self._next_id, segment)
        self._next_id += 1
        self._insert(keyframe, None)
        self._evict(newest=keyframe.id)
        return Decision(keyframe.id, "new")

    def _is_blurred(self, value: float) -> bool:
        """Whether a candidate is much less sharp than those before it; call once a candidate, as it is remembered."""
        if self._settings.min_sharpness == 0:
            return False
        self._recent_sharpness.append(value)
        return value < self._settings.min_sharpness * statistics.median(self._recent_sharpness)

    def _is_held_out(self, id: int) -> bool:
        every = self._settings.holdout
        return every > 0 and id % every == every - 1

    def _is_known(self, T_world_camera: NDArray[np.float64], segment: int) -> bool:
        near = [
            self._keyframes[id] for id in self._places.around(T_world_camera[:3, 3], self._settings.min_translation)
        ]
        near = [keyframe for keyframe in near if self._group(keyframe.segment) == self._group(segment)]
        if not near:
            return False
        rotations = np.stack([keyframe.T_world_camera[:3, :3] for keyframe in near])
        cosines = (np.einsum("nij,ij->n", rotations, T_world_camera[:3, :3]) - 1) / 2
        angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
        return bool((angles < self._settings.min_rotation).any())

    def _insert(self, keyframe: Keyframe, overlaps: Overlaps | None) -> None:
        """Add a keyframe; its overlaps are measured unless they are known."""
        id = keyframe.id
        coarse = coarse_view(keyframe, self._settings.coarse_width)
        self._coarse[id], self._keyframes[id] = coarse, keyframe
        self._by_stamp[keyframe.stamp] = id
        self._places.put(id, coarse)
        if overlaps is None:
            overlaps = self._measure(id)
        self._measured[id] = overlaps
        self._nbytes += keyframe.nbytes
        if self._judge(keyframe, overlaps):
            self._connect_all()
        else:
            self._graph.add(id, self._usable(keyframe))

    def _replace(self, moved: Mapping[int, NDArray[np.float64]]) -> list[int]:
        """Put keyframes at other poses, and forget the pairs whose relative pose changes by that.

        Returns:
            Ids of the keyframes to measure: those that moved, and newer ones that have lost a pair with one of them.
        """
        old = {id: keyframe.T_world_camera for id, keyframe in self._keyframes.items()}
        for id, T_world_camera in moved.items():
            keyframe = self._keyframes[id]
            self._keyframes[id] = replace(keyframe, T_world_camera=T_world_camera, revision=keyframe.revision + 1)
            self._coarse[id] = coarse_view(self._keyframes[id], self._settings.coarse_width)
            self._places.put(id, self._coarse[id])
        stale = set(moved)
        for id, overlaps in self._measured.items():
            kept = {
                other: pair
                for other, pair in overlaps.items()
                if other in old
                and same_pose(
                    inverse(old[id]) @ old[other],
                    inverse(self._keyframes[id].T_world_camera) @ self._keyframes[other].T_world_camera,
                )
            }
            if any(other in old and other not in kept for other in overlaps):
                stale.add(id)
            self._measured[id] = kept
        self._connect_all()
        return sorted(stale)

    def _measure(self, id: int) -> Overlaps:
        """Overlaps of a keyframe with the nearest older ones of its own segment, and with the nearest of others."""
        keyframe, new = self._keyframes[id], self._coarse[id]
        segment, known = keyframe.segment, self._measured.get(id, {})
        near = [other for other in self._places.nearest(new) if other < id and other not in known]
        own = [id for id in near if self._group(self._keyframes[id].segment) == self._group(segment)]
        others = [id for id in near if id not in set(own)][: self._settings.candidates]
        own = own[: self._settings.candidates]
        measured = self._gate.measure(new, {id: self._coarse[id] for id in own}, prove=False)
        return measured | self._gate.measure(new, {id: self._coarse[id] for id in others}, prove=True)

    def _judge(self, keyframe: Keyframe, overlaps: Overlaps) -> bool:
        """Take pairs of a new keyframe as evidence about their segments. Returns whether any are joined by it."""
        joined = False
        for other, pair in overlaps.items():
            if other in self._keyframes and pair.verdict != Verdict.FITS:
                segments = keyframe.segment, self._keyframes[other].segment
                joined |= self._segments.note(*segments, fits=pair.verdict == Verdict.PROVES)
        return joined

    def _usable(self, keyframe: Keyframe) -> Overlaps:
        """The measured pairs of a keyframe that may teach each other."""
        measured = self._measured[keyframe.id]
        return {other: pair for other, pair in measured.items() if self._may_teach(keyframe, other, pair)}

    def _may_teach(self, keyframe: Keyframe, other: int, pair: Measured) -> bool:
        if pair.verdict == Verdict.CONTRADICTS or other not in self._keyframes:
            return False
        return self._group(keyframe.segment) == self._group(self._keyframes[other].segment)

    def _connect_all(self) -> None:
        """Make the graph anew from what was measured, because segments were joined or views moved."""
        self._graph = OverlapGraph(self._min_overlap)
        for id, keyframe in self._keyframes.items():
            self._graph.add(id, self._usable(keyframe))

    def _group(self, segment: int) -> int:
        return self._segments.group(segment)

    def _evict(self, newest: int) -> None:
        while self._nbytes > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            id = self._graph.most_covered(but=newest)
            self._places.remove(id)
            forgotten = self._keyframes.pop(id)
            self._nbytes -= forgotten.nbytes
            del self._measured[id], self._coarse[id]
            if self._by_stamp.get(forgotten.stamp) == id:
                del self._by_stamp[forgotten.stamp]
            self._graph.remove(id)
            self._evicted += 1


def _size_of(view: Frame | Keyframe) -> tuple[int, int]:
    return view.intrinsics.width, view.intrinsics.height
