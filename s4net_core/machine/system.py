"""Examines the machine itself: Python, PyTorch, GPU, ROS, DDS, camera, memory. It imports no ROS package."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, Literal

from s4net_core import __version__
from s4net_core.errors import S4NetError
from s4net_core.files import share_file
from s4net_core.machine.dds import dds_profile_variable

GIGABYTE = 1024**3

MIN_FREE_MEMORY = 2 * GIGABYTE
"""Bytes that PyTorch, one network and the default keyframe buffer need."""

MIN_SHARED_MEMORY = 128 * 1024**2
"""Bytes for the segments of three processes under config/fastdds.xml, 32 MB each, with some room."""

LIBRARIES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "timm": "timm",
    "safetensors": "safetensors",
    "rosbags": "rosbags",
}
"""Name of the module -> name of the package on PyPI."""

TRIALS = {
    "message_filters": "import message_filters",
    "tf2_ros": "import tf2_ros",
    "cv_bridge": "from sensor_msgs.msg import Image; from cv_bridge import CvBridge; CvBridge().imgmsg_to_cv2("
    "Image(height=4, width=4, step=4, encoding='bayer_rggb8', data=bytes(16)), 'rgb8')",
}
"""What must work of the ROS libraries that PyPI lacks; built for another NumPy, cv_bridge ends the process."""

INSTALL_LIBRARIES = "pip install -r requirements/robot.txt; without a ROS install: make build"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Args:
        subject: what was looked at.
        found: what there is.
        state: ``ok``; ``note``: works, but something is worth knowing; ``missing``: something will not work.
        remedy: what to do; empty when there is nothing to do.
    """

    subject: str
    found: str
    state: Literal["ok", "note", "missing"] = "ok"
    remedy: str = ""


def examine_system() -> Iterator[Finding]:
    """Findings on everything that does not depend on settings, in the order of the table."""
    for check in (_python, _torch, _libraries, _ros, _stand_ins, _discovery, _shared_memory, _camera, _memory):
        yield from check()


