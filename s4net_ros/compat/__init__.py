"""message_filters, tf2_ros and cv_bridge: the real packages where they are installed, else the subset that we use.

ROS 2 from PyPI lacks all three. Import them from here: ``from s4net_ros.compat import message_filters, tf2_ros``.
"""

import importlib
from typing import Any

BROKEN: dict[str, str] = {}
"""Packages that are installed and cannot be imported: why. Nodes log it, or nobody would know of the stand-in."""


def _note(name: str, error: ImportError) -> None:
    if error.name != name:  # otherwise it is not installed
        BROKEN[name] = str(error)


try:
    import message_filters
except ImportError as error:
    _note("message_filters", error)
    from s4net_ros.compat import _message_filters as message_filters

try:
    import tf2_ros
except ImportError as error:
    _note("tf2_ros", error)
    from s4net_ros.compat import _tf2_ros as tf2_ros

cv_bridge: Any
__all__ = ["BROKEN", "cv_bridge", "in_use", "message_filters", "tf2_ros"]


def in_use() -> str:
    """Which implementations match messages and keep transforms, e.g. ``message_filters, tf2_ros (stand-in)``.

    Nodes log this, because a robot with a ROS install should run on the real packages, and a missing one would go
    unnoticed.
    """
    real = {"message_filters": message_filters, "tf2_ros": tf2_ros}
    return ", ".join(name if module.__name__ == name else f"{name} (stand-in)" for name, module in real.items())


def __getattr__(name: str) -> Any:
    """cv_bridge on first use: few streams need it, and a build for another NumPy or OpenCV must not stop the rest."""
    if name != "cv_bridge":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    try:
        return importlib.import_module("cv_bridge")
    except ImportError:
        return importlib.import_module("s4net_ros.compat._cv_bridge")
