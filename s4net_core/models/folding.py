"""Networks that only predict: their batch norms become part of the convolutions before them."""

import copy
import logging
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from s4net_core.models.build import Outputs, SegmentationNetwork, batch_norms

log = logging.getLogger(__name__)

FOLDABLE = (nn.Conv2d, Conv2dSame)
"""Their subclasses may compute with other weights than those they keep."""
TOLERANCE = 0.02
"""Largest change of an output, as a share of the largest one: rounding makes 1e-6, or 2e-3 with TF32."""


def folded(network: SegmentationNetwork) -> SegmentationNetwork:
    """A network that only predicts: the same up to rounding, in about a tenth less time on a CPU; see `Folding`."""
    return Folding(network).network


class Folding:
    """A network that only predicts, made of another one, and made anew cheaply when that one's weights change.

    `network` answers as the other one up to rounding. It is in evaluation mode and has no gradient. All of it that
    could not be folded shares the memory of the other one, so that it is right only until that one's weights change;
    after that `renew` makes it right.

    Args:
        network: any. A batch norm that no convolution of its own precedes stays.
    """

    @torch.no_grad()
    def __init__(self, network: SegmentationNetwork) -> None:
        self._unfolded = network
        self.network = _sharing(network)
        # As large as the images to come, because some networks take no other size.
        image = torch.rand(
            1, 3, network.settings.height, network.settings.width, generator=torch.Generator().manual_seed(0)
        )
        image = image.to(network.mean.device)
        expected, pairs = _followed(self.network, image)
        names = {module: name for name, module in self.network.named_modules()}
        self._pairs = [(names[convolution], names[norm]) for convolution, norm in pairs]
        for _, norm in pairs:
            rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # of timm's layers
            parent, _, child = names[norm].rpartition(".")
            setattr(self.network.get_submodule(parent), child, nn.Sequential(*rest))
        self.renew()
        if pairs and not _equal(self.network.outputs(image), expected):
            # Something else reads what a convolution says before its batch norm.
            log.warning("batch norms of %s are not folded, because its outputs would change", network.settings.encoder)
            self.network, self._pairs = _sharing(network), []
        self._forget()  # an export would take what is kept for constants

    @torch.no_grad()
    def renew(self) -> None:
        """Fold again, after other weights were written into the memory of the other network."""
        for convolution, norm in self._pairs:
            old: Any = self._unfolded.get_submodule(convolution)
            n: Any = self._unfolded.get_submodule(norm)
            bias = None if old.bias is None else old.bias.detach()
            ours: Any = self.network.get_submodule(convolution)
            ours.weight, ours.bias = fuse_conv_bn_weights(
                old.weight.detach(), bias, n.running_mean, n.running_var, n.eps, n.weight, n.bias
            )
        self._forget()

    def _forget(self) -> None:
        """Drop what some of timm's layers keep of their weights while they predict."""
        self.network.train().eval()


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
    norms: list[Any] = batch_norms(network)
    hooks += [norm.register_forward_pre_hook(normalises) for norm in norms if norm.running_mean is not None]
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
