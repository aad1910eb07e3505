"""Colour in, labels and depth out: a network's predictions for images, as pure functions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from s4net_core.config import Settings
from s4net_core.errors import BadFrame, CheckpointError, SettingsError
from s4net_core.geometry.camera import resize_color, unit_range
from s4net_core.models.build import Outputs, SegmentationNetwork
from s4net_core.models.scaled_logits import ScaledLogits

BATCH = 4
"""Images that `predict_labels` gives to the network at once."""


def predict_labels(
    network: SegmentationNetwork, colors: Sequence[NDArray[np.uint8]], settings: Settings, device: torch.device
) -> list[NDArray[np.uint8]]:
    """The most probable class of every pixel, computed as `Segmenter.segment` does.

    Args:
        network: on `device`.
        colors: (H, W, 3) uint8 RGB each, any sizes.
        settings: groups `model` (working size) and `learner.amp`.
        device: where to compute.

    Returns:
        (H, W) uint8 class ids 1..C an image, at its own size.

    Raises:
        BadFrame: ``color_format`` when one of `colors` is something else.
    """
    amp = settings.learner.amp
    return labels_from(lambda _, images: (forward(network, images, amp=amp), None), colors, settings, device)


def labels_from(
    logits_of: Callable[[slice, Tensor], tuple[Tensor, float | None]],
    colors: Sequence[NDArray[np.uint8]],
    settings: Settings,
    device: torch.device,
) -> list[NDArray[np.uint8]]:
    """As `predict_labels`, whatever makes the logits.

    Args:
        logits_of: which of the images, and these at the working size, (B, 3, h, w) -> (B, C, ., .) float32 and their
            `upsampling`, as `ScaledLogits` takes them.
        colors, settings, device: as `predict_labels`.
    """
    labels: list[NDArray[np.uint8]] = []
    for start in range(0, len(colors), BATCH):
        part = slice(start, start + BATCH)
        logits, upsampling = logits_of(part, working_images(colors[part], settings, device))
        for i, color in enumerate(colors[part]):
            labels.append(to_array(ScaledLogits(logits[i : i + 1], color.shape[:2], upsampling=upsampling).label))
    return labels


def predict_depth(
    network: SegmentationNetwork, color: NDArray[np.uint8], settings: Settings, device: torch.device
) -> NDArray[np.float32]:
    """Depth of one image, computed as `Segmenter.depth` does.

    Args:
        network: on `device`.
        color: (H, W, 3) uint8 RGB, any size.
        settings: groups `model` (working size) and `learner.amp`.
        device: where to compute.

    Returns:
        (H, W) float32, metres, positive.

    Raises:
        BadFrame: ``color_format`` when `color` is something else.
        CheckpointError: the network has no depth decoder.
    """
    depth = all_outputs(network, working_images([color], settings, device), amp=settings.learner.amp).depth
    if depth is None:
        raise CheckpointError(
            "these weights have no depth decoder: train some with `s4net pretrain --set model.depth_decoder=true`"
        )
    if tuple(depth.shape[-2:]) != color.shape[:2]:
        depth = F.interpolate(depth, size=color.shape[:2], mode="bilinear", align_corners=False)
    return to_array(depth[0, 0])


@torch.no_grad()
def forward(network: SegmentationNetwork, images: Tensor, *, amp: bool = True) -> Tensor:
    """Logits in evaluation mode; the network's own mode is restored afterwards.

    Args:
        network: on the images' device.
        images: (B, 3, H, W) float32, RGB, 0..1.
        amp: mixed precision on CUDA.

    Returns:
        (B, C, H, W) float32, a constant for the gradient.
    """
    with at_work(network, images, amp=amp):
        return network(images).float()  # type: ignore[no-any-return]


@torch.no_grad()
def all_outputs(network: SegmentationNetwork, images: Tensor, *, amp: bool = True) -> Outputs:
    """Logits and, where the network has a decoder for it, depth, as float32; arguments as `forward`."""
    with at_work(network, images, amp=amp):
        outputs = network.outputs(images)
    return Outputs(outputs.logits.float(), None, outputs.depth)


def working_images(colors: Sequence[NDArray[np.uint8]], settings: Settings, device: torch.device) -> Tensor:
    """Images of any sizes as networks take them.

    Args:
        colors: (H, W, 3) uint8 RGB each.
        settings: group `model` (working size).
        device: where the result lives.

    Returns:
        (B, 3, height, width) float32, 0..1, at the working size.

    Raises:
        BadFrame: ``color_format`` when one of `colors` is something else.
    """
    for color in colors:
        if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8 or color.size == 0:
            raise BadFrame("color_format", f"colour is {color.shape} {color.dtype}: it must be (H, W, 3) uint8 RGB")
    return to_tensor([resize_color(color, *settings.model.size) for color in colors], device)


def to_tensor(colors: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Images of one size, each (H, W, 3) uint8 RGB -> (B, 3, H, W) float32, 0..1, on the device."""
    stacked = torch.from_numpy(np.stack(colors))
    if device.type == "cuda":
        stacked = stacked.pin_memory()  # else the copy would wait for all that the GPU does
    return unit_range(stacked.to(device, non_blocking=True).permute(0, 3, 1, 2).contiguous())


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values in the memory of the computer, once the device has computed them."""
    if not tensor.is_cuda:
        return tensor.numpy()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host.numpy()


def pick_device(name: str | torch.device) -> torch.device:
    """The device that a setting means; ``auto`` = the first GPU, or the CPU where there is none.

    Raises:
        SettingsError: unknown, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device is '{name}': use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device is '{name}': use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device is '{name}' but this machine has {torch.cuda.device_count()} usable CUDA devices: use auto or cpu"
        )
    return device


@contextmanager
def at_work(network: SegmentationNetwork, images: Tensor, *, amp: bool) -> Iterator[None]:
    """The network in evaluation mode, and in mixed precision on CUDA with `amp`; afterwards as it was."""
    was_training = network.training
    if was_training:
        network.eval()
    try:
        with torch.autocast(images.device.type, enabled=amp and images.device.type == "cuda"):
            yield
    finally:
        if was_training:
            network.train()
