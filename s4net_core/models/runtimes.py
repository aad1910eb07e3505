"""What computes logits for the `Segmenter`: PyTorch, or ONNX Runtime on a graph of the same network."""

import copy
import logging
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, load_checkpoint, load_weights
from s4net_core.models.folding import Folding
from s4net_core.models.onnx_model import OnnxModel, OnnxTemplate, compare_with_torch, pick_provider
from s4net_core.models.predict import forward

log = logging.getLogger(__name__)


class Backend(Protocol):
    """One copy of the weights, ready to answer. Not safe against calls from several threads.

    `network` holds the weights that answer, `info` describes them, and `device` is where they compute.
    """

    network: SegmentationNetwork
    info: CheckpointInfo
    device: torch.device

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB 0..1 at the working size -> (B, C, H, W) float32, a constant for the gradient."""
        ...

    def load(self, path: str | Path, sha256: str) -> None:
        """Take over the weights of a file, or raise `CheckpointError` or `ExportError` and change nothing."""
        ...

    def twin(self) -> "Backend":
        """A second copy that answers alike and can take other weights."""
        ...


class TorchBackend:
    """The network itself.

    Args:
        checkpoint: weights file.
        device: where to compute.
        settings: group `learner.amp`.
    """

    def __init__(self, checkpoint: str | Path, device: torch.device, settings: Settings) -> None:
        network, self.info = load_checkpoint(checkpoint, device=device)
        self.network = network.to(memory_format=torch.channels_last)  # faster on CPUs and on tensor cores
        self._folding = Folding(self.network)
        self._amp = settings.learner.amp
        self.device = device

    def logits(self, images: Tensor) -> Tensor:
        """As `Backend`."""
        return forward(self._folding.network, images, amp=self._amp)

    def load(self, path: str | Path, sha256: str) -> None:
        """As `Backend`."""
        self.info = load_weights(self.network, path, sha256)
        self._folding.renew()

    def twin(self) -> "TorchBackend":
        """As `Backend`."""
        return _with_own_network(self)


class OnnxBackend:
    """A graph of the network, filled with weights when they are loaded and compared with PyTorch before it serves.

    Args:
        checkpoint: weights file.
        device: where images come from.
        settings: groups `model` (working size) and `segmentation.execution_provider`.

    Raises:
        SettingsError: no such execution provider on this machine.
        ExportError: the graph does not answer as PyTorch does.
    """

    def __init__(self, checkpoint: str | Path, device: torch.device, settings: Settings) -> None:
        self._images_on = device
        self._provider = pick_provider(settings.segmentation.execution_provider, device)
        self.network, self.info = load_checkpoint(checkpoint, device=device)
        self._folding = Folding(self.network)
        self._template = OnnxTemplate(self._folding.network, *settings.model.sized(self.info.model).size)
        self._graph = self._fill(self.info, file_sha256(checkpoint))
        self.device = self._graph.device

    def logits(self, images: Tensor) -> Tensor:
        """As `Backend`."""
        return self._graph.logits(images)

    def load(self, path: str | Path, sha256: str) -> None:
        """As `Backend`; an `ExportError` leaves weights here that no graph serves, until others are loaded."""
        info = load_weights(self.network, path, sha256)
        self._folding.renew()
        self._graph, self.info = self._fill(info, sha256), info

    def twin(self) -> "OnnxBackend":
        """As `Backend`; the graph is shared, since `load` replaces it."""
        return _with_own_network(self)

    def _fill(self, info: CheckpointInfo, sha256: str) -> OnnxModel:
        network = self._folding.network
        graph = OnnxModel(self._template.fill(network, info, sha256), self._provider, self._images_on)
        compared = compare_with_torch(graph, network, images=1)
        compared.check()
        log.info("ONNX on %s: logits within %.2g of PyTorch's", graph.provider, compared.logit_error)
        return graph


B = TypeVar("B", TorchBackend, OnnxBackend)


def _with_own_network(backend: B) -> B:
    twin = copy.copy(backend)
    twin.network = copy.deepcopy(backend.network)
    twin._folding = Folding(twin.network)  # a deep copy would share no memory with its network
    return twin


def open_backend(checkpoint: str | Path, device: torch.device, settings: Settings) -> Backend:
    """The backend that `segmentation.runtime` asks for.

    Raises:
        CheckpointError: the file is refused.
        SettingsError, ExportError: as `OnnxBackend`.
    """
    kind = OnnxBackend if settings.segmentation.runtime == "onnx" else TorchBackend
    return kind(checkpoint, device, settings)
