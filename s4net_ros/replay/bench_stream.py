"""Share of a CPU core that the adaptation node takes for a camera at 30 Hz, beside a bare subscriber of rclpy.

``s4net bench stream`` runs this. The node does not learn meanwhile: what is measured is the way from topics to
keyframes. The bare subscriber takes the same images at the same time and does nothing with them.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from s4net_core.bench.camera import RATE
from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import load_settings
from s4net_core.errors import S4NetError
from s4net_core.streams.drops import AT_REST
from s4net_ros.graph import NodeSpec, adaptation_graph
from s4net_ros.msg import AdaptationStatus
from s4net_ros.qos import stream_qos
from s4net_ros.replay.bench_camera import FIXED, QUEUE, Camera
from s4net_ros.replay.bench_process import exit_code_of
from s4net_ros.replay.plan import START_TIMEOUT, with_overrides
from s4net_ros.replay.processes import Children

SPEED = 0.5
"""Of the robot that drives, metres a second: at the default distance of keyframes, three new ones a second."""
WARM_UP = 3
"""Seconds of the stream before the first measurement."""
CASES_AND_GOALS = {"standing still": (0.0, 10.0), "driving": (SPEED, 30.0)}
"""Speed of the robot, and the largest share of a core, per cent."""
KINDS = (Image, Image, CameraInfo)
BARE_STATUS = "/bench_subscriber/status"
MOST_LOST = 0.5
"""Share of the frames that a busy machine may lose in an interval that counts; at rest the node leaves out more."""
MODULE = "s4net_ros.replay.bench_stream"


class Meter:
    """CPU time that a process takes for a published frame, from one of its status messages to the next.

    Args:
        camera: publishes, and subscribes to the status.
        topic: of the process' status.
        pid: of the process.
    """

    def __init__(self, camera: Camera, topic: str, pid: int) -> None:
        self.shares: list[float] = []
        """Per cent of a core at `RATE`, for each interval between two messages."""
        self.looked_at: list[float] = []
        """Frames that the process looked at, as a share of those that were published, for each interval."""
        self.status = AdaptationStatus()
        self._camera, self._pid, self._before = camera, pid, (0, 0, 0.0)
        camera.create_subscription(AdaptationStatus, topic, self._hear, QoSProfile(depth=QUEUE))

    def _hear(self, status: AdaptationStatus) -> None:
        self.status = status
        left_out = dict(zip(status.drop_reasons, status.drop_counts, strict=True)).get(AT_REST, 0)
        now = self._camera.published, status.frames_received - left_out, cpu_seconds(self._pid)
        frames, looked_at, seconds = (new - old for new, old in zip(now, self._before, strict=True))
        if frames >= RATE // 2:
            self.shares.append(100 * seconds / frames * RATE)
            self.looked_at.append(looked_at / frames)
        self._before = now

    def leave_out_losses(self) -> None:
        """Forget the intervals in which more than `MOST_LOST` of the frames were not looked at: those cost nothing."""
        kept = [one for one in zip(self.shares, self.looked_at, strict=True) if one[1] >= 1 - MOST_LOST]
        self.shares, self.looked_at = [share for share, _ in kept], [looked_at for _, looked_at in kept]


class BareSubscriber(Node):
    """Takes the messages of a camera, as any node in Python must, and only counts them."""

    def __init__(self, topics: Sequence[str]) -> None:
        super().__init__("bench_subscriber")
        self._status = AdaptationStatus()
        for kind, topic in zip(KINDS, topics, strict=True):
            self.create_subscription(kind, topic, self._count, stream_qos("reliable", QUEUE))
        self.create_subscription(TFMessage, "/tf", lambda message: None, QUEUE)
        self._output = self.create_publisher(AdaptationStatus, BARE_STATUS, QUEUE)
        self.create_timer(1.0, lambda: self._output.publish(self._status))

    def _count(self, message: object) -> None:
        self._status.frames_received += isinstance(message, CameraInfo)


def measure(settings_file: str, overrides: Sequence[str], repeats: int) -> list[Row]:
    """Start the adaptation node and the bare subscriber, and stream: first the robot stands still, then it drives.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file.
        repeats: seconds of each kind.

    Raises:
        S4NetError: the node dies or does not subscribe, takes no keyframes, or never takes half of the frames while the
            robot drives.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder, streaming(settings_file, overrides, Path(folder)) as (camera, meters):
        bare, node = meters
        for name, (speed, goal) in CASES_AND_GOALS.items():
            before = node.status.keyframes
            for meter in meters:
                meter.shares.clear()
                meter.looked_at.clear()
            camera.stream(repeats * RATE, speed=speed)
            if not bare.shares or not node.shares:
                raise S4NetError(f"too few frames are sent in {repeats} s: give more --repeats, or free the machine")
            for program, meter in {"the subscriber": bare, **({"the node": node} if speed else {})}.items():
                if (most := max(meter.looked_at)) < 1 - MOST_LOST:
                    raise S4NetError(f"{name}: {program} takes only {most:.0%} of the frames: free the machine")
                meter.leave_out_losses()
            values, peer = node.shares, statistics.median(bare.shares)
            taken = node.status.keyframes - before
            rows.append(Row(f"{name}: bare subscriber of rclpy", peer, "% of a core", None))
            spread = f"{min(values):.1f} to {max(values):.1f}, {statistics.median(node.looked_at):.0%} looked at"
            text = f"{name}, {taken} new keyframes: node, {spread}, goal {goal:g} at most"
            rows.append(Row(text, statistics.median(values), "% of a core", peer / statistics.median(values)))
        if not node.status.keyframes:
            raise S4NetError(f"the node took no keyframes: {node.status}")
    return rows


