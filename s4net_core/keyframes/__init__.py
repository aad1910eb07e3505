"""Keyframes: which views are kept, how much they see of each other, and how they survive a restart."""

from s4net_core.keyframes.buffer import CHECK_POSES, DepthPrediction, KeyframeBuffer, buffer_for
from s4net_core.keyframes.pairing import PairCounts
from s4net_core.keyframes.queries import spread
from s4net_core.keyframes.view import REMEDIES, Decision, Keyframe, views_of

__all__ = [
    "CHECK_POSES",
    "REMEDIES",
    "Decision",
    "DepthPrediction",
    "Keyframe",
    "KeyframeBuffer",
    "PairCounts",
    "buffer_for",
    "spread",
    "views_of",
]
