"""Ordered pairs of views as tensors: what the warp needs to know about their cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s4net_core.keyframes.view import Keyframe


@dataclass(frozen=True)
class Pairs:
    """Cameras of P pairs of a target and a source view.

    Args:
        K_target: (P, 3, 3) float32, pixels.
        T_source_target: (P, 4, 4) float32, maps target camera coordinates to source camera coordinates.
        K_source: (P, 3, 3) float32, pixels.
    """

    K_target: Tensor
    T_source_target: Tensor
    K_source: Tensor


def pairs_of(targets: Sequence[Keyframe], sources: Sequence[Keyframe], device: torch.device) -> Pairs:
    """The n-th target with the n-th source."""
    T = [np.linalg.inv(s.T_world_camera) @ t.T_world_camera for t, s in zip(targets, sources, strict=True)]
    return Pairs(_cameras(targets, device), torch.from_numpy(np.stack(T)).float().to(device), _cameras(sources, device))


def depth_of(views: Sequence[Keyframe], device: torch.device) -> Tensor:
    """Kept depth of views of one size: (B, 1, H, W) float32, metres, 0 = none."""
    return torch.from_numpy(np.stack([view.depth for view in views])).unsqueeze(1).to(device)


def _cameras(views: Sequence[Keyframe], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack([view.intrinsics.matrix for view in views])).float().to(device)
