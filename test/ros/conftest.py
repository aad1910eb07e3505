"""ROS 2 in tests: on loopback only, in a domain of its own, and everything that a test starts is ended by it."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

# Before rclpy is imported, and inherited by every process that a test starts.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOCALHOST_ONLY"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers of one run count on from the same number
    _first = random.Random(os.environ["PYTEST_XDIST_TESTRUNUID"]).randrange(100)
    _worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
else:
    _first, _worker = random.SystemRandom().randrange(100), 0
os.environ["ROS_DOMAIN_ID"] = str(1 + (_first + _worker) % 100)  # above 101 ports may be taken
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="s4net-ros-log-"))
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

WAIT_S = 120.0
"""A test fails when something has not happened after this long; a slow and busy machine needs half a minute."""

N = TypeVar("N")
R = TypeVar("R")


class Ros:
    """A context of its own with an executor that spins in a thread."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._nodes: list[Any] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def add(self, node: N) -> N:
        """Spin a node that was made with ``context=ros.context``; it is destroyed at the end of the test."""
        self._nodes.append(node)
        self._executor.add_node(node)
        self._executor.wake()
        return node

    def node(self, name: str = "tester", **options: Any) -> Any:
        """A plain node to publish and subscribe with."""
        import rclpy

        return self.add(rclpy.create_node(name, context=self.context, **options))

    def on_executor(self, call: Callable[[], R]) -> R:
        """What a call gives on the executor's thread; rclpy raises there if another thread destroys what it waits for.

        Whatever ends subscriptions, publishers or services of a node that spins belongs here.
        """
        task = self._executor.create_task(call)
        self._executor.wake()
        self.wait_for(task.done, "a call on the executor's thread")
        return task.result()

    def wait_for(self, condition: Callable[[], Any], what: str = "", timeout: float = WAIT_S) -> Any:
        """Wait until `condition` is true and return its value; fail the test after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f"not within {timeout} s: {what or condition}")
            time.sleep(0.01)
        return value

    def close(self) -> None:
        """End the executor, the nodes and the context."""
        import rclpy

        self._stop.set()
        self._executor.wake()
        self._thread.join(WAIT_S)
        for node in self._nodes:
            if hasattr(node, "shut_down"):
                node.shut_down()
            node.destroy_node()
        self._executor.shutdown()
        rclpy.shutdown(context=self.context)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def ros() -> Iterator[Ros]:
    """A running executor; skips where rclpy or the built messages are missing."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run `make build`")
    pytest.importorskip("s4net_ros.msg", reason="the messages are not built: run `make build`")
    ros = Ros()
    yield ros
    ros.close()


def _heed_sigint() -> None:
    """Where the tests run in the background of a script, they ignore SIGINT, and what they start would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`spawn(*arguments)`: this Python in a process of its own, with pipes; it is gone when the test is over."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join(part for part in sys.path if part)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            preexec_fn=_heed_sigint,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_checkpoint(class_id=None, version=0, size=(64, 48))`: weights of a tiny network that sees one class, or
    any."""
    import torch

    from s4net_core.config import ModelSettings
    from s4net_core.models.build import build_network
    from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint

    folder = tmp_path_factory.mktemp("weights")

    def make(class_id: int | None = None, version: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
        model = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=size[0], height=size[1])
        torch.manual_seed(0)
        network = build_network(model)
        if class_id is not None:
            head = network.body.segmentation_head[0]
            with torch.no_grad():
                head.weight.zero_()
                head.bias.zero_()
                head.bias[class_id - 1] = 6.0
        path = folder / f"class{class_id}-v{version}-{size[0]}x{size[1]}.safetensors"
        save_checkpoint(path, network, CheckpointInfo(model=model, version=version))
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """Weights of a tiny random network."""
    return make_checkpoint()
