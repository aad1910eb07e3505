"""The package in a colcon workspace: built by copy and by link, used from its install space alone, tested by colcon."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = Path(sys.prefix)  # plays the part of /opt/ros/...
COLCON = ENVIRONMENT / "colcon"
NAME = "s4net_ros"
COLCON_TESTS = "test/ros/test_conversions.py"
"""What `colcon test` runs here; a robot's runs all."""
FIND = """
DEMO = ("demo.yaml",), ("weights", "base.safetensors"), ("capture", "poses.txt"), ("source",), ("scan2",)
import s4net_core, s4net_ros.msg, s4net_ros.node_base, s4net_ros.srv
from ament_index_python.packages import get_package_prefix
from s4net_core.files import share_file
from s4net_ros.graph import adaptation_graph
s4net_ros.msg.AdaptationStatus.__class__.__import_type_support__()
print(get_package_prefix("s4net_ros"), share_file("launch", "adapt.launch.py"), adaptation_graph()[0].parameters[0])
print(*(share_file("demo", *parts) for parts in DEMO))
print(*(module.__file__ for module in (s4net_core, s4net_ros, s4net_ros.node_base, s4net_ros.msg, s4net_ros.srv)))
"""

pytestmark = pytest.mark.skipif(
    not COLCON.is_dir(), reason="colcon is not in this environment: run `tools/build.sh dev`"
)


def environment(**more):
    """A shell in which ROS is sourced and nothing of this checkout is in sight."""
    unset = ("PYTHONPATH", "COLCON_PREFIX_PATH")
    return {name: value for name, value in os.environ.items() if name not in unset} | {
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": str(ENVIRONMENT),
        "CMAKE_PREFIX_PATH": f"{COLCON}:{ENVIRONMENT}",
        **more,
    }


def colcon(workspace, *arguments):
    """Output of a colcon command that succeeds."""
    command = [sys.executable, COLCON / "bin" / "colcon", *arguments]
    shell = environment(PYTHONPATH=str(COLCON))
    done = subprocess.run(command, cwd=workspace, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(workspace, *options, symlink):
    colcon(
        workspace, "build", "--packages-select", NAME, *options, "--cmake-args", "-G", "Ninja",
        f"-DPython3_EXECUTABLE={sys.executable}", f"-DS4NET_TESTS={COLCON_TESTS}",
        f"-DAMENT_CMAKE_SYMLINK_INSTALL={symlink}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with the package in `linked` and in `copied`; all of pytest's workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "workspace"
    built = folder / "built"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            # A copy without .venv: CMake refuses an environment, which stands for /opt/ros here, inside of the sources.
            unwanted = shutil.ignore_patterns(".*", "build", "out", "__pycache__")
            shutil.copytree(ROOT, folder / "src" / NAME, ignore=unwanted, dirs_exist_ok=True)
            build(folder, "--symlink-install", "--install-base", "linked", symlink=True)
            build(folder, "--install-base", "copied", symlink=False)
            built.touch()
    return folder


def in_install_space(workspace, install, *command):
    """The finished process of a command, in a shell that has sourced the install space, outside of the workspace."""
    line = f". {workspace / install / 'setup.sh'} && exec {shlex.join(map(str, command))}"
    return subprocess.run(
        ["/bin/sh", "-c", line], cwd="/", env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("install", ["linked", "copied"])
def test_messages_code_launch_and_configuration_are_found_in_the_install_space(workspace, install):
    found = in_install_space(workspace, install, "python", "-c", FIND)
    assert found.returncode == 0, found.stderr
    paths = [Path(path) for path in found.stdout.split()]
    assert len(paths) == 13
    prefix = workspace / install / NAME
    assert all(path == prefix or prefix in path.parents for path in paths), paths
    for path in (prefix / "share" / NAME / "launch" / "adapt.launch.py", paths[3]):
        assert path.is_symlink() == (install == "linked")
        assert path.is_file()


@pytest.mark.parametrize(
    ("program", "arguments", "answer"),
    [
        ("lib/s4net_ros/segmentation_node", ["--ros-args", "-p", "model.width:=-3"], "model.width = -3"),
        ("lib/s4net_ros/adaptation_node", ["--ros-args", "-p", "model.width:=-3"], "model.width = -3"),
        ("lib/s4net_ros/player", ["/no/bag"], "/no/bag is no rosbag2 recording"),
        ("lib/s4net_ros/when_active", [], "usage: when_active"),
        ("bin/s4net", ["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_every_program_starts_and_answers(workspace, program, arguments, answer):
    done = in_install_space(workspace, "copied", workspace / "copied" / NAME / program, *arguments)
    assert done.returncode == 2
    assert answer in done.stderr
    assert "Traceback" not in done.stderr


def test_every_script_is_a_program_that_is_tested_here(workspace):
    installed = {
        path.name for folder in ("bin", f"lib/{NAME}") for path in (workspace / "copied" / NAME / folder).iterdir()
    }
    assert installed == {path.name for path in (ROOT / "scripts").iterdir()}


def test_colcon_runs_the_tests(workspace):
    options = ("--install-base", "copied", "--packages-select", NAME)
    colcon(workspace, "test", *options, "--return-code-on-test-failure")
    results = colcon(workspace, "test-result", "--all")
    counts = re.search(r"behaviour.xunit.xml: (\d+) tests, 0 errors, 0 failures, 0 skipped", results)
    assert counts, results
    assert int(counts[1]) > 20
