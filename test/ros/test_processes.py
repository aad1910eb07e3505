"""No child outlives its parent, and a dead child says why."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from s4net_ros.replay.processes import ChildDied, Children

WAIT_S = 60.0
"""A child starts within a second; a slow and busy machine needs longer."""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
deaf = "import signal, time; [signal.signal(number, signal.SIG_IGN) for number in (2, 15)]; "
deaf += "print('deaf', flush=True); time.sleep(300)"
grandchild = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(grandchild.pid, flush=True)
time.sleep(300)
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, timeout: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.02)


def printed_pid(log: Path) -> int:
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    return int(log.read_text())


@pytest.mark.parametrize("own_sessions", [True, False])
def test_a_child_that_ignores_ctrl_c_and_its_own_child_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_sessions: bool
) -> None:
    monkeypatch.setattr(
        "s4net_ros.replay.processes.GRACE", ((signal.SIGINT, 0.3), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))
    )
    with Children(tmp_path, {}, own_sessions=own_sessions) as children:
        child = children.start("stubborn", [sys.executable, "-c", STUBBORN])
        grandchild = printed_pid(tmp_path / "stubborn.log")
        assert alive(child.pid)
        assert alive(grandchild)
        assert os.getpgid(grandchild) == child.pid
        assert os.getsid(child.pid) == (child.pid if own_sessions else os.getsid(0))
    assert child.code == -signal.SIGTERM
    wait_until(lambda: not alive(grandchild))


def test_children_end_when_an_exception_leaves_the_block(tmp_path: Path) -> None:
    pids = []

    def start_and_fail() -> None:
        with Children(tmp_path, {}) as children:
            pids.append(children.start("sleeper", [sys.executable, "-c", "import time; time.sleep(300)"]).pid)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        start_and_fail()
    assert not alive(pids[0])


def test_children_end_when_the_parent_is_killed(tmp_path: Path, spawn: Any) -> None:
    program = (
        "import sys, time; from pathlib import Path; from s4net_ros.replay.processes import Children\n"
        "children = Children(Path(sys.argv[1]), {})\n"
        "print(children.start('sleeper', [sys.executable, '-c', 'import time; time.sleep(300)']).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = spawn("-c", program, str(tmp_path))
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(child))


def test_a_dead_child_shows_the_end_of_its_log(tmp_path: Path) -> None:
    program = "import sys; [print('line', i) for i in range(100)]; sys.exit('no weights here')"
    with Children(tmp_path, {}) as children:
        child = children.start("segmentation", [sys.executable, "-c", program])
        assert child.wait(WAIT_S) == 1
        with pytest.raises(ChildDied, match="segmentation ended with exit code 1") as error:
            children.check()
    assert "no weights here" in str(error.value)
    assert "line 99" in str(error.value)
    assert "line 5\n" not in str(error.value)


def test_a_child_that_ended_well_is_an_error_unless_it_may(tmp_path: Path) -> None:
    with Children(tmp_path, {}) as children:
        assert children.start("player", [sys.executable, "-c", "pass"], may_end=(0,)).wait(WAIT_S) == 0
        children.check()
        assert children.start("node", [sys.executable, "-c", "pass"]).wait(WAIT_S) == 0
        with pytest.raises(ChildDied, match="node ended with exit code 0"):
            children.check()


def test_children_get_the_environment(tmp_path: Path) -> None:
    program = "import os; print(os.environ['ALL'], os.environ['ONE'], os.environ['PATH'])"
    with Children(tmp_path, {"ALL": "a", "ONE": "a"}) as children:
        children.start("child", [sys.executable, "-c", program], {"ONE": "b"}).wait(WAIT_S)
    assert (tmp_path / "child.log").read_text().strip() == f"a b {os.environ['PATH']}"
