"""What the benches with nodes share: how their process begins and ends."""

import os
import sys
from collections.abc import Callable

import rclpy

from s4net_core.errors import S4NetError
from s4net_ros.graph import fastdds_environment

NEVER_ENDS = ("adaptation.max_steps=0", "adaptation.steps_per_keyframe=0")
"""Overrides with which a node always has something to learn."""


def exit_code_of(work: Callable[[], None]) -> int:
    """Do a bench's work with rclpy, and with the DDS profile of this machine for this process and its children.

    Returns:
        0; 2 with a message when the work raises `S4NetError`; 130 after Ctrl-C.
    """
    os.environ.update(fastdds_environment(fastdds_profile="local"))  # of the camera too, or it loses images
    rclpy.init()
    try:
        work()
    except KeyboardInterrupt:
        return 130
    except S4NetError as error:
        print(f"s4net bench: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0
