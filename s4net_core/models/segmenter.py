"""The `Segmenter`: labels images while its weights are replaced."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.labels import UNLABELLED
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint, warn_of_other_network
from s4net_core.models.predict import pick_device, predict_depth, to_array, working_images
from s4net_core.models.runtimes import Backend, open_backend
from s4net_core.models.scaled_logits import ScaledLogits


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of one image.

    Args:
        label: (H, W) uint8 class ids, 0 = of no class, or less confident than `segmentation.min_confidence`.
        version: of the weights; one image is labelled by one version alone.
        logits: what the labels were taken from.
    """

    label: NDArray[np.uint8]
    version: int
    logits: ScaledLogits

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32, probability 0..1 of the most probable class; computed when it is first asked for."""
        return to_array(self.logits.confidence)


class Segmenter:
    """Labels images while its weights are replaced.

    There are two copies of the network. New weights go into the one that does not serve; then the two change places
    between two frames. A frame therefore never sees a mixture, and weights that are refused change nothing.
    All methods may be called from any thread.

    Args:
        checkpoint: weights file to start with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: groups `model` (working size; 0 = that in the file), `learner.amp` and `segmentation` (runtime,
            execution provider, and `min_confidence`, which is read at every frame).

    Raises:
        CheckpointError: the file is refused.
        SettingsError, ExportError: with `segmentation.runtime` onnx, see `OnnxBackend`.
    """

    def __init__(self, checkpoint: str | Path, device: str | torch.device, settings: Settings) -> None:
        self._device = pick_device(device)
        backend = open_backend(checkpoint, self._device, settings)
        warn_of_other_network(checkpoint, backend.info.model, settings.model)
        self._settings = settings.sized(backend.info.model)
        self._serving, self._spare = _Copy(backend), _Copy(backend.twin())
        self._loading = threading.Lock()

    @property
    def info(self) -> CheckpointInfo:
        """Description of the weights that serve now."""
        return self._serving.backend.info

    @property
    def device(self) -> torch.device:
        """Where labels are computed: never ``auto``, and with ONNX Runtime the device of its provider."""
        return self._serving.backend.device

    @property
    def settings(self) -> Settings:
        """The settings in use, with the working size."""
        return self._settings

    def load(self, path: str | Path, sha256: str = "") -> CheckpointInfo:
        """Take over the weights of a file, from the next frame on.

        Args:
            path: weights file of the same architecture, encoder and classes.
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
        images = working_images([color], self._settings, self._device)
        with self._lease() as backend:
            logits = ScaledLogits(backend.logits(images), color.shape[:2])
            space, version = backend.network.label_space, backend.info.version
        label, least = logits.label, self._settings.segmentation.min_confidence
        if least > 0:
            label = label.masked_fill(logits.confidence < least, UNLABELLED)
        return Segmentation(space.without_no_class(to_array(label)), version, logits)

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
                if copy is self._serving:  # the copies may have changed places while we waited
                    yield copy.backend
                    return


class _Copy:
    """One of the two copies, and the lock that guards it."""

    def __init__(self, backend: Backend) -> None:
        self.lock = threading.Lock()
        self.backend = backend
