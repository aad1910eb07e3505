"""Reads captures: one module per format, code that several formats share, and `opening`, which picks the format."""

from typing import Literal

Extra = Literal["color", "overlay", "labelme"]
EXTRAS: tuple[Extra, ...] = ("color", "overlay", "labelme")
"""Forms of the labels that can be written beside the class ids."""
