"""PyTorch's threads spin briefly in our commands and nodes, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from s4net_core.machine.waiting import SPINS, spin_briefly

COMMAND = "from s4net_core.cli.main import main; main(['settings'])"
NODES = [f"import s4net_ros.{name}_node" for name in ("segmentation", "adaptation", "semantic_map")]


def spins(lines: str) -> str:
    """What the OpenMP of PyTorch says of itself after these lines of Python: how often its threads spin."""
    pytest.importorskip("torch")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}\nimport torch"],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return line.split("'")[1]


@pytest.mark.parametrize("lines", [COMMAND, *NODES])
def test_threads_spin_briefly_in_commands_and_nodes(lines: str) -> None:
    if lines in NODES:
        pytest.importorskip("s4net_ros.msg")
    assert spins(lines) == str(SPINS)


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    spin_briefly()
    assert (os.environ[name], "GOMP_SPINCOUNT" in os.environ) == (value, name == "GOMP_SPINCOUNT")
