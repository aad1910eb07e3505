"""`tools/build.sh`: says what is missing, and does nothing the second time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("tools", "requirements", "cmake", "msg", "srv", "setup.cfg", "CMakeLists.txt", "package.xml")
PYTHON = """#!/bin/sh
# In place of Python: makes an empty environment, installs nothing, and writes down that it was asked to.
case "$*" in
"-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    echo venv >>"$CALLS"
    ;;
"-m pip"*) echo pip >>"$CALLS" ;;
*) exec {python} "$@" ;;
esac
"""
CMAKE = """#!/bin/sh
echo cmake >>"$CALLS"
"""


pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv" / ".stamps").is_dir(),
    reason="this Python was not set up by `make build`, whose tests these are",
)


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose tools only pretend."""
    folder = tmp_path / "checkout"
    (folder / "s4net_ros").mkdir(parents=True)
    shutil.copy(ROOT / "s4net_ros" / "__init__.py", folder / "s4net_ros")
    for name in INPUTS:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (tmp_path / "bin").mkdir()
    for name, text in (("python3", PYTHON.replace("{python}", sys.executable)), ("cmake", CMAKE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return folder


def build(checkout, path):
    environment = {**os.environ, "PATH": path, "CALLS": str(checkout / "calls"), "PYTHON": "python3"}
    command = ["/bin/sh", "tools/build.sh", "build"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_the_second_run_does_nothing_and_a_change_only_what_follows_from_it(checkout):
    path, calls = f"{checkout.parent / 'bin'}:{os.environ['PATH']}", checkout / "calls"
    first = build(checkout, path)
    assert first.returncode == 0, first.stderr
    made = calls.read_text().split()
    assert set(made) == {"venv", "pip", "cmake"}
    second = build(checkout, path)
    assert (second.returncode, second.stdout, calls.read_text().split()) == (0, "", made)
    message = next((checkout / "msg").iterdir())
    message.write_text(message.read_text() + "\n# changed\n")
    third = build(checkout, path)
    assert third.stdout == "== messages of this package\n"
    assert set(calls.read_text().split()[len(made) :]) == {"cmake"}


def test_missing_system_packages_are_named_in_the_line_that_installs_them(checkout):
    bin = checkout.parent / "bin"
    for name in ("uname", "sha256sum", "cat", "dirname", "mkdir", "rm", "cp", "readlink", "flock", "sh"):
        (bin / name).symlink_to(shutil.which(name))
    done = build(checkout, str(bin))
    assert done.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y gcc g++\n" in done.stderr
    (bin / "python3").unlink()
    assert "install -y python3 python3-venv python3-dev\n" in build(checkout, str(bin)).stderr


@pytest.mark.parametrize(("version", "refused"), [((3, 9), True), ((3, 10), False), ((3, 14), False), ((3, 15), True)])
def test_a_python_for_which_there_are_no_wheels_is_refused(checkout, version, refused):
    python = checkout.parent / "bin" / "python3"
    as_version = f'"-c"*) exec {sys.executable} -c "import sys; sys.version_info = {version}; $2" ;;\n'
    python.write_text(python.read_text().replace("*) exec", as_version + "*) exec"))
    done = build(checkout, f"{checkout.parent / 'bin'}:{os.environ['PATH']}")
    assert ("Python 3.10 to 3.14 is needed: make build PYTHON=python3.12" in done.stderr) == refused
