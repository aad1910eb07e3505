"""Cost of the geometry: the warp against kornia's, and the keyframe buffer against a scan over all poses."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import S4NetError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.views import Pairs, Views
from s4net_core.geometry.warp import correspond, sample
from s4net_core.keyframes import KeyframeBuffer

WIDTH, HEIGHT = 480, 360
CHANNELS = (3, 37)
MIN_OVERLAP = 0.25
NEIGHBOURS = 4
QUERIES = 500
TARGETS = 4
DRAWS = 20
WARM_UP = 2
"""First rounds, not counted because they allocate memory."""
NEAR_METRES, NEAR_DEGREES = 1.5, 40.0


def bench_warp(*, repeats: int = 25, device: str = "cpu") -> list[Row]:
    """Our warp, with all validity tests, against kornia's, which has none; same inputs, repeats interleaved.

    Args:
        repeats: measurements of each warp; the rows give their median.
        device: torch device.

    Raises:
        S4NetError: kornia is not installed.
    """
    try:
        from kornia.geometry.depth import warp_frame_depth
    except ImportError as error:
        raise S4NetError("bench warp compares with kornia, which is not installed: pip install kornia") from error
    depth, K, T = _slanted_wall(device)
    target, neighbour = Views(depth, K, T.double().cpu().numpy()), Views(depth, K, np.eye(4)[None])
    limits = GeometrySettings()

    def ours(values: torch.Tensor) -> torch.Tensor:
        found = correspond(Pairs(target, neighbour), limits)
        return sample(values, found)[0]

    def theirs(values: torch.Tensor) -> torch.Tensor:
        warped: torch.Tensor = warp_frame_depth(values, depth, T, K)
        return warped

    rows = []
    with torch.inference_mode():
        for channels in CHANNELS:
            values = torch.rand(1, channels, HEIGHT, WIDTH, device=device)
            name = f"warp {WIDTH}x{HEIGHT}, {channels} channels"
            calls = (partial(ours, values), partial(theirs, values))
            fast, slow = _interleaved(track([calls] * (repeats + WARM_UP), name, transient=True), device)
            rows += [Row(name, fast * 1e3, "ms", slow / fast), Row(f"{name}, kornia", slow * 1e3, "ms", None)]
    return rows


def bench_neighbours(*, sizes: Sequence[int] = (100, 1000, 10_000)) -> list[Row]:
    """Time a neighbour query, drawing a batch, and offering a view, in a buffer of growing size.

    The query is compared with a vectorised scan over all poses, which ignores occlusion. A batch is drawn once a
    step: targets among all views that have a neighbour, and their neighbours.

    Args:
        sizes: numbers of keyframes, ascending.
    """
    settings = KeyframeSettings(min_translation=0, min_rotation=0, min_sharpness=0, max_megabytes=1024)
    buffer = KeyframeBuffer(settings, GeometrySettings(), min_overlap=MIN_OVERLAP)
    rng = np.random.default_rng(0)
    frames = _views(max(sizes), rng)
    rows, taken = [], 0
    for size in sizes:
        offers = []
        for frame in track(frames[taken:size], description=f"{size} keyframes", transient=True):
            start = time.perf_counter()
            buffer.offer(frame)
            offers.append(time.perf_counter() - start)
        taken = size
        poses = np.stack([frame.T_world_camera for frame in frames[:size]])
        targets = rng.integers(0, size, QUERIES).tolist()
        calls = [
            (partial(buffer.neighbours, t, NEIGHBOURS, MIN_OVERLAP, rng), partial(_scan, poses, t, rng))
            for t in targets
        ]
        query, scan = _interleaved(calls, "cpu")
        rows.append(Row(f"neighbours among {size}", query * 1e6, "µs", scan / query))
        rows.append(Row(f"scan over {size} poses", scan * 1e6, "µs", None))
        draw = partial(buffer.draw, TARGETS, NEIGHBOURS, MIN_OVERLAP, rng)
        (drawn,) = _interleaved([(draw,)] * DRAWS, "cpu")
        rows.append(Row(f"a batch of {TARGETS} among {size}", drawn * 1e3, "ms", None))
        rows.append(Row(f"offer up to {size}, mean", statistics.fmean(offers) * 1e3, "ms", None))
    return rows


def _slanted_wall(device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth, camera matrix and pose of two views of a slanted wall with holes, which mostly overlap."""
    v, u = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    depth = 2 + 0.001 * u + 0.0005 * v
    depth[torch.rand(HEIGHT, WIDTH) < 0.1] = 0
    K = torch.tensor([[400.0, 0, 239.5], [0, 400.0, 179.5], [0, 0, 1]])
    T = torch.eye(4)
    T[0, 3], T[2, 3] = 0.1, 0.05
    return depth[None, None].to(device), K[None].to(device), T[None].to(device)


def _interleaved(rounds: Iterable[Sequence[Callable[[], object]]], device: str) -> list[float]:
    """Median seconds of each call of a round. The calls take turns, so that a busy machine slows all of them alike."""
    times: list[list[float]] = []
    for calls in rounds:
        times.append([])
        for call in calls:
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            times[-1].append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in zip(*times[WARM_UP:], strict=True)]


def _views(count: int, rng: np.random.Generator) -> list[Frame]:
    """Views of a wall 2 m away. The wall grows with the number of views, so that their density stays the same.

    The images are small, because thousands of large ones would measure the memory and not the queries.
    """
    lens = Intrinsics(32, 24, 25.0, 25.0, 15.5, 11.5)
    color, depth = np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 2.0, np.float32)
    frames = []
    for stamp, place in enumerate(rng.uniform(0, 0.2 * np.sqrt(count), (count, 2))):
        T_world_camera = np.eye(4)
        T_world_camera[:2, 3] = place
        frames.append(Frame(stamp, color, depth, T_world_camera, lens))
    return frames


def _scan(poses: NDArray[np.float64], target: int, rng: np.random.Generator) -> list[int]:
    """Random choice among the views near the target that look the same way, found by a scan over every pose."""
    distances = np.linalg.norm(poses[:, :3, 3] - poses[target, :3, 3], axis=1)
    cosines = poses[:, :3, 2] @ poses[target, :3, 2]
    near = np.flatnonzero((distances < NEAR_METRES) & (cosines > np.cos(np.radians(NEAR_DEGREES))))
    return [int(i) for i in rng.permutation(near)[:NEIGHBOURS]]
