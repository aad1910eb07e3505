"""Fast DDS: the variable that names its profile on this machine."""

import os

FAST_DDS_2 = ("humble", "iron", "jazzy")
"""Distributions whose Fast DDS knows only the old names of its environment variables."""


def dds_profile_variable() -> str:
    """Environment variable that names the Fast DDS profile. Fast DDS 3, since Kilted, warns of the old name.

    The distribution is that of the sourced ROS install; without one it is Kilted from PyPI.
    """
    old = os.environ.get("ROS_DISTRO", "") in FAST_DDS_2
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"
