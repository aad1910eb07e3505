"""`s4net bench stream` measures the adaptation node as a user runs it."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the node needs rclpy")
pytest.importorskip("s4net_ros.msg", reason="messages are not built: run `make build`")

from s4net_core.errors import S4NetError
from s4net_ros.msg import AdaptationStatus
from s4net_ros.replay import bench_stream


def test_cpu_time_is_that_of_the_process() -> None:
    before, own = bench_stream.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    assert bench_stream.cpu_seconds(os.getpid()) - before == pytest.approx(0.2, abs=0.1)


def test_a_share_counts_the_frames_that_were_published(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        published = 0

        def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
            self.hear = callback

    seconds = iter([5.0, 5.1, 5.9, 6.2])
    monkeypatch.setattr(bench_stream, "cpu_seconds", lambda pid: next(seconds))
    camera = Camera()
    meter = bench_stream.Meter(camera, "status", 1)  # type: ignore[arg-type]
    # Of 10 frames in a second, a share would say nothing.
    for camera.published, received, at_rest in ((100, 90, 0), (110, 100, 0), (140, 115, 0), (170, 145, 20)):
        reasons = {"drop_reasons": ["at_rest", "no_pose"], "drop_counts": [at_rest, 7]}
        camera.hear(AdaptationStatus(frames_received=received, **reasons))
    assert meter.shares[1:] == pytest.approx([80.0, 30.0])
    assert meter.looked_at[1:] == pytest.approx([15 / 30, 10 / 30])
    meter.leave_out_losses()
    assert meter.shares[1:] == pytest.approx([80.0])
    assert meter.looked_at[1:] == pytest.approx([15 / 30])


@pytest.mark.parametrize(
    ("node_takes", "fault"),
    [
        ({0.0: 0.3, 0.5: 0.9}, None),
        ({0.0: 0.3, 0.5: 0.4}, "driving: the node takes only 40%"),
        (None, "the subscriber"),
    ],
)
def test_it_fails_when_frames_are_lost_while_the_robot_drives(
    monkeypatch: pytest.MonkeyPatch, node_takes: dict[float, float] | None, fault: str | None
) -> None:
    def meter() -> SimpleNamespace:
        status = AdaptationStatus(keyframes=1)
        return SimpleNamespace(shares=[], looked_at=[], status=status, leave_out_losses=lambda: None)

    bare, node = meter(), meter()

    class Camera:
        def stream(self, frames: int, speed: float) -> None:
            for one, takes in ((bare, 1.0 if node_takes else 0.4), (node, (node_takes or {}).get(speed, 1.0))):
                one.shares.append(10.0)
                one.looked_at.append(takes)

    monkeypatch.setattr(bench_stream, "streaming", lambda *_: nullcontext((Camera(), (bare, node))))
    with nullcontext() if fault is None else pytest.raises(S4NetError, match=fault):
        assert len(bench_stream.measure("", [], 1)) == 4


def test_the_node_and_a_bare_subscriber_are_measured_at_rest_and_driving(ros: Any) -> None:
    command = [sys.executable, "-m", "s4net_core.cli.main", "bench", "stream", "--repeats", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in ("standing still: bare subscriber", "driving: bare subscriber", "goal 30"):
        assert words in text
