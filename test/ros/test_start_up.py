"""A signal during start-up ends each program at once and without a traceback, whatever it is loading."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run `make build`")
pytest.importorskip("s4net_ros.msg", reason="the messages are not built: run `make build`")

WAIT_S = 120.0
PROMPT_S = 10.0
"""A signal is heeded within a second; this machine may be busy."""
LIBRARIES = ("_rclpy_pybind11", "libtorch_cpu")
"""What the programs load, one after the other; the last one takes seconds."""


def heeds_signals(pid: int) -> bool:
    """Whether Python's own handler of SIGINT, which prints a traceback, is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return not caught >> (SIGINT - 1) & 1


def wait_for(process: "subprocess.Popen[str]", what: str) -> None:
    """Wait until the process has begun to load a library; empty = until its first lines have run."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and process.poll() is None:
        if heeds_signals(process.pid) and (not what or what in Path(f"/proc/{process.pid}/maps").read_text()):
            return
        time.sleep(0.005)
    pytest.fail(f"{what or 'the first line'} was not reached: {process.communicate()[1]}")


@pytest.mark.parametrize(
    ("module", "moment", "number", "later"),
    [
        ("segmentation_node", "", SIGINT, 0.0),
        ("segmentation_node", LIBRARIES[0], SIGTERM, 0.2),
        ("segmentation_node", LIBRARIES[1], SIGINT, 0.0),
        ("segmentation_node", LIBRARIES[1], SIGTERM, 0.2),
        ("adaptation_node", "", SIGTERM, 0.0),
        ("adaptation_node", LIBRARIES[1], SIGINT, 0.2),
        ("adaptation_node", "", SIGINT, 0.4),
        ("player", "", SIGINT, 0.0),
        ("replay.when_active", LIBRARIES[0], SIGINT, 0.2),
    ],
)
def test_a_signal_at_any_moment_of_start_up(
    spawn: Callable[..., "subprocess.Popen[str]"], module: str, moment: str, number: Signals, later: float
) -> None:
    arguments = {"player": ["/no/bag"], "replay.when_active": ["/nobody", "--", "true"]}.get(module, ["--ros-args"])
    process = spawn("-m", f"s4net_ros.{module}", *arguments)
    wait_for(process, moment)
    time.sleep(later)
    process.send_signal(number)
    out, err = process.communicate(timeout=PROMPT_S)
    assert process.returncode == -number, err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "scripts").iterdir()), ids=lambda path: path.name)
def test_a_program_of_ros_cares_for_signals_before_it_imports_anything_slow(path: Path) -> None:
    if path.name == "s4net":
        return  # it answers KeyboardInterrupt itself
    lines = path.read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("signal.signal(signal.SIGINT"))
    slow = next(index for index, line in enumerate(lines) if line.startswith("from s4net_ros"))
    assert first < slow
