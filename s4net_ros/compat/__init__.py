"""message_filters, tf2_ros and cv_bridge: the real packages where they are installed, else the subset that we use.

ROS 2 from PyPI lacks all three. Import them from here: ``from s4net_ros.compat import message_filters, tf2_ros``.
"""

import importlib
from typing import Any

try:
    import message_filters
except ImportError:
    from s4net_ros.compat import _message_filters as message_filters

try:
    import tf2_ros
except ImportError:
    from s4net_ros.compat import _tf2_ros as tf2_ros

cv_bridge: Any
__all__ = ["cv_bridge", "in_use", "message_filters", "tf2_ros"]


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
