"""Labelled source sets: one module per format, batches, and `opening`, which picks the format."""

from typing import Literal

Split = Literal["train", "test", "all"]
"""Part of the official split; a set without a split gives all its images for each."""
SPLITS: tuple[Split, ...] = ("train", "test")
"""The parts; "all" is both."""