def specs_of(settings_file: str, overrides: Sequence[str], folder: Path) -> list[NodeSpec]:
    """The segmentation node and the adaptation node behind the bench's camera; their state lies in `folder`."""
    settings = load_settings(settings_file, overrides)
    graph = adaptation_graph(
        settings_file=settings_file,
        checkpoint=settings.checkpoint,
        source_set=settings.source.path,
        state_dir=str(folder / "state"),
    )
    own = [f"stream.fixed_frame={FIXED}", *(f"stream.{image}_reliability=reliable" for image in ("color", "depth"))]
    return [with_overrides(spec, [*overrides, *own]) for spec in graph]


@contextmanager
def streaming(
    settings_file: str, overrides: Sequence[str], folder: Path
) -> Iterator[tuple[Camera, tuple[Meter, Meter]]]:
    """The camera, and meters of the bare subscriber and the adaptation node, which are warmed up."""
    never_learns = "adaptation.min_keyframes=10000"
    _, spec = specs_of(settings_file, [*overrides, never_learns], folder)
    camera = Camera(spec, posed=True)
    with Children(folder, {}) as children:
        peer = children.start("subscriber", [sys.executable, "-m", MODULE, "--subscribe", *camera.topics])
        node = children.start(spec.name, spec.command())
        meters = Meter(camera, BARE_STATUS, peer.pid), Meter(camera, spec.topic("adaptation/status"), node.pid)
        with Console(stderr=True).status("the node loads its network"):
            camera.publish_until(lambda: camera.subscribers >= len(meters), children, START_TIMEOUT)
        camera.stream(WARM_UP * RATE)
        yield camera, meters
        children.check()
    camera.destroy_node()


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all threads, as `clock_getcpuclockid` finds it; Linux."""
    return time.clock_gettime((~pid << 3) | 2)


def main() -> int:
    """``replay.bench_stream SETTINGS REPEATS CAPTURE [NAME=VALUE ...]``, or ``--subscribe COLOR DEPTH INFO``."""
    first, *rest = sys.argv[1:]
    if first == "--subscribe":
        return exit_code_of(lambda: rclpy.spin(BareSubscriber(rest)))
    return exit_code_of(lambda: print_rows(CASES["stream"], measure(first, rest[2:], int(rest[0]))))


if __name__ == "__main__":
    sys.exit(main())
