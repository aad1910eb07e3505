"""Fast DDS: the variable that names its profile on this machine, and the profile that comes with the package."""

import os
from pathlib import Path

FAST_DDS_2 = ("humble", "iron", "jazzy")
"""Distributions whose Fast DDS knows only the old names of its environment variables."""


def dds_profile_variable() -> str:
    """Environment variable that names the Fast DDS profile. Fast DDS 3, since Kilted, warns of the old name.

    The distribution is that of the sourced ROS install; without one it is Kilted from PyPI.
    """
    old = os.environ.get("ROS_DISTRO", "") in FAST_DDS_2
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"


def dds_profile() -> Path:
    """Path of config/fastdds.xml: where colcon installed it, else beside the sources."""
    prefixes = [Path(p) / "share/s4net_ros" for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates = [root / "config/fastdds.xml" for root in (*prefixes, Path(__file__).resolve().parents[2])]
    return next((path for path in candidates if path.is_file()), candidates[-1])
