"""Networks that only predict: their batch norms become part of the convolutions before them."""

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from s4net_core.models.build import SegmentationNetwork, batch_norms

FOLDABLE = (nn.Conv2d, Conv2dSame)
"""Their subclasses may compute with other weights than those they keep."""
SIDE = 64
"""Pixels of the image that is looked at to find out what follows what."""
TOLERANCE = 1e-3
"""Largest change of an output for this image, as a share of the largest output; rounding makes about 1e-6."""


@torch.no_grad()
def folded(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy that only predicts: the same up to rounding, in a tenth less time on a CPU.

    Args:
        network: any. A batch norm that no convolution of its own precedes stays in the copy.

    Returns:
        In evaluation mode and in the memory format ``channels_last``, without gradient. New weights need a new copy.
    """
    whole = copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    made = copy.deepcopy(whole)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(network.mean.device)
    expected, names = whole.outputs(image), {module: name for name, module in made.named_modules()}
    for convolution, norm in _pairs(made, image):
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # of timm's layers
        made.set_submodule(names[norm], nn.Sequential(*rest))
    outputs = made.outputs(image)
    # If something else reads what a convolution says before its batch norm, the outputs are others.
    same = _close(outputs.logits, expected.logits)
    if outputs.depth is not None and expected.depth is not None:
        same = same and _close(outputs.depth, expected.depth)
    return made if same else whole


def _pairs(network: SegmentationNetwork, image: torch.Tensor) -> list[tuple[nn.Conv2d, Any]]:
    """Each batch norm whose input is the output of a convolution, with it, where both are used once."""
    outputs: dict[int, tuple[torch.Tensor, nn.Conv2d]] = {}  # the tensor is kept, so that its id stays its own
    used = Counter[nn.Module]()
    pairs: list[tuple[nn.Conv2d, Any]] = []

    def convolved(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        used[module] += 1
        outputs[id(output)] = output, module

    def normalises(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        used[norm] += 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][1], norm))

    hooks = [m.register_forward_hook(convolved) for m in network.modules() if type(m) in FOLDABLE]
    hooks += [norm.register_forward_pre_hook(normalises) for norm in batch_norms(network)]
    network.outputs(image)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if all(used[module] == 1 for module in pair)]


def _close(values: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((values - expected).abs().max() <= TOLERANCE * expected.abs().max())
