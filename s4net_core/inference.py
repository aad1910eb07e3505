"""Colour in, labels (and depth) out: the network at work, and the `Segmenter` that changes its weights meanwhile."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from s4net_core.backends import Backend, open_backend
from s4net_core.backends import all_outputs as all_outputs
from s4net_core.backends import forward as forward
from s4net_core.config import Settings
from s4net_core.errors import BadFrame, CheckpointError, SettingsError
from s4net_core.geometry.camera import resize_color
from s4net_core.labels import UNLABELLED
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint

BATCH = 4
"""Images that `predict_labels` gives to the network at once."""
STRIP_ROWS = 16
"""Rows of an image whose most probable classes are looked up at once."""


@dataclass(frozen=True)
class Segmentation:
    """Labels of one image.

    Args:
        label: (H, W) uint8 class ids, 0 = less confident than `segmentation.min_confidence`.
        confidence: (H, W) float32, probability 0..1 of the most probable class.
        version: of the weights, all of them, that made it.
    """

    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    version: int


class Segmenter:
    """Labels images while its weights are replaced.

    There are two copies of the network. New weights go into the one that does not serve; then the two change places
    between two frames. A frame therefore never sees a mixture, and weights that are refused change nothing.
    All methods may be called from any thread.

    Args:
        checkpoint: weights file to start with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: groups `model` (label space and working size), `learner.amp` and `segmentation` (runtime, execution
            provider, and `min_confidence`, which is read at every frame).

    Raises:
        CheckpointError: the file is refused, or its label space is not the one in the settings.
        SettingsError, ExportError: with `segmentation.runtime` onnx, see `OnnxBackend`.
    """

    def __init__(self, checkpoint: str | Path, device: str | torch.device, settings: Settings) -> None:
        self._settings = settings
        self._device = pick_device(device)
        backend = open_backend(checkpoint, self._device, settings)
        _check_label_space(checkpoint, backend.info, settings)
        self._serving, self._spare = _Copy(backend), _Copy(backend.twin())
        self._loading = threading.Lock()

    @property
    def info(self) -> CheckpointInfo:
        """Description of the weights that serve now."""
        return self._serving.backend.info

    @property
    def settings(self) -> Settings:
        """With which it works."""
        return self._settings

    def load(self, path: str | Path, sha256: str = "") -> CheckpointInfo:
        """Take over the weights of a file, from the next frame on.

        Args:
            path: weights file of the same architecture, encoder and label space.
            sha256: hash that the file must have; empty = any.

        Raises:
            CheckpointError: the file is refused; the old weights keep serving.
            ExportError: they cannot be served as ONNX; the old ones keep serving.
        """
        with self._loading:
            with self._spare.lock:
                self._spare.backend.load(path, sha256)
            self._serving, self._spare = self._spare, self._serving
            return self.info

    def segment(self, color: NDArray[np.uint8]) -> Segmentation:
        """Label one image.

        The image is labelled at the working size. Logits are scaled to the image's size bilinearly before the most
        probable class is taken, so that borders between classes are smooth.

        Args:
            color: (H, W, 3) uint8 RGB, any size.

        Raises:
            BadFrame: ``color_format`` when `color` is something else.
        """
        _check_color(color)
        size = (self._settings.model.width, self._settings.model.height)
        images = to_tensor([resize_color(color, *size)], self._device)
        with self._lease() as backend:
            logits = backend.logits(images)
            label, confidence = most_probable(logits, color.shape[:2])
            label[confidence < self._settings.segmentation.min_confidence] = UNLABELLED
            return Segmentation(label[0].cpu().numpy(), confidence[0].cpu().numpy(), backend.info.version)

    def depth(self, color: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth of one image, predicted at the working size and scaled to the image's bilinearly.

        Args:
            color: (H, W, 3) uint8 RGB, any size.

        Returns:
            (H, W) float32, metres, positive.

        Raises:
            BadFrame: ``color_format`` when `color` is something else.
            CheckpointError: the weights that serve have no depth decoder.
        """
        _check_color(color)
        with self._lease() as backend:
            return predict_depth(backend.network, color, self._settings, self._device)

    def forward(self, images: Tensor) -> Tensor:
        """The bare network, as `segment` runs it: (B, 3, H, W) float32 RGB 0..1 -> logits (B, C, H, W) float32."""
        with self._lease() as backend:
            return backend.logits(images)

    def save(self, path: str | Path, *, half: bool = False) -> str:
        """Write the weights that serve now; arguments, result and errors as `save_checkpoint`."""
        with self._lease() as backend:
            return save_checkpoint(path, backend.network, backend.info, half=half)

    @contextmanager
    def _lease(self) -> Iterator[Backend]:
        """The serving copy, held so that `load` cannot write into it meanwhile."""
        while True:
            copy = self._serving
            with copy.lock:
                if copy is self._serving:  # it may have become the spare one while we waited for it
                    yield copy.backend
                    return


