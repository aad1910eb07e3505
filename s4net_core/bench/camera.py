"""The camera of the benches: a RealSense D400 at a usual setting."""

from s4net_core.frames import Intrinsics

LENS = Intrinsics(848, 480, 600.0, 600.0, 424.0, 240.0)
RATE = 30
"""Frames a second."""
