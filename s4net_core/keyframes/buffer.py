"""The keyframe buffer: takes views that show something new, forgets the most redundant, knows who sees whom."""

import statistics
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import KeyframeError
from s4net_core.frames import Frame
from s4net_core.geometry.overlap import coarse_depth, overlap
from s4net_core.keyframes import store
from s4net_core.keyframes.graph import OverlapGraph
from s4net_core.keyframes.index import PointIndex
from s4net_core.keyframes.view import Keyframe, Offer, keyframe_of, sharpness, usable_depth

BYTES_PER_MEGABYTE = 1_000_000
BYTES_PER_PIXEL = 5
"""uint8 red, green, blue, and uint16 millimetres."""

NO_DEPTH = np.empty((0, 0), dtype=np.float32)

DepthPrediction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W, 3) uint8 RGB -> (H, W) float32, metres."""
Overlaps = dict[int, tuple[float, float]]
"""By other keyframe: share of the new view that the other sees, share of the other view that the new one sees."""


class KeyframeBuffer:
    """Views of one scene, bounded in bytes.

    A frame becomes a keyframe when it has enough depth, is sharp, and no keyframe is both near it and looks the same
    way. Its overlap with the nearest keyframes is measured once and kept as a graph, so that asking for neighbours
    never looks through all keyframes. When memory is full, the view that the others cover best is forgotten.

    All methods may be called from any thread. Same frames in the same order give the same buffer.

    Args:
        keyframes: what is taken and kept.
        geometry: which pixels of two views count as the same point.
        min_overlap: share of a view that another one must see to count as covering it.
        predict_depth: gives the depth of a view from its colour, for a camera without depth; what a frame has of its
            own is not used then. It is called once for each view that is new and sharp, on the caller's thread, while
            nobody but other callers of `offer` waits; what is predicted of a view later does not change its depth and
            overlaps here.
    """

    def __init__(
        self,
        keyframes: KeyframeSettings,
        geometry: GeometrySettings,
        *,
        min_overlap: float,
        predict_depth: DepthPrediction | None = None,
    ) -> None:
        self._settings = keyframes
        self._predict_depth = predict_depth
        self._geometry = geometry
        self._min_overlap = min_overlap
        self._lock = threading.RLock()
        self._offering = threading.Lock()
        self._save_lock = threading.Lock()
        self._next_id = 0
        self._reset()

    def _reset(self) -> None:
        self._keyframes: dict[int, Keyframe] = {}
        self._measured: dict[int, Overlaps] = {}
        self._coarse: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._nbytes = 0
        self._evicted = 0
        self._rejected: Counter[str] = Counter()
        self._graph = OverlapGraph(self._min_overlap)
        self._positions = PointIndex(3)
        self._views = PointIndex(6)
        self._recent_sharpness: deque[float] = deque(maxlen=self._settings.sharpness_window)
        self._last_stamp: int | None = None

    def offer(self, frame: Frame) -> Offer:
        """Take the frame if it shows something new; its arrays are copied.

        Args:
            frame: at working size, undistorted.

        Raises:
            KeyframeError: it has another size than the keyframes, or is larger than the whole buffer may be.
        """
        with self._offering:
            with self._lock:
                self._check_size(frame)
                refused = self._refusal(frame)
            depth, lacking = self._depth_of(frame, refused)
            with self._lock:
                return self._take(frame, depth, lacking or refused)

    def neighbours(self, id: int, n: int, min_overlap: float, rng: np.random.Generator) -> list[int]:
        """Up to `n` keyframes at random among those that see at least `min_overlap` of view `id`; [] if there is none.

        Args:
            id: of the target; an evicted one has no neighbours.
            n: number wanted.
            min_overlap: share of the target's view.
            rng: source of the choice.
        """
        with self._lock:
            able = [other for other, share in self._graph.seen_by(id).items() if share >= min_overlap]
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

        Other threads may offer views meanwhile: what is drawn is what the buffer held at one moment.

        Args:
            count: target views wanted; fewer come when fewer have a neighbour.
            neighbours: largest number of neighbours of each.
            min_overlap: share of the target's view that a neighbour sees.
            rng: source of the choice.

        Returns:
            (target, neighbours), no target twice, at least one neighbour each; [] when no view has one.
        """
        with self._lock:
            able = self.trainable(min_overlap)
            targets = rng.choice(able, size=min(count, len(able)), replace=False).tolist() if able else []
            return [
                (self._keyframes[id], [self._keyframes[i] for i in self.neighbours(id, neighbours, min_overlap, rng)])
                for id in targets
            ]

    def trainable(self, min_overlap: float) -> list[int]:
        """Ids of the keyframes that have a neighbour with at least this overlap, ascending."""
        with self._lock:
            return [id for id in self._keyframes if self._graph.best(id) >= min_overlap]

    def any_trainable(self, min_overlap: float) -> bool:
        """Whether there is one of `trainable`; looks no further than to the first."""
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
        """Those of the keyframes `ids` that are still held, by id, in the order given."""
        with self._lock:
            return {id: self._keyframes[id] for id in ids if id in self._keyframes}

    @property
    def nbytes(self) -> int:
        """Memory of colour and depth of all keyframes, bytes."""
        return self._nbytes

    @property
    def evicted(self) -> int:
        """Keyframes forgotten to stay within memory."""
        return self._evicted

    @property
    def rejected(self) -> Counter[str]:
        """Frames not taken, by `Offer.reason`."""
        with self._lock:
            return Counter(self._rejected)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the keyframes, pixels; None while there is none."""
        first = next(iter(self._keyframes.values()), None)
        return None if first is None else (first.intrinsics.width, first.intrinsics.height)

    def clear(self) -> None:
        """Forget everything; ids go on where they were, so that an old id never names a new view."""
        with self._lock:
            self._reset()

    def save(self, folder: Path | str) -> None:
        """Write what is not yet in `folder`, and delete what was evicted; readable at any moment.

        Raises:
            KeyframeError: the folder cannot be written.
        """
        with self._save_lock:
            with self._lock:
                saved = store.Saved(
                    self._next_id,
                    self._evicted,
                    [(k, self._measured[k.id]) for k in self._keyframes.values()],
                    predicted=self._predict_depth is not None,
                )
            store.write(Path(folder), saved)

    def load(self, folder: Path | str) -> list[str]:
        """Replace the contents by saved ones.

        Keyframes that would not fit any more (another size, less memory) are left out or evicted, and so are all whose
        depth was predicted, where this buffer holds that of a camera.

        Returns:
            What was left out, and why; one text a keyframe where it is about single ones.

        Raises:
            KeyframeError: there is no index in `folder`, or it is damaged or of an unknown version.
        """
        saved, problems = store.read(Path(folder))
        keyframes = saved.keyframes
        if saved.predicted and self._predict_depth is None:
            keyframes, problems = [], ["left out, their depth was predicted (setting geometry.depth_source)"]
        with self._lock:
            self._reset()
            self._next_id = max(self._next_id, saved.next_id)
            self._evicted = saved.evicted
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
        height, width = view.color.shape[:2]
        if self.size not in (None, (width, height)):
            raise KeyframeError(
                f"view at stamp {view.stamp} is {width}x{height} but the keyframes are {self.size}: rescale it, or "
                "clear the buffer when the working size has changed"
            )
        if width * height * BYTES_PER_PIXEL > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            raise KeyframeError(
                f"one view of {width}x{height} takes more than keyframes.max_megabytes = "
                f"{self._settings.max_megabytes}: raise it"
            )

    def _refusal(self, frame: Frame) -> str:
        """Why the frame is not taken whatever its depth is ('' = it is); to be asked once, it notes the sharpness."""
        blurred = self._is_blurred(frame)
        return "known_view" if self._is_known(frame.T_world_camera) else "blurred" if blurred else ""

    def _depth_of(self, frame: Frame, refused: str) -> tuple[NDArray[np.float32], str]:
        """Usable depth, and what is wrong with it ('' = nothing)."""
        if self._predict_depth is None:
            return self._usable(frame.depth)
        if refused:
            return NO_DEPTH, ""  # what is not taken is not worth a run of the network
        return self._usable(self._predict_depth(frame.color))

    def _take(self, frame: Frame, depth: NDArray[np.float32], reason: str) -> Offer:
        """Make the frame a keyframe, unless there is a reason against it."""
        if reason:
            self._rejected[reason] += 1
            return Offer(None, reason)
        self._check_size(frame)  # once more: others may have been loaded while its depth was predicted
        keyframe = keyframe_of(frame, depth, self._next_id)
        self._next_id += 1
        self._insert(keyframe, None)
        self._evict(newest=keyframe.id)
        return Offer(keyframe.id, "new")

    def _usable(self, depth: NDArray[np.float32] | None) -> tuple[NDArray[np.float32], str]:
        """Depth within range, and what is wrong with it ('' = nothing)."""
        if depth is None:
            return NO_DEPTH, "no_depth"
        depth = usable_depth(depth, self._geometry.min_depth, self._geometry.max_depth)
        coverage = np.count_nonzero(depth) / depth.size
        if coverage == 0:
            return depth, "no_depth"
        return depth, "little_depth" if coverage < self._settings.min_depth_coverage else ""

    def _is_blurred(self, frame: Frame) -> bool:
        if self._last_stamp is not None and frame.stamp < self._last_stamp:
            self._recent_sharpness.clear()  # a looped bag is judged the second time as it was the first time
        self._last_stamp = frame.stamp
        if self._settings.min_sharpness == 0:
            return False
        value = sharpness(frame.color)
        self._recent_sharpness.append(value)
        return value < self._settings.min_sharpness * statistics.median(self._recent_sharpness)

    def _is_known(self, T_world_camera: NDArray[np.float64]) -> bool:
        near = self._positions.within(T_world_camera[:3, 3], self._settings.min_translation)
        if not near:
            return False
        rotations = np.stack([self._keyframes[id].T_world_camera[:3, :3] for id in near])
        cosines = (np.einsum("nij,ij->n", rotations, T_world_camera[:3, :3]) - 1) / 2
        angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
        return bool((angles < self._settings.min_rotation).any())

    def _insert(self, keyframe: Keyframe, overlaps: Overlaps | None) -> None:
        """Add a keyframe; its overlaps are measured unless they are known."""
        id, position = keyframe.id, keyframe.T_world_camera[:3, 3]
        depth = usable_depth(keyframe.depth, self._geometry.min_depth, self._geometry.max_depth)
        small, intrinsics = coarse_depth(depth, keyframe.intrinsics, self._settings.coarse_width)
        self._coarse[id] = (torch.from_numpy(small)[None], torch.from_numpy(intrinsics.matrix).float())
        seen = small[small > 0]
        distance = float(np.median(seen)) if seen.size else 0.0
        view = np.concatenate([position + distance * keyframe.T_world_camera[:3, 2], position])
        if overlaps is None:
            overlaps = self._measure(keyframe, self._views.nearest(view, self._settings.candidates))
        self._keyframes[id] = keyframe
        self._measured[id] = overlaps
        self._graph.add(id, overlaps)
        self._positions.add(id, position)
        self._views.add(id, view)
        self._nbytes += keyframe.nbytes

    def _measure(self, keyframe: Keyframe, others: list[int]) -> Overlaps:
        """Overlap of a new keyframe with others, both ways, in one batch."""
        if not others:
            return {}
        n = len(others)
        new_depth, new_K = (part.expand(n, *part.shape) for part in self._coarse[keyframe.id])
        other_depth = torch.stack([self._coarse[id][0] for id in others])
        other_K = torch.stack([self._coarse[id][1] for id in others])
        T_world_other = np.stack([self._keyframes[id].T_world_camera for id in others])
        T_other_new = np.linalg.inv(T_world_other) @ keyframe.T_world_camera
        T_source_target = torch.from_numpy(np.concatenate([T_other_new, np.linalg.inv(T_other_new)])).float()
        depth_source, geometry = torch.cat([other_depth, new_depth]), self._geometry
        if self._predict_depth is not None:
            # Two predictions may differ by far more than the test of occlusion allows, and still tell who sees whom.
            depth_source = torch.zeros_like(depth_source)
            geometry = geometry.model_copy(update={"require_source_depth": False})
        shares = overlap(
            torch.cat([new_depth, other_depth]),
            torch.cat([new_K, other_K]),
            T_source_target,
            depth_source,
            torch.cat([other_K, new_K]),
            geometry,
        ).tolist()
        pairs = zip(others, shares[:n], shares[n:], strict=True)
        return {id: (of_new, of_other) for id, of_new, of_other in pairs if of_new > 0 or of_other > 0}

    def _evict(self, newest: int) -> None:
        while self._nbytes > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            id = self._graph.most_covered(but=newest)
            self._nbytes -= self._keyframes.pop(id).nbytes
            del self._measured[id], self._coarse[id]
            for part in (self._graph, self._positions, self._views):
                part.remove(id)
            self._evicted += 1
