"""The losses that keep a network from forgetting: on labelled images, or on what the base model predicts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from s4net_core.config import LearnerSettings
from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.losses import depth_supervised_loss, geometric_loss, supervised_loss
from s4net_core.models.build import Outputs


@dataclass(frozen=True)
class SourceLoss:
    """Losses of one batch of source images, or of the target images without a source set; scalars with gradient.

    Args:
        total: L_S + `learner.auxiliary_weight` L_S of the auxiliary branch + L_DS; a missing branch adds 0.
        segmentation: L_S.
        auxiliary: L_S of the auxiliary branch, before its weight; 0 without one.
        depth: L_DS, metres; 0 without a depth decoder.
    """

    total: Tensor
    segmentation: Tensor
    auxiliary: Tensor
    depth: Tensor


def source_loss(
    outputs: Outputs,
    batch: SourceBatch,
    class_weights: Tensor,
    settings: LearnerSettings,
) -> SourceLoss:
    """Losses of a network's outputs for a batch (paper: L_S, sec. 3.3: L_DS, and both branches of PSPNet).

    Args:
        outputs: of ``network.outputs(batch.images)`` in training mode.
        batch: on the same device.
        class_weights: (C,) from `median_frequency_weights`.
        settings: `auxiliary_weight`.
    """

    def of_logits(logits: Tensor) -> Tensor:
        return supervised_loss(logits, batch.labels, class_weights)

    return _all_branches(outputs, of_logits, batch.depth, settings)


def distillation_loss(
    outputs: Outputs, probabilities: Tensor, depth: Tensor | None, settings: LearnerSettings
) -> SourceLoss:
    """What takes the place of `source_loss` without a source set: the network should say what the base model says.

    Args:
        outputs: of ``network.outputs(images)`` in training mode.
        probabilities: (B, C, H, W), of the base model for the same images; constant.
        depth: (B, 1, H, W) metres, of the base model; None = it predicts none.
        settings: `distillation` and `auxiliary_weight`.
    """
    everywhere = torch.ones_like(probabilities[:, :1], dtype=torch.bool)

    def of_logits(logits: Tensor) -> Tensor:
        return geometric_loss(logits, probabilities, everywhere)

    loss = _all_branches(outputs, of_logits, depth, settings)
    return replace(loss, total=settings.distillation * loss.total)


def _all_branches(
    outputs: Outputs, of_logits: Callable[[Tensor], Tensor], depth: Tensor | None, settings: LearnerSettings
) -> SourceLoss:
    """A loss on logits, on both branches that have them, and L_DS against `depth`; None = no depth is compared."""
    segmentation = of_logits(outputs.logits)
    total, auxiliary, of_depth = segmentation, segmentation.new_zeros(()), segmentation.new_zeros(())
    if outputs.auxiliary is not None:
        auxiliary = of_logits(outputs.auxiliary)
        total = total + settings.auxiliary_weight * auxiliary
    if outputs.depth is not None and depth is not None:
        of_depth = depth_supervised_loss(outputs.depth, depth)
        total = total + of_depth
    return SourceLoss(total, segmentation, auxiliary, of_depth)