class _Copy:
    """One of the two copies, and the lock that guards it."""

    def __init__(self, backend: Backend) -> None:
        self.lock = threading.Lock()
        self.backend = backend


def _check_label_space(checkpoint: str | Path, info: CheckpointInfo, settings: Settings) -> None:
    if info.model.label_space != settings.model.label_space:
        raise CheckpointError(
            f"weights file {checkpoint} predicts {info.model.label_space} but model.label_space is "
            f"'{settings.model.label_space}': change the setting or use other weights"
        )


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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device is '{name}' but this machine has {torch.cuda.device_count()} usable CUDA devices: use auto or cpu"
        )
    return device


def to_tensor(colors: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Images of one size, each (H, W, 3) uint8 RGB -> (B, 3, H, W) float32, 0..1, on the device."""
    stacked = torch.from_numpy(np.stack(colors)).to(device)
    return stacked.permute(0, 3, 1, 2).contiguous().float().div_(255.0)


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
    """
    labels: list[NDArray[np.uint8]] = []
    size = (settings.model.width, settings.model.height)
    for start in range(0, len(colors), BATCH):
        batch = colors[start : start + BATCH]
        logits = forward(network, to_tensor([resize_color(c, *size) for c in batch], device), amp=settings.learner.amp)
        for i, color in enumerate(batch):
            labels.append(most_probable(logits[i : i + 1], color.shape[:2])[0][0].cpu().numpy())
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
        CheckpointError: the network has no depth decoder.
    """
    images = to_tensor([resize_color(color, settings.model.width, settings.model.height)], device)
    depth = all_outputs(network, images, amp=settings.learner.amp).depth
    if depth is None:
        raise CheckpointError(
            "these weights have no depth decoder: train some with `s4net pretrain --set model.depth_decoder=true`"
        )
    if tuple(depth.shape[-2:]) != color.shape[:2]:
        depth = F.interpolate(depth, size=color.shape[:2], mode="bilinear", align_corners=False)
    return np.asarray(depth[0, 0].cpu().numpy(), dtype=np.float32)


@torch.no_grad()
def most_probable(logits: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Class and its probability at another size; logits are scaled bilinearly.

    Args:
        logits: (B, C, h, w) float32.
        size: (H, W).

    Returns:
        (B, H, W) uint8 class ids 1..C, 0 where logits are NaN, and (B, H, W) float32 probability 0..1, NaN there.
    """
    if tuple(logits.shape[-2:]) != tuple(size):
        logits = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    # In strips that fit the processor's cache: twice as fast as whole images.
    strips = [_most_probable(strip) for strip in logits.split(STRIP_ROWS, dim=2)]
    label, confidence = (torch.cat(parts, dim=1) for parts in zip(*strips, strict=True))
    return label, confidence


def _most_probable(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax at its maximum is 1 / Σ exp(logit - highest), which needs no division by pixel and class.

    The class is the first that has the highest logit, found by comparison: `max` with indices takes ten times as long
    as `amax` on a CPU.
    """
    classes = logits.shape[1]
    highest = logits.amax(dim=1, keepdim=True)
    backwards = torch.arange(classes, 0, -1, dtype=torch.uint8, device=logits.device).view(1, -1, 1, 1)
    first = ((logits == highest) * backwards).amax(dim=1)  # C for class 1, 1 for class C, 0 where nothing is a number
    label = torch.where(first > 0, classes + 1 - first, UNLABELLED)
    confidence = logits.sub(highest).exp_().sum(dim=1).reciprocal_()
    return label, confidence


def _check_color(color: NDArray[np.uint8]) -> None:
    if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8 or color.size == 0:
        raise BadFrame("color_format", f"colour is {color.shape} {color.dtype}: it must be (H, W, 3) uint8 RGB")
