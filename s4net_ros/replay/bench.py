"""What labelling costs at camera rate: the segmenter against the bare forward pass, and the way through the node.

``s4net bench live`` runs this.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from s4net_core.bench.camera import LENS, RATE
from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import Settings, load_settings, with_values
from s4net_core.geometry.camera import resize_color
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.checkpoint import load_checkpoint
from s4net_core.models.predict import forward, pick_device, working_images
from s4net_core.models.segmenter import Segmenter
from s4net_ros.graph import NodeSpec, adaptation_graph
from s4net_ros.replay.bench_camera import Camera, demo_picture
from s4net_ros.replay.bench_process import exit_code_of
from s4net_ros.replay.plan import START_TIMEOUT, with_overrides
from s4net_ros.replay.processes import Children

IMAGE_SIZE = (640, 480)
"""Width and height of the images for the segmenter alone."""
LARGER = (480, 360)
"""A second size of the network's images, beside that of the settings."""
WARM_UP = 3
SLOWER_RATE = 10
"""Frames a second beside the camera's own: few enough that none waits for the one before it."""
REPORTS = 1.5
"""Seconds after which the node has reported its counts."""


def measure(settings_file: str, overrides: Sequence[str], repeats: int) -> list[Row]:
    """Measure the segmenter in this process, then the node as a process of its own behind a camera.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file. The file or these must give ``checkpoint`` and ``source.path``.
        repeats: how often the segmenter is measured; the camera runs for as many seconds at each rate.

    Raises:
        S4NetError: the node dies or does not answer.
    """
    settings = load_settings(settings_file, overrides)
    settings.checkpoint = str(base_model_file(settings.checkpoint, settings.model))
    picture = demo_picture()
    larger = with_values(settings, {"model": dict(zip(("width", "height"), LARGER, strict=True))})
    rows = [row for chosen in (settings, larger) for row in _segmenter_rows(chosen, picture, repeats)]
    graph = adaptation_graph(
        settings_file=settings_file, checkpoint=settings.checkpoint, source_set=settings.source.path
    )
    return rows + _node_rows(with_overrides(graph[0], overrides), repeats)


def _segmenter_rows(settings: Settings, picture: NDArray[np.uint8], repeats: int) -> list[Row]:
    """PyTorch's forward pass and the segmenter take turns; on a CPU, the time of one thread counts."""
    segmenter = Segmenter(settings.checkpoint, settings.device, settings)
    settings = segmenter.settings
    color = resize_color(picture, *IMAGE_SIZE)
    device = pick_device(settings.device)
    images = working_images([color], settings, device)
    network = load_checkpoint(settings.checkpoint, device=device)[0].to(memory_format=torch.channels_last)
    calls: list[Callable[[], object]] = [
        lambda: forward(network, images).cpu(),
        lambda: segmenter.forward(images).cpu(),
        lambda: segmenter.segment(color),
        lambda: segmenter.segment(color).confidence,
    ]
    threads, clock = torch.get_num_threads(), time.perf_counter
    if device.type == "cpu":
        torch.set_num_threads(1)
        clock = time.process_time
    times = np.array([[_timed(call, clock) for call in calls] for _ in range(WARM_UP + repeats)])[WARM_UP:]
    torch.set_num_threads(threads)
    bare, own, whole, asked = np.median(times, axis=0) * 1e3
    ratios = np.median(times[:, :1] / times[:, 1:], axis=0)  # neighbours in time: the machine may be shared
    size, image = ("x".join(map(str, side)) for side in (settings.model.size, IMAGE_SIZE))
    return [
        Row(f"bare forward pass at {size}", bare, "ms", None),
        Row("the segmenter's own forward pass", own, "ms", ratios[0]),
        Row(f"Segmenter at {size}, {image} in and out", whole, "ms", ratios[1]),
        Row("the same with confidence", asked, "ms", ratios[2]),
    ]


def _node_rows(spec: NodeSpec, seconds: int) -> list[Row]:
    camera = Camera(spec, posed=False)
    with tempfile.TemporaryDirectory() as logs, Children(Path(logs), {}) as children:
        children.start(spec.name, spec.command())
        with Console(stderr=True).status("the node loads its network"):
            camera.publish_until(lambda: bool(camera.latencies), children, START_TIMEOUT, period=0.1)
        camera.wait(REPORTS)
        rows = [row for rate in (RATE, SLOWER_RATE) for row in _rows_at(camera, rate, seconds)]
        children.check()
    camera.destroy_node()
    return rows


def _rows_at(camera: Camera, rate: int, seconds: int) -> list[Row]:
    before, frames = camera.diagnostics, seconds * rate
    camera.forget()
    camera.stream(frames, rate)
    camera.wait(REPORTS)
    median, p99 = np.percentile(np.array(camera.latencies) * 1e3, (50, 99))
    received, superseded = (int(camera.diagnostics[key]) - int(before[key]) for key in ("received", "superseded"))
    inside = float(camera.diagnostics["inference_ms_median"])
    return [
        Row(f"{LENS.width}x{LENS.height} at {rate} Hz: segmentation inside the node, median", inside, "ms", None),
        Row("colour message to mask message, median", median, "ms", None),
        Row("the same, 99th percentile", p99, "ms", None),
        Row(f"of {frames} frames, lost in transport", frames - received, "frames", None),
        Row("left out for a newer one", superseded, "frames", None),
    ]


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def main() -> int:
    """``replay.bench SETTINGS REPEATS CAPTURE [NAME=VALUE ...]``."""
    file, repeats, _, *overrides = sys.argv[1:]
    return exit_code_of(lambda: print_rows(CASES["live"], measure(file, overrides, int(repeats))))


if __name__ == "__main__":
    sys.exit(main())
