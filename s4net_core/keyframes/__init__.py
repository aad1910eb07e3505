"""Keyframes: which views are kept, how much they see of each other, and how they survive a restart."""

from s4net_core.keyframes.buffer import KeyframeBuffer
from s4net_core.keyframes.view import Keyframe, Offer

__all__ = ["Keyframe", "KeyframeBuffer", "Offer"]
