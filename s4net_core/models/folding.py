"""Networks that only predict: their batch norms become part of the convolutions before them."""

import copy
import logging
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from s4net_core.models.build import Outputs, SegmentationNetwork, batch_norms

log = logging.getLogger(__name__)

FOLDABLE = (nn.Conv2d, Conv2dSame)
"""Their subclasses may compute with other weights than those they keep."""
TOLERANCE = 0.02
"""Largest change of an output, as a share of the largest one: rounding makes 1e-6, or 2e-3 with TF32."""


@torch.no_grad()
def folded(network: SegmentationNetwork) -> SegmentationNetwork:
    """A network that only predicts: the same up to rounding, in about a tenth less time on a CPU.

    Args:
        network: any. A batch norm that no convolution of its own precedes stays.

    Returns:
        In evaluation mode, without gradient. All that could not be folded shares the memory of `network`, so that it is
        right only as long as the weights of `network` stay as they are.
    """
    made = _sharing(network)
    # As large as the images to come, because some networks take no other size.
    image = torch.rand(
        1, 3, network.settings.height, network.settings.width, generator=torch.Generator().manual_seed(0)
    )
    image = image.to(network.mean.device)
    expected, pairs = _followed(made, image)
    if not pairs:
        return made
    names = {module: name for name, module in made.named_modules()}
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # of timm's layers
        parent, _, child = names[norm].rpartition(".")
        setattr(made.get_submodule(parent), child, nn.Sequential(*rest))
    if _equal(made.outputs(image), expected):
        return made
    # Something else reads what a convolution says before its batch norm.
    log.warning("batch norms of %s are not folded, because its outputs would change", network.settings.encoder)
    return _sharing(network)


def _sharing(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy of the modules with the same tensors, in evaluation mode and without gradient."""
    tensors: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    tensors |= {id(buffer): buffer for buffer in network.buffers()}
    return copy.deepcopy(network, tensors).eval()


def _followed(network: SegmentationNetwork, image: torch.Tensor) -> tuple[Outputs, list[tuple[nn.Conv2d, Any]]]:
    """Outputs, and each batch norm whose input is what a convolution says, with it, where both are used once."""
    said: dict[int, tuple[torch.Tensor, nn.Conv2d]] = {}  # the tensor is kept, so that its id stays its own
    used = Counter[nn.Module]()
    pairs: list[tuple[nn.Conv2d, Any]] = []

    def convolved(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        used[module] += 1
        said[id(output)] = output, module

    def normalises(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        used[norm] += 1
        if id(inputs[0]) in said:
            pairs.append((said[id(inputs[0])][1], norm))

    hooks = [m.register_forward_hook(convolved) for m in network.modules() if type(m) in FOLDABLE]
    hooks += [norm.register_forward_pre_hook(normalises) for norm in batch_norms(network)]
    outputs = network.outputs(image)
    for hook in hooks:
        hook.remove()
    return outputs, [pair for pair in pairs if all(used[module] == 1 for module in pair)]


def _equal(outputs: Outputs, expected: Outputs) -> bool:
    parts = zip(*((part.logits, part.depth) for part in (outputs, expected)), strict=True)
    return all(
        bool((values - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
        for values, wanted in parts
        if values is not None and wanted is not None
    )
