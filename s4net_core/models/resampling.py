"""Logits at another size than the image's: upsampling in the head and scaling afterwards are one map."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.decoders import decoded
from s4net_core.models.predict import at_work, forward

SMOOTH: dict[str, Any] = {"mode": "bilinear", "align_corners": False, "antialias": True}
"""How images and logits are scaled: bilinearly, and averaged where they shrink."""


@torch.no_grad()
def logits_at(network: SegmentationNetwork, images: Tensor, size: tuple[int, int], *, amp: bool = True) -> Tensor:
    """Logits in evaluation mode, scaled by `SMOOTH`.

    Where the head ends in a bilinear upsampling, as with DeepLabV3+ and PSPNet, that and the scaling are one matrix for
    the rows and one for the columns: the logits at the image's size, which cost more than the head, are never made.
    The result is the same up to rounding.

    Args:
        network: on the images' device; its mode is restored afterwards.
        images: (B, 3, H, W) float32, RGB, 0..1.
        size: (height, width) of the result.
        amp: mixed precision on CUDA.

    Returns:
        (B, C, height, width) float32, a constant for the gradient.
    """
    upsampling = bilinear_end(network)
    if upsampling is None:
        return F.interpolate(forward(network, images, amp=amp), size=size, **SMOOTH)
    with at_work(network, images, amp=amp):
        small = small_logits(network, network.encode(images))
    height, width = images.shape[2:]
    rows = _map_of_side(upsampling, small.shape[2], height, size[0]).to(small.device)
    columns = _map_of_side(upsampling, small.shape[3], width, size[1]).to(small.device)
    return rows @ (small.contiguous() @ columns.T)


def bilinear_end(network: SegmentationNetwork) -> nn.Upsample | None:
    """The bilinear upsampling in which the head ends; None = it ends otherwise."""
    head = getattr(network.body, "segmentation_head", None)
    if not isinstance(head, nn.Sequential) or len(head) != 3:
        return None
    layer = head[1]  # the activation behind it is none: networks are built without
    return layer if isinstance(layer, nn.Upsample) and layer.mode == "bilinear" else None


def aligned_upsampling(network: SegmentationNetwork) -> float | None:
    """The factor of `bilinear_end` if that scales corners onto corners; None = it does not, or there is none."""
    end = bilinear_end(network)
    if end is None or not end.align_corners or not isinstance(end.scale_factor, float):
        return None
    return end.scale_factor


def small_logits(network: SegmentationNetwork, features: Sequence[Tensor]) -> Tensor:
    """What `bilinear_end` would upsample, (B, C, h, w) float32, from `features` that the network's `encode` gave."""
    logits: Tensor = network.body.segmentation_head[0](decoded(network.body.decoder, features))
    return logits.float()


def _map_of_side(upsampling: nn.Module, before: int, cropped: int, after: int) -> Tensor:
    """(after, before): what `upsampling`, a crop to `cropped` pixels and `SMOOTH` do to the values along a side."""
    unit = torch.eye(before).view(1, before, before, 1)  # a channel for each value that is 1
    upsampled = upsampling(unit.repeat(1, 1, 1, 2))[:, :, :cropped]  # PyTorch scales images of one column wrongly
    return F.interpolate(upsampled, size=(after, upsampled.shape[3]), **SMOOTH)[0, :, :, 0].T
