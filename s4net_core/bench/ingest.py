"""Rate at which a bag becomes frames, against reading its images with rosbags and decoding them in the same way."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from s4net_core.bench.camera import LENS, RATE
from s4net_core.bench.table import Row
from s4net_core.errors import CaptureError
from s4net_core.frames import Frame
from s4net_core.io.bags.messages import color_from_image, depth_from_image
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.rosbag import BagReader

FRAMES = 60
GOAL = 0.8
"""Smallest rate, as a share of raw reading."""
TRANSPORTS: dict[str, tuple[Literal["raw", "jpeg"], Literal["raw", "compressedDepth"]]] = {
    "raw images": ("raw", "raw"),
    "JPEG and PNG": ("jpeg", "compressedDepth"),
}


def bench_ingest(*, repeats: int = 20) -> list[Row]:
    """Read a bag of 848x480 colour and depth by both, in turns, by process time.

    Rates are medians; their ratio is the median over pairs of turns.

    Args:
        repeats: times that each reads the whole bag.
    """
    rows = []
    for name, (color, depth) in TRANSPORTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bag"
            write_bag(path, _frames(), color=color, depth=depth)
            reader = BagReader(path)
            rates: dict[str, list[float]] = {"raw": [], "frames": []}
            for _ in track(range(repeats), name, console=Console(stderr=True), transient=True):
                rates["raw"].append(_rate(_read_raw(path, reader)))
                rates["frames"].append(_rate(iter(reader)))
        raw, ours = (statistics.median(values) for values in rates.values())
        low, high = min(rates["frames"]), max(rates["frames"])
        rows.append(Row(f"{name}: images read by rosbags and decoded", raw, "frames/s", None))
        text = f"{name}: frames of the bag, {low:.0f} to {high:.0f}, goal {GOAL} times"
        ratio = statistics.median(b / a for a, b in zip(rates["raw"], rates["frames"], strict=True))
        rows.append(Row(text, ours, "frames/s", ratio))
    return rows


def _rate(frames: Iterator[object]) -> float:
    """Frames for each second of process time: the disk's cache holds the bag, and others may use the cores.

    The first frame is not counted: before it, both parse the bag's description.
    """
    next(frames)
    start = time.process_time()
    count = sum(1 for _ in frames)
    if count != FRAMES - 1:
        raise CaptureError(f"{count + 1} of {FRAMES} frames were read: is the temporary folder full?")
    return count / (time.process_time() - start)


def _read_raw(path: Path, ours: BagReader) -> Iterator[object]:
    """Deserialise and decode all images of the bag; gives those of colour."""
    decoders = {ours.topics.color: color_from_image, ours.topics.depth: depth_from_image}
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(path) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in decoders]
        for connection, _, data in reader.messages(wanted):
            image = decoders[connection.topic](store.deserialize_cdr(data, connection.msgtype))
            if connection.topic == ours.topics.color:
                yield image


def _frames() -> Iterator[Frame]:
    """A camera that moves along a wall; coarse noise compresses about as a room does."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (LENS.height // 8, LENS.width // 8, 3), np.uint8)
    color = coarse.repeat(8, axis=0).repeat(8, axis=1)
    depth = np.linspace(1.5, 2.5, LENS.height * LENS.width, dtype=np.float32).reshape(LENS.height, LENS.width)
    for number in range(FRAMES):
        T_world_camera = np.eye(4)
        T_world_camera[0, 3] = 0.01 * number
        yield Frame(1_000_000_000 + number * 1_000_000_000 // RATE, color, depth, T_world_camera, LENS)
