"""The semantic map: what the labels of keyframes say about each voxel of the world."""

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import MapSettings
from s4net_core.errors import S4NetError
from s4net_core.files import check_map_name
from s4net_core.frames import Intrinsics
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.labels import UNLABELLED, LabelSpace
from s4net_core.mapping import map_file
from s4net_core.mapping.points import MapPoints, Place, places_of
from s4net_core.mapping.voxel_map import REACH, VoxelMap, pack, unpack

COLORS = 3
"""Columns behind those of the classes: sums of red, green and blue over all pixels that voted."""


@dataclass(frozen=True, eq=False)
class _Fused:
    """A keyframe with the label that it voted with, and the voxels that were refused because the map was full."""

    keyframe: Keyframe
    label: NDArray[np.uint8]
    refused: NDArray[np.int64]


class SemanticMap:
    """Voxels with votes by class. Each labelled pixel of a keyframe that has depth votes once, in its voxel.

    The map follows from the keyframes, their poses and their labels alone: what a keyframe gave is taken back exactly
    when it moves, is labelled again or is evicted. Of segments that were not shown to fit, only the group with the
    most keyframes is in the map: nobody knows where the others lie. Pixels without a class do not vote.

    All methods may be called from any thread. None waits for more than the fusion of one keyframe or a look at all
    voxels; properties and attributes do not wait.

    Args:
        space: classes of the labels.
        settings: voxel size, limits, and what is shown.
    """

    def __init__(self, space: LabelSpace, settings: MapSettings) -> None:
        self.space = space
        self._settings = settings
        self._lock = threading.RLock()
        self._labels: dict[int, NDArray[np.uint8]] = {}
        self._forget()

    def _forget(self) -> None:
        self._voxels = VoxelMap(self.space.num_classes + COLORS, self._settings.max_voxels)
        self._origin: NDArray[np.int64] | None = None
        """Index of the voxel of the first camera: counted from there, indices are small wherever the world begins."""
        self._fused: dict[int, _Fused] = {}
        self._labels.clear()
        self._points: MapPoints | None = None
        self.refused = 0
        """Voxels, counted for each keyframe, that are not in the map because it was full."""

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self._voxels)

    @property
    def keyframes(self) -> int:
        """Keyframes that are in the map."""
        return len(self._fused)

    # What changes the map.

    def set_label(self, id: int, label: NDArray[np.uint8]) -> None:
        """Label a keyframe, for the first time or anew; `update` brings it into the map.

        Args:
            id: of the keyframe.
            label: (H, W) uint8 class ids, of the keyframe's size; 0 = no class.
        """
        with self._lock:
            self._labels[id] = label

    def update(self, keyframes: KeyframeBuffer) -> bool:
        """Bring the map in line with keyframes and labels as they are now. Returns whether anything has changed."""
        shown = self._shown(keyframes)
        with self._lock:
            self._labels = {id: label for id, label in self._labels.items() if id in keyframes}
            stale = [id for id, fused in self._fused.items() if not self._is_current(fused, shown.get(id))]
        for id in stale:
            self._take_back(id)
        new = [keyframe for id, keyframe in shown.items() if id not in self._fused]
        for keyframe in new:
            self.fuse(keyframe)
        if stale:
            self._fill()
        return bool(stale or new)

    def load(self, path: Path | str) -> None:
        """Replace the map by a saved one. Votes that were loaded stay: no keyframe is known that could take them back.

        Raises:
            S4NetError: the file cannot be read, is no map, or is of other classes, another voxel size or too large.
        """
        saved = map_file.read(Path(path), self.space, self._settings)
        with self._lock:
            self._forget()
            self._origin = saved.origin
            self._voxels.add(saved.keys, saved.counts)

    # What the map is asked.

    def save(self, path: Path | str) -> int:
        """Write all voxels into an ``.npz`` that `load` reads, or those of `points` as a point cloud into a ``.ply``.

        Returns:
            Number of voxels written.

        Raises:
            S4NetError: the name ends in neither, the file is there and no map, or it cannot be written.
        """
        path = Path(path)
        check_map_name(path)
        map_file.check_replaceable(path)
        if path.suffix == ".ply":
            points = self.points()
            map_file.write_ply(path, points)
            return len(points)
        with self._lock:
            counts = np.concatenate([*self._voxels.chunks(), np.zeros((0, self._columns), np.uint32)])
            saved = map_file.SavedMap(self._voxels.keys.copy(), counts, self._index_of_origin())
        map_file.write(path, saved, self.space, self._settings.voxel_size)
        return len(saved.keys)

    def points(self) -> MapPoints:
        """Voxels that at least `min_votes` pixels have seen."""
        with self._lock:
            if self._points is None:
                self._points = self._summary()
            return self._points

    def find(self, class_id: int) -> list[Place]:
        """Places of a class: groups of its voxels that touch each other, the largest first."""
        return places_of(self.points(), class_id, self._settings.voxel_size)

    def read_back(
        self, depth: NDArray[np.float32], intrinsics: Intrinsics, T_world_camera: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Labels that the map gives to the pixels of a view.

        Args:
            depth: (H, W) float32, metres, 0 = none.
            intrinsics: of the view; without lens distortion.
            T_world_camera: (4, 4).

        Returns:
            (H, W) uint8 class ids, 0 where there is no depth or no voxel.
        """
        label = np.zeros(depth.shape, np.uint8)
        with self._lock:
            if not len(self):
                return label
            seen, keys = self._keys(depth, intrinsics, T_world_camera)
            voxels, of_pixel = np.unique(keys, return_inverse=True)
            votes = self._voxels.counts_of(voxels)[:, :-COLORS]
        label[seen] = _winners(votes)[of_pixel]
        return label

    # One keyframe.

    def _shown(self, keyframes: KeyframeBuffer) -> dict[int, Keyframe]:
        """The labelled keyframes of the largest group of segments; of equally large ones, the oldest."""
        with self._lock:
            labelled = set(self._labels)
        groups = {id: group for id, group in keyframes.segments().items() if id in labelled}
        if not groups:
            return {}
        sizes = Counter(groups.values())
        largest = min(sizes, key=lambda group: (-sizes[group], group))
        return keyframes.views(id for id, group in groups.items() if group == largest)

    def _is_current(self, fused: _Fused, keyframe: Keyframe | None) -> bool:
        if keyframe is None:
            return False
        return fused.keyframe.key == keyframe.key and fused.label is self._labels.get(keyframe.id)

    def fuse(self, keyframe: Keyframe) -> None:
        """Add the votes of a labelled keyframe that is not in the map; `update` does it for all."""
        with self._lock:
            if keyframe.id not in self._labels or keyframe.id in self._fused:
                return
            label = self._labels[keyframe.id]
            keys, counts = self.votes(keyframe, label)
            refused = self._voxels.add(keys, counts)
            self._fused[keyframe.id] = _Fused(keyframe, label, keys[refused])
            self.refused += int(np.count_nonzero(refused))
            self._points = None

    def _take_back(self, id: int) -> None:
        with self._lock:
            fused = self._fused.pop(id, None)
            if fused is None:  # another map was loaded meanwhile
                return
            keys, counts = self.votes(fused.keyframe, fused.label)
            given = ~np.isin(keys, fused.refused, assume_unique=True)
            self._voxels.subtract(keys[given], counts[given])
            self.refused -= len(fused.refused)
            if not self._fused and not len(self):
                self._origin = None
            self._points = None

    def _fill(self) -> None:
        """Take in what was refused as long as there is room; a keyframe that was only labelled anew leaves none."""
        with self._lock:
            lacking = [fused.keyframe for fused in self._fused.values() if len(fused.refused)]
        for keyframe in lacking:
            if len(self) >= self._settings.max_voxels:
                return
            self._take_back(keyframe.id)
            self.fuse(keyframe)

    def votes(self, keyframe: Keyframe, label: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """What a keyframe adds with a label of its size.

        Returns:
            Keys (N,), sorted, of the voxels that it sees; counts (N, C + 3) uint32, votes by class and sums of colour.
        """
        if label.shape != keyframe.depth_mm.shape:
            raise S4NetError(f"label is {label.shape} but keyframe {keyframe.id} is {keyframe.depth_mm.shape}")
        depth = np.where(label != UNLABELLED, keyframe.depth, np.float32(0))
        seen, keys = self._keys(depth, keyframe.intrinsics, keyframe.T_world_camera)
        voxels, of_pixel = np.unique(keys, return_inverse=True)
        classes = self.space.num_classes
        votes = np.bincount(of_pixel * classes + label[seen] - 1, minlength=len(voxels) * classes)
        colors = [np.bincount(of_pixel, channel, len(voxels)) for channel in keyframe.color[seen].T]
        return voxels, np.column_stack([votes.reshape(-1, classes), *colors]).astype(np.uint32)

    def _keys(
        self, depth: NDArray[np.float32], intrinsics: Intrinsics, T_world_camera: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which pixels lie in a voxel within reach, (H, W), and the keys of their voxels in the order of the pixels."""
        size = self._settings.voxel_size
        if self._origin is None:
            self._origin = np.floor(T_world_camera[:3, 3] / size).astype(np.int64)
        seen = (depth > 0) & (depth <= self._settings.max_range)
        v, u = np.nonzero(seen)
        z = depth[v, u].astype(np.float64)
        rays = np.stack([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, np.ones(len(z))])
        T_map_camera = T_world_camera[:3, :3], T_world_camera[:3, 3] - self._origin * size
        xyz = T_map_camera[0] @ (rays * z) + T_map_camera[1][:, None]
        indices = np.floor(xyz / size)
        near = (np.abs(indices) < REACH).all(axis=0)
        seen[v[~near], u[~near]] = False
        return seen, pack(indices[:, near].T.astype(np.int64))

    # All voxels.

    def _summary(self) -> MapPoints:
        labels, confidences, colors, shown = [], [], [], []
        for counts in self._voxels.chunks():
            votes, sums = counts[:, :-COLORS], counts[:, -COLORS:]
            total = votes.sum(axis=1)
            labels.append(_winners(votes))
            confidences.append((votes.max(axis=1) / total).astype(np.float32))
            colors.append(np.rint(sums / total[:, None]).astype(np.uint8))
            shown.append(total >= self._settings.min_votes)
        if not shown:
            return MapPoints(
                np.empty((0, 3)), np.empty((0, 3), np.uint8), np.empty(0, np.uint8), np.empty(0, np.float32)
            )
        enough = np.concatenate(shown)
        indices = unpack(self._voxels.keys[enough]) + self._index_of_origin()
        xyz = np.asarray((indices + 0.5) * self._settings.voxel_size, np.float64)
        return MapPoints(
            xyz, np.concatenate(colors)[enough], np.concatenate(labels)[enough], np.concatenate(confidences)[enough]
        )

    @property
    def _columns(self) -> int:
        return self.space.num_classes + COLORS

    def _index_of_origin(self) -> NDArray[np.int64]:
        return np.zeros(3, np.int64) if self._origin is None else self._origin


def _winners(votes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Class id with the most votes, (N,) uint8, of votes (N, C); the smallest of several; 0 where there is no vote."""
    best: NDArray[np.uint8] = votes.argmax(axis=1).astype(np.uint8) + np.uint8(1)
    best[~votes.any(axis=1)] = UNLABELLED
    return best
