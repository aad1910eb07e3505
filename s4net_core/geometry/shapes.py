"""Shape checks where tensors and arrays enter the geometry."""

from typing import Any

import torch
from numpy.typing import NDArray

from s4net_core.errors import ShapeError

Dimension = int | str


def check_shape(name: str, tensor: torch.Tensor | NDArray[Any], *dimensions: Dimension, **sizes: int) -> None:
    """Refuse a tensor whose shape is not the documented one.

    Args:
        name: the argument's name, for the message.
        tensor: to be checked.
        dimensions: a number must match exactly, a letter only if `sizes` gives its value.
        sizes: values of letters that are already known.

    Raises:
        ShapeError: number of dimensions or a size differs.
    """
    expected = [sizes.get(d, d) if isinstance(d, str) else d for d in dimensions]
    if tensor.ndim != len(expected) or any(
        isinstance(wanted, int) and size != wanted for size, wanted in zip(tensor.shape, expected, strict=True)
    ):
        wanted_text = ", ".join(map(str, expected))
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}: it must be ({wanted_text})")
