"""The bag of replay.launch.py starts when both nodes are active, not after a number of seconds."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("rclpy")

from s4net_ros.node_base import S4NetNode
from s4net_ros.replay import when_active

TELL_TIME = ("--", sys.executable, "-c", "import time; print(time.time())")
MODULE = ("-m", "s4net_ros.replay.when_active")


class Idle(S4NetNode[None]):
    """A node that has nothing to load."""

    def configure(self, undo: ExitStack) -> None:
        pass

    def activate(self, configured: None, undo: ExitStack) -> None:
        pass


def test_the_program_runs_when_the_last_node_has_become_active(
    ros: Any, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    first, last = (ros.add(Idle(name, context=ros.context, namespace="robot1")) for name in ("first", "last"))
    assert first.autostart()
    process = spawn(*MODULE, "/robot1/first", "/robot1/last", *TELL_TIME)
    ros.wait_for(lambda: any("when_active" in name for name in first.get_node_names()))
    time.sleep(1.0)  # long enough to be asked for a state that is not the right one yet
    activated = time.time()
    assert last.autostart()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert float(out) >= activated


def test_it_waits_after_that_when_asked(ros: Any, spawn: Callable[..., "subprocess.Popen[str]"]) -> None:
    assert ros.add(Idle("idle", context=ros.context)).autostart()
    started = time.time()
    out, _ = spawn(*MODULE, "--delay", "1.5", "/idle", *TELL_TIME).communicate(timeout=60)
    assert float(out) >= started + 1.5


@pytest.mark.parametrize("command", [[], ["--"], ["--", "no-such-program", "x"]])
def test_a_program_that_does_not_exist_is_named_before_anything_is_waited_for(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert when_active.main(["/idle", *command]) == when_active.NOT_FOUND
    assert " ".join(command[1:2]) in capsys.readouterr().err
