"""Optional branches of a network: auxiliary segmentation, and a depth decoder on the same encoder."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import nn
from torch.nn import functional as F

from s4net_core.models.decoders import decoded

NEAREST, FARTHEST = 0.1, 100.0
"""Range of predicted depth, metres."""
FIRST_DEPTH = 2.0
"""Approximate depth that an untrained decoder predicts everywhere, metres."""
FIRST_SPREAD = 1e-3
"""Standard deviation of the first weights of the depth head: small, so that training starts at `FIRST_DEPTH`."""
AUXILIARY_DROPOUT = 0.1


class AuxiliaryHead(nn.Sequential):
    """Segmentation from the encoder's last but one stage (stage 4 of 5), trained beside the decoder.

    As in Zhao et al., *Pyramid Scene Parsing Network*: 3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution.

    Args:
        encoder_channels: channels of the encoder's feature maps, finest first.
        classes: number of classes.
    """

    def __init__(self, encoder_channels: Sequence[int], classes: int) -> None:
        inner = max(encoder_channels[-2] // 4, 1)
        super().__init__(
            nn.Conv2d(encoder_channels[-2], inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Dropout2d(AUXILIARY_DROPOUT),
            nn.Conv2d(inner, classes, 1),
        )
        initialize_decoder(self)

    def logits(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits (B, C, H, W) at `size` = (H, W) from the encoder's feature maps."""
        small: torch.Tensor = self(features[-2])
        return F.interpolate(small, size=size, mode="bilinear", align_corners=False)


class DepthBranch(nn.Module):
    """A second decoder of the same architecture as the segmentation's, with parameters of its own (paper: sec. 3.3).

    The head's value x becomes a disparity between those of `FARTHEST` and `NEAREST` by a sigmoid: depth is positive
    and finite whatever the weights are, and within a room it changes by about the same share with each unit of x.

    Args:
        decoder, head: of the segmentation; their structure is taken, not their weights.
    """

    def __init__(self, decoder: nn.Module, head: Any) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(decoder)
        initialize_decoder(self.decoder)
        self.head = copy.deepcopy(head)
        old: Any
        name, old = [(name, layer) for name, layer in head.named_modules() if isinstance(layer, nn.Conv2d)][-1]
        last: Any = nn.Conv2d(old.in_channels, 1, old.kernel_size, padding=old.padding)
        above, _, own_name = name.rpartition(".")
        setattr(self.head.get_submodule(above), own_name, last)
        initialize_head(self.head)
        nn.init.normal_(last.weight, std=FIRST_SPREAD)
        share = (1 / FIRST_DEPTH - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)
        nn.init.constant_(last.bias, math.log(share / (1 - share)))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Depth (B, 1, H, W) float32, metres, from the encoder's feature maps."""
        value = self.head(decoded(self.decoder, features)).float()
        return 1 / (1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * torch.sigmoid(value))
