"""Keyframes: which views are kept, how much they see of each other, and how they survive a restart."""

from s4net_core.keyframes.buffer import DepthPrediction, KeyframeBuffer
from s4net_core.keyframes.pairs import Pairs, depth_of, pairs_of
from s4net_core.keyframes.view import Keyframe, Offer

__all__ = ["DepthPrediction", "Keyframe", "KeyframeBuffer", "Offer", "Pairs", "depth_of", "pairs_of"]
