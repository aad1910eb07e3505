"""message_filters and tf2_ros: the real packages where they are installed, else the subset of them that we use.

ROS 2 from PyPI has neither. Import them from here: ``from s4net_ros.compat import message_filters, tf2_ros``.
"""

try:
    import message_filters
except ImportError:
    from s4net_ros.compat import _message_filters as message_filters

try:
    import tf2_ros
except ImportError:
    from s4net_ros.compat import _tf2_ros as tf2_ros

__all__ = ["message_filters", "tf2_ros"]
