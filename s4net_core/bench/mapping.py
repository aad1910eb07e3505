"""Cost of the semantic map: a view at 640x480, and its voxels counted in NumPy against Open3D's hash map."""

import importlib.util
import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import MapSettings
from s4net_core.frames import Intrinsics
from s4net_core.keyframes import Keyframe
from s4net_core.labels import SUNRGBD37
from s4net_core.mapping.semantic_map import COLORS, SemanticMap
from s4net_core.mapping.voxel_map import VoxelMap, unpack

WIDTH, HEIGHT = 640, 480
LENS = Intrinsics(WIDTH, HEIGHT, 525.0, 525.0, 319.5, 239.5)
GOAL_MS = 100
"""Milliseconds a view may take: ten views a second."""


def bench_map(*, repeats: int = 20) -> list[Row]:
    """Fuse views of a long wavy wall, and count the voxels of each in both ways, in turns.

    Args:
        repeats: views that are measured.

    Returns:
        Medians of the process time of one thread; without Open3D its row is left out.
    """
    found, ours = SemanticMap(SUNRGBD37, MapSettings()), VoxelMap(SUNRGBD37.num_classes + COLORS, 1 << 20)
    theirs = _Open3dMap() if importlib.util.find_spec("open3d") is not None else None
    times: dict[str, list[float]] = {"view": [], "numpy": [], "open3d": []}
    for number in track(range(repeats), "views", console=Console(stderr=True), transient=True):
        keyframe, label = _view(number)
        found.set_label(number, label)
        times["view"].append(_timed(found.fuse, keyframe))
        keys, counts = found.votes(keyframe, label)
        times["numpy"].append(_timed(ours.add, keys, counts))
        if theirs is not None:
            times["open3d"].append(_timed(theirs.add, unpack(keys), counts))
    medians = {name: statistics.median(values) * 1e3 for name, values in times.items() if values}
    size = f"{WIDTH}x{HEIGHT}"
    rows = [
        Row(f"a view of {size} fused, goal {GOAL_MS} ms", medians["view"], "ms", GOAL_MS / medians["view"]),
        Row(f"its {len(keys)} voxels counted among {len(ours)}, NumPy", medians["numpy"], "ms", None),
    ]
    if theirs is not None:
        ratio = medians["open3d"] / medians["numpy"]
        rows[1] = rows[1]._replace(ratio=ratio)
        rows.append(Row("the same with Open3D's HashMap", medians["open3d"], "ms", None))
    return rows


class _Open3dMap:
    """What `VoxelMap.add` does, with Open3D."""

    def __init__(self) -> None:
        from s4net_core.registration.library import open3d

        self._core = open3d().core
        columns = SUNRGBD37.num_classes + COLORS
        core = self._core
        self._map = core.HashMap(1 << 20, core.int32, (3,), [core.int32], [(columns,)], core.Device("CPU:0"))

    def add(self, indices: NDArray[np.int64], counts: NDArray[np.uint32]) -> None:
        keys: Any = self._core.Tensor(indices.astype(np.int32))
        self._map.activate(keys)
        rows, _ = self._map.find(keys)
        self._map.value_tensor(0).numpy()[rows.numpy()] += counts.astype(np.int32)


def _view(number: int) -> tuple[Keyframe, NDArray[np.uint8]]:
    """A view 20 cm further along the wall, and its label: stripes of all classes."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rng = np.random.default_rng(number)
    depth = 2500 + 800 * np.sin(u / 80) * np.cos(v / 60) + rng.normal(0, 20, u.shape)
    color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    T_world_camera = np.eye(4)
    T_world_camera[0, 3] = 0.2 * number
    keyframe = Keyframe(number, number, color, depth.astype(np.uint16), LENS, T_world_camera, "camera")
    return keyframe, (u // 20 % SUNRGBD37.num_classes + 1).astype(np.uint8)


def _timed(call: Any, *arguments: Any) -> float:
    start = time.thread_time()
    call(*arguments)
    return time.thread_time() - start
