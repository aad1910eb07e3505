"""What `s4net doctor` says about machines that lack something."""

import importlib
import shutil
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import make_source_images, write_source_set

from s4net_core.cli.main import main
from s4net_core.config import Settings, from_values
from s4net_core.io.source_sets.pack_writer import write_pack
from s4net_core.machine import system
from s4net_core.machine.files import examine_files
from s4net_core.machine.system import Finding, examine_system


def findings(settings: Settings | None = None) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(settings or Settings())}


def examine(settings: Settings) -> list[Finding]:
    return [*examine_system(), *examine_files(settings)]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Make top-level packages look as if they were not installed."""

    def hide(*names: str) -> None:
        real = system._importable
        monkeypatch.setattr(system, "_importable", lambda name, part="": name not in names and real(name, part))

    return hide


def test_the_table_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    out = capsys.readouterr().out
    for word in ("Python", "PyTorch", "ROS 2", "DDS", "Weights", "Source set", "Memory", "State folder"):
        assert word in out


def test_everything_missing_has_a_remedy() -> None:
    settings = from_values(
        {"checkpoint": "/nowhere/base.safetensors", "source.path": "/nowhere", "state_dir": "/proc/x"}
    )
    found = examine(settings)
    assert {"Weights", "Source set"} <= {f.subject for f in found if f.state == "missing"}
    assert all(f.remedy for f in found if f.state != "ok")


def test_a_machine_that_lacks_something_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--set", "checkpoint=/nowhere/base.safetensors"]) == 1
    assert "/nowhere/base.safetensors" in capsys.readouterr().out.replace("\n", "")


def test_a_machine_without_torch_is_examined_all_the_same(monkeypatch: pytest.MonkeyPatch, without) -> None:
    without("segmentation_models_pytorch")
    monkeypatch.setitem(sys.modules, "torch", None)
    sets = "s4net_core.io.source_sets"
    for module in (
        "s4net_core.models.checkpoint",
        f"{sets}.packed",
        f"{sets}.source_set",
        "s4net_core.geometry.camera",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    found = examine(from_values({"source.path": "/somewhere"}))
    missing = {finding.subject: finding for finding in found if finding.state == "missing"}
    assert {"PyTorch", "Libraries", "Weights", "Source set"} <= missing.keys()
    assert "segmentation-models-pytorch" in missing["Libraries"].found
    assert "requirements/robot.txt" in missing["PyTorch"].remedy
    assert any(finding.subject == "State folder" for finding in found)


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--set", "checkpoint=/a/[red]b.safetensors"])
    assert "/a/[red]b.safetensors" in capsys.readouterr().out.replace("\n", "")


def test_without_ros_only_files_can_be_processed(without) -> None:
    without("rclpy")
    ros = findings()["ROS 2"]
    assert ros.state == "note"
    assert "make build" in ros.remedy
    assert "tf2_ros" not in findings()


def test_messages_that_are_not_built_are_missing(without) -> None:
    without("s4net_ros")
    pytest.importorskip("rclpy")
    assert "colcon build" in findings()["Messages"].remedy


def test_the_distribution_is_that_of_the_sourced_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/home/me/ws/install:/opt/ros/humble")
    assert system._distribution() == "humble, from /opt/ros/humble"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("real = True", "of this ROS install"),
        ("import no_such_library", "which fails: ModuleNotFoundError: No module named 'no_such_library'"),
        ("import os; os.abort()", "which fails: a signal ended it: 6"),
    ],
)
def test_a_ros_library_that_is_installed_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, said: str
) -> None:
    (tmp_path / "tf2_ros.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(system, "_importable", lambda name, part="": name in ("rclpy", "tf2_ros"))
    (found,) = [f for f in system._stand_ins() if f.subject == "tf2_ros"]
    assert found.found.endswith(said)
    assert (found.state == "ok") is (module == "real = True")


def test_the_cv_bridge_of_pypi_is_refused(monkeypatch: pytest.MonkeyPatch, without) -> None:
    without()
    monkeypatch.setattr(system, "_problem", lambda program: "")
    monkeypatch.setattr(system, "_importable", lambda name, part="": True)
    monkeypatch.setattr(system, "_version", lambda name: "1.13.0.post0")
    (finding,) = [f for f in system._stand_ins() if f.state == "missing"]
    assert finding.remedy == "pip uninstall cv-bridge"


def test_the_real_cv_bridge_needs_opencv_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_problem", lambda program: "")
    monkeypatch.setattr(system, "_importable", lambda name, part="": True)
    monkeypatch.setattr(system, "_version", lambda name: "4.1.0")
    assert not [f for f in system._stand_ins() if f.state == "missing"]
    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    (finding,) = [f for f in system._stand_ins() if f.state == "missing"]
    assert "opencv-python-headless<5" in finding.remedy


@pytest.mark.parametrize(("distribution", "name"), [("kilted", "FASTDDS"), ("", "FASTDDS"), ("jazzy", "FASTRTPS")])
def test_a_profile_that_is_not_there_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, distribution: str, name: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    variable = f"{name}_DEFAULT_PROFILES_FILE"
    monkeypatch.setenv(variable, str(tmp_path / "gone.xml"))
    assert findings()["DDS profile"].state == "missing"
    existing = tmp_path / "there.xml"
    existing.touch()
    monkeypatch.setenv(variable, str(existing))
    assert findings()["DDS profile"] == Finding("DDS profile", str(existing))
    monkeypatch.delenv(variable)
    remedy = findings()["DDS profile"].remedy
    assert remedy.startswith(f"export {variable}=")
    profile = Path(remedy.partition("=")[2].partition(",")[0])
    assert profile.is_file()


def test_little_shared_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=64 * 1024**2)
    monkeypatch.setattr(system.shutil, "disk_usage", lambda path: usage)
    assert "--shm-size" in findings()["Shared memory"].remedy


@pytest.mark.parametrize(
    ("error", "remedy"),
    [("libusb-1.0.so.0: cannot open shared object file", "libusb-1.0-0"), ("undefined symbol: x", "pip install -U")],
)
def test_a_camera_library_that_does_not_load_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, error: str, remedy: str
) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise ImportError(error)

    monkeypatch.setattr(system, "_importable", lambda name, part="": True)
    monkeypatch.setattr(importlib, "import_module", refuse)
    (finding,) = system._camera()
    assert remedy in finding.remedy
    assert error in finding.found


def test_connected_cameras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"name": "Intel RealSense D435", "serial_number": "0123", "firmware_version": "5.16", "usb": "3.2"}
    camera = types.SimpleNamespace(get_info=values.__getitem__, supports=lambda key: key != "usb")
    library = types.SimpleNamespace(
        context=lambda: types.SimpleNamespace(query_devices=lambda: [camera]),
        camera_info=types.SimpleNamespace(
            name="name", serial_number="serial_number", firmware_version="firmware_version", usb_type_descriptor="usb"
        ),
    )
    monkeypatch.setattr(system, "_importable", lambda name, part="": True)
    monkeypatch.setitem(sys.modules, "pyrealsense2", library)
    assert list(system._camera()) == [Finding("RealSense", "Intel RealSense D435, serial 0123, firmware 5.16")]


def test_a_packed_source_set_of_another_size_is_noted(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.s4pack", {"train": write_source_set(tmp_path / "rooms", make_source_images(3))}, 64, 48)
    settings = {"source.path": str(tmp_path / "a.s4pack"), "model.width": 64, "model.height": 48}
    found = findings(from_values(settings))["Source set"]
    assert (found.state, found.found) == ("ok", f"{tmp_path / 'a.s4pack'}: 3 labelled images")
    found = findings(from_values(settings | {"model.width": 96}))["Source set"]
    assert found.state == "note"
    assert "packed at 64x48 but processed at 96x48" in found.found
    found = findings(from_values({"source.path": settings["source.path"], "checkpoint": "demo"}))["Source set"]
    assert "processed at 240x180" in found.found  # the size of the demo's model
    assert found.remedy.endswith("--set model.width=240 --set model.height=180")


def test_a_source_set_is_counted(tmp_path: Path) -> None:
    for folder in ("room_1", "room_2"):
        for kind in ("color", "label"):
            (tmp_path / folder / kind).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / kind / "0.png"), np.ones((6, 8), np.uint8))
    found = findings(from_values({"source.path": str(tmp_path)}))["Source set"]
    assert found.state == "ok"
    assert "2 labelled images" in found.found
    (tmp_path / "empty").mkdir()
    assert findings(from_values({"source.path": str(tmp_path / "empty")}))["Source set"].state == "missing"


def test_little_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_available_memory", lambda: 512 * 1024**2)
    finding = findings()["Memory"]
    assert finding.state == "missing"
    assert finding.found.startswith("0.5 GB")
