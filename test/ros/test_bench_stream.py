"""`s4net bench stream` measures the adaptation node as a user runs it."""

import os
import subprocess
import sys
import time
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the node needs rclpy")
pytest.importorskip("s4net_ros.msg", reason="messages are not built: run `make build`")

from s4net_ros.msg import AdaptationStatus
from s4net_ros.replay import bench_stream


def test_cpu_time_is_that_of_the_process() -> None:
    before, own = bench_stream.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    assert bench_stream.cpu_seconds(os.getpid()) - before == pytest.approx(0.2, abs=0.1)


def test_a_share_counts_the_frames_that_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node:
        def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
            self.hear = callback

    seconds = iter([5.0, 5.1, 5.9, 6.2])
    monkeypatch.setattr(bench_stream, "cpu_seconds", lambda pid: next(seconds))
    node = Node()
    meter = bench_stream.Meter(node, "status", 1)  # type: ignore[arg-type]
    for received in (100, 110, 140, 170):  # of 10 frames in a second, a share would say nothing
        node.hear(AdaptationStatus(frames_received=received))
    assert meter.shares[1:] == pytest.approx([80.0, 30.0])


def test_the_node_and_a_bare_subscriber_are_measured_at_rest_and_driving(ros: Any) -> None:
    command = [sys.executable, "-m", "s4net_core.cli.main", "bench", "stream", "--repeats", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in ("standing still: bare subscriber", "driving: bare subscriber", "goal 30"):
        assert words in text
