"""The losses on labelled images, shared by pre-training and every step of adaptation."""

from dataclasses import dataclass

from torch import Tensor

from s4net_core.config import LearnerSettings
from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.losses import depth_supervised_loss, supervised_loss
from s4net_core.models.build import Outputs


@dataclass(frozen=True)
class SourceLoss:
    """Losses of one batch of source images, scalars with gradient.

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
    segmentation = supervised_loss(outputs.logits, batch.labels, class_weights)
    total, auxiliary, depth = segmentation, segmentation.new_zeros(()), segmentation.new_zeros(())
    if outputs.auxiliary is not None:
        auxiliary = supervised_loss(outputs.auxiliary, batch.labels, class_weights)
        total = total + settings.auxiliary_weight * auxiliary
    if outputs.depth is not None:
        depth = depth_supervised_loss(outputs.depth, batch.depth)
        total = total + depth
    return SourceLoss(total, segmentation, auxiliary, depth)