def _python() -> Iterator[Finding]:
    yield Finding("s4net", f"{__version__} in {Path(__file__).resolve().parents[2]}")
    yield Finding("Python", f"{sys.version.split()[0]}, {sys.executable}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("PyTorch", f"cannot be imported: {error}", "missing", INSTALL_LIBRARIES)
        return
    yield Finding("PyTorch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            yield Finding(
                f"GPU cuda:{index}",
                f"{torch.cuda.get_device_name(index)}, {gigabytes(free)} of {gigabytes(total)} free, "
                f"CUDA {torch.version.cuda}",
            )
    elif Path("/proc/driver/nvidia/version").exists():
        reason = (
            "this PyTorch has no CUDA" if torch.version.cuda is None else f"PyTorch needs CUDA {torch.version.cuda}"
        )
        remedy = "update the NVIDIA driver, or install a PyTorch that fits it (https://pytorch.org/get-started/locally)"
        yield Finding("GPU", f"present, but PyTorch cannot use it: {reason}", "missing", remedy)
    else:
        yield Finding("GPU", "none: everything runs on the CPU", "note", "use a small encoder and image size on a CPU")


def _libraries() -> Iterator[Finding]:
    names = {name: distribution for name, distribution in LIBRARIES.items() if _importable(name)}
    if names:
        yield Finding("Libraries", ", ".join(f"{name} {_version(package)}" for name, package in names.items()))
    if missing := [package for name, package in LIBRARIES.items() if name not in names]:
        yield Finding("Libraries", f"not installed: {', '.join(missing)}", "missing", INSTALL_LIBRARIES)


def _ros() -> Iterator[Finding]:
    if not _importable("rclpy"):
        yield Finding(
            "ROS 2",
            "no rclpy: files can be processed, topics cannot",
            "note",
            "source /opt/ros/<distribution>/setup.bash, or run `make build` in a checkout of s4net_ros",
        )
        return
    yield Finding("ROS 2", _distribution())
    if _importable("s4net_ros", "msg"):
        yield Finding("Messages", "s4net_ros/msg is built")
    else:
        yield Finding(
            "Messages",
            "s4net_ros/msg is not built",
            "missing",
            "colcon build --packages-select s4net_ros && source install/setup.bash; without a ROS install: make build",
        )


def _distribution() -> str:
    if name := os.environ.get("ROS_DISTRO"):
        return f"{name}, from {os.environ.get('AMENT_PREFIX_PATH', '?').split(os.pathsep)[-1]}"
    for package in distributions():
        if match := re.fullmatch(r"ros-(\w+)-rclpy", package.name):
            return f"{match[1]}, from PyPI (rclpy {package.version})"
    return "rclpy of an unknown distribution"


def _stand_ins() -> Iterator[Finding]:
    """The ROS libraries that PyPI lacks, and for which s4net_ros brings replacements."""
    if not _importable("rclpy"):
        return
    for name, trial in TRIALS.items():
        if not _importable(name):
            yield Finding(name, "not installed: s4net_ros uses its own")
        elif problem := _problem(trial):
            remedy = f"install it for this Python, NumPy and OpenCV, or remove it: s4net_ros has its own {name}"
            yield Finding(name, f"of this ROS install, which fails: {problem}", "missing", remedy)
        else:
            yield Finding(name, "of this ROS install")
    # The real cv_bridge has the version of vision_opencv (3 and 4); PyPI's is the port of ROS 1's 1.13.
    if _version("cv-bridge").startswith("1."):
        remedy = "pip uninstall cv-bridge"
        yield Finding("cv_bridge", "PyPI's port of ROS 1: it decodes 16UC1 depth wrongly", "missing", remedy)
    elif _importable("cv_bridge") and not _opencv_version().startswith(("3.", "4.")):
        remedy = "pip install 'opencv-python-headless<5'"
        yield Finding("cv_bridge", f"does not work with OpenCV {_opencv_version()}", "missing", remedy)


def _discovery() -> Iterator[Finding]:
    names = ("RMW_IMPLEMENTATION", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY")
    values = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Finding("DDS", ", ".join(values) or "defaults: domain 0, visible on the network")
    variable = dds_profile_variable()
    profile = os.environ.get(variable, "")
    try:
        remedy = f"export {variable}={share_file('config', 'fastdds.xml')}, when camera and nodes share this machine"
    except S4NetError as error:
        remedy = str(error)
    if not profile:
        yield Finding("DDS profile", "none: best-effort images are lost between processes", "note", remedy)
    elif not Path(profile).is_file():
        yield Finding("DDS profile", f"{profile} does not exist", "missing", remedy)
    else:
        yield Finding("DDS profile", profile)


def _shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        text = f"{free / 1024**2:.0f} MB free in {shared}"
        if free < MIN_SHARED_MEMORY:
            yield Finding("Shared memory", text, "missing", "in a container: docker run --shm-size 1g, or --ipc host")
        else:
            yield Finding("Shared memory", text)


def _camera() -> Iterator[Finding]:
    if not _importable("pyrealsense2"):
        remedy = "make camera, or pip install pyrealsense2; other cameras, and realsense2_camera, do not need it"
        yield Finding("RealSense", "pyrealsense2 is not installed, so cameras cannot be listed", "note", remedy)
        return
    try:
        realsense = importlib.import_module("pyrealsense2")
    except ImportError as error:  # the library links to libusb, which pip does not install
        remedy = "sudo apt-get install libusb-1.0-0" if "libusb" in str(error) else "pip install -U pyrealsense2"
        yield Finding("RealSense", f"pyrealsense2 does not load: {error}", "note", remedy)
        return
    try:
        devices = list(realsense.context().query_devices())
        names = [_device(realsense.camera_info, device) for device in devices]
    except RuntimeError as error:  # librealsense's own errors, e.g. a busy device
        yield Finding(
            "RealSense", f"cameras cannot be listed: {error}", "missing", "unplug the camera and plug it in again"
        )
        return
    if names:
        yield Finding("RealSense", "; ".join(names))
    else:
        yield Finding("RealSense", "no camera is connected", "note", "plug one into USB 3, or replay a bag: s4net live")


def _device(keys: Any, device: Any) -> str:
    """Name, serial number, firmware and USB type, as far as the device reports them."""
    labels = (
        ("", keys.name),
        ("serial ", keys.serial_number),
        ("firmware ", keys.firmware_version),
        ("USB ", keys.usb_type_descriptor),
    )
    return ", ".join(label + device.get_info(key) for label, key in labels if device.supports(key))


def _memory() -> Iterator[Finding]:
    free = _available_memory()
    if free is not None:
        remedy = "close programs, or lower keyframes.max_megabytes and model.width"
        low = free < MIN_FREE_MEMORY
        yield Finding("Memory", f"{gigabytes(free)} free", "missing" if low else "ok", remedy if low else "")


def _available_memory() -> int | None:
    """Bytes that a new program may use; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _problem(program: str) -> str:
    """Why a Python program fails in a process of its own; empty = it does not."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = done.stderr.strip().rpartition("\n")[2]
    return "" if not done.returncode else f"a signal ended it: {-done.returncode}" if done.returncode < 0 else said


def _importable(name: str, part: str = "") -> bool:
    """Whether a top-level package (or a folder of it) is there; nothing is imported."""
    if not part:
        return importlib.util.find_spec(name) is not None
    return any((Path(folder) / name / part / "__init__.py").is_file() for folder in sys.path)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # Debian's python3-opencv has no package metadata
        return "(unknown version)"


def _opencv_version() -> str:
    import cv2

    return str(cv2.__version__)


def gigabytes(count: int) -> str:
    """Bytes as text, in GB of 2^30 bytes."""
    return f"{count / GIGABYTE:.1f} GB"
