"""What stands in for a source set where there is none: the base model's own predictions of the keyframes."""

from torch import Tensor

from s4net_core.config import LearnerSettings
from s4net_core.keyframes import Keyframe
from s4net_core.learning.source_loss import SourceLoss, distillation_loss
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import ClassFrequencies
from s4net_core.models.build import Outputs


class SourceFree:
    """Keeps a network from forgetting by what its base model says of each view, and rare classes by their weight.

    Without L_S nothing else would: labels that many views share are those of large, frequent classes.

    Args:
        base: teacher of the base model, never refreshed.
        num_classes: number of classes.
        settings: `distillation`, `auxiliary_weight` and `class_weight_power`.
    """

    def __init__(self, base: Teacher, num_classes: int, settings: LearnerSettings) -> None:
        self._base = base
        self._settings = settings
        self._frequencies = ClassFrequencies(num_classes)
        self._counted: set[int] = set()

    def loss(self, outputs: Outputs, views: list[Keyframe]) -> SourceLoss:
        """Distillation of the base model on target views, whose outputs these are."""
        return distillation_loss(outputs, *self._base.predictions(views), self._settings)

    def class_weights(self, views: list[Keyframe], labels: Tensor) -> Tensor:
        """Class weights by the labels of all views so far, tempered by `class_weight_power`.

        Args:
            views: target views.
            labels: (B, H, W) int64 merged labels of them, 0 = none.

        Returns:
            (C,) float32, on the device of the labels.
        """
        for view, label in zip(views, labels.byte().cpu().numpy(), strict=True):
            if view.id not in self._counted:
                self._frequencies.add(label)
                self._counted.add(view.id)
        return (self._frequencies.median_weights() ** self._settings.class_weight_power).to(labels.device)
