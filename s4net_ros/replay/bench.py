"""Latency of the live node, colour message out to mask message in, against the bare forward pass.

``s4net bench live`` runs this; it sends one frame at a time, and the measurements alternate.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rclpy
import torch
from numpy.typing import NDArray
from rclpy.node import Node
from rich.console import Console
from rich.progress import track
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import load_settings
from s4net_core.errors import S4NetError
from s4net_core.frames import Intrinsics
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.predict import pick_device, to_tensor
from s4net_core.models.segmenter import Segmenter
from s4net_ros.conversions import camera_info_message, image_message, stamp_ns
from s4net_ros.graph import adaptation_graph, fastdds_environment
from s4net_ros.qos import stream_qos
from s4net_ros.replay.plan import with_overrides
from s4net_ros.replay.processes import Children

WIDTH, HEIGHT = 640, 480
WARM_UP = 3
TIMEOUT = 120.0
"""Seconds for the node to load its network and answer the first frame."""
QOS = stream_qos("reliable", 1)


class Camera(Node):
    """Publishes one frame at a time and waits for its mask."""

    def __init__(self, color_topic: str, info_topic: str, mask_topic: str) -> None:
        super().__init__("bench_camera")
        self._color = self.create_publisher(Image, color_topic, QOS)
        self._info = self.create_publisher(CameraInfo, info_topic, QOS)
        self.create_subscription(Image, mask_topic, self._answered, QOS)
        self._awaited = 0
        self._seen_at = 0.0
        self._lens = Intrinsics(WIDTH, HEIGHT, 600.0, 600.0, 320.0, 240.0)

    def _answered(self, mask: Image) -> None:
        if stamp_ns(mask.header) == self._awaited:
            self._seen_at = time.perf_counter()

    def round_trip(self, color: NDArray[np.uint8], timeout: float) -> float | None:
        """Seconds from publishing a frame to the arrival of its mask; None when no mask came in time."""
        now = self.get_clock().now()
        header = Header(frame_id="camera_color_optical_frame", stamp=now.to_msg())
        self._awaited, self._seen_at = now.nanoseconds, 0.0
        self._info.publish(camera_info_message(self._lens, header))
        message = image_message(color, "rgb8", header)
        start = time.perf_counter()
        self._color.publish(message)
        while not self._seen_at and time.perf_counter() - start < timeout:
            rclpy.spin_once(self, timeout_sec=timeout)
        return self._seen_at - start if self._seen_at else None


def measure(settings_file: str, overrides: Sequence[str], repeats: int) -> list[Row]:
    """Start the node and send frames; between two frames, time the same network with the same settings in this process.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file. The file or these must give ``checkpoint`` and ``source.path``.
        repeats: frames that are measured, after the warm-up.

    Raises:
        S4NetError: the node dies or does not answer.
    """
    settings = load_settings(settings_file, overrides)
    if settings.threads:
        torch.set_num_threads(settings.threads)  # as the node does
    settings.checkpoint = str(base_model_file(settings.checkpoint, settings.model))
    graph = adaptation_graph(
        settings_file=settings_file, checkpoint=settings.checkpoint, source_set=settings.source.path
    )
    spec = with_overrides(graph[0], overrides)
    segmenter = Segmenter(settings.checkpoint, settings.device, settings)
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    small = rng.integers(0, 256, (settings.model.height, settings.model.width, 3), np.uint8)
    images = to_tensor([small], pick_device(settings.device))
    camera = Camera(spec.topic("color/image_raw"), spec.topic("color/camera_info"), spec.topic("segmentation/mask"))
    with (
        tempfile.TemporaryDirectory() as logs,
        Children(Path(logs), fastdds_environment(fastdds_profile="local")) as children,
    ):
        children.start(spec.name, spec.command())
        with Console(stderr=True).status("the node loads its network"):
            _wait_for_answer(camera, color, children, spec.name)
        round_trips, whole, bare = [], [], []
        for _ in track(range(WARM_UP + repeats), "frames", console=Console(stderr=True), transient=True):
            taken = camera.round_trip(color, 10.0)
            children.check()
            if taken is None:
                raise S4NetError("a frame was not answered within 10 s")
            round_trips.append(taken)
            whole.append(_timed(lambda: segmenter.segment(color)))
            bare.append(_timed(lambda: segmenter.forward(images)))
    camera.destroy_node()
    live, inside, forward = (statistics.median(times[WARM_UP:]) * 1e3 for times in (round_trips, whole, bare))
    size = f"{settings.model.width}x{settings.model.height}"
    return [
        Row(f"bare forward pass at {size}", forward, "ms", None),
        Row(f"Segmenter, {WIDTH}x{HEIGHT} in and out", inside, "ms", forward / inside),
        Row("live node, message to message", live, "ms", forward / live),
    ]


def _wait_for_answer(camera: Camera, color: NDArray[np.uint8], children: Children, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while camera.round_trip(color, 2.0) is None:
        children.check()
        if time.monotonic() > deadline:
            raise S4NetError(f"no mask after {TIMEOUT:.0f} s; the log of the node ends with:\n{children[name].tail()}")


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """``replay.bench SETTINGS REPEATS [NAME=VALUE ...]``."""
    file, repeats, *overrides = sys.argv[1:]
    rclpy.init()
    try:
        print_rows(CASES["live"], measure(file, overrides, int(repeats)))
    except S4NetError as error:
        print(f"s4net bench: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
