"""S4-Net without ROS: the same code offline and on a robot."""

__version__ = "0.1.0"
