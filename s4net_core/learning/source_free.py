"""What stands in for a source set where there is none: the base model's own predictions of the keyframes."""

import copy
from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.config import LearnerSettings
from s4net_core.keyframes import Keyframe
from s4net_core.learning.source_loss import SourceLoss, distillation_loss
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import ClassFrequencies
from s4net_core.models.build import Outputs, SegmentationNetwork


class SourceFree:
    """Keeps a network from forgetting: what its base model says of each view is learned as well, rare classes have a
    weight, and the weights that are handed over stay between those of the base model and the learned ones.

    Args:
        base: the base model.
        teacher: of the base model, never refreshed.
        settings: `distillation`, `auxiliary_weight`, `class_weight_power` and `base_share`.
    """

    def __init__(self, base: SegmentationNetwork, teacher: Teacher, settings: LearnerSettings) -> None:
        self._base = base
        self._teacher = teacher
        self._settings = settings
        self._pixels: dict[int, tuple[tuple[int, int], NDArray[np.int64]]] = {}
        """By id of a view: its key, and the number of pixels of each class in its labels, (C,)."""

    def loss(self, outputs: Outputs, views: list[Keyframe]) -> SourceLoss:
        """Distillation of the base model on target views, whose outputs these are."""
        return distillation_loss(outputs, *self._teacher.predictions(views), self._settings)

    def is_counted(self, view: Keyframe) -> bool:
        """Whether the labels of a view were counted at its present pose."""
        return view.id in self._pixels and self._pixels[view.id][0] == view.key

    def count(self, view: Keyframe, label: NDArray[np.uint8]) -> None:
        """Count the merged labels of a view for the class weights: (H, W) uint8, 0 = none; a second time replaces."""
        classes = self._base.num_classes
        pixels = np.bincount(label.ravel(), minlength=classes + 1)[1 : classes + 1]
        self._pixels[view.id] = view.key, pixels

    def forget(self, but: Collection[int] = ()) -> None:
        """Forget the labels that were counted, except of the views with these ids."""
        self._pixels = {id: counted for id, counted in self._pixels.items() if id in but}

    @property
    def class_weights(self) -> Tensor:
        """(C,) float32 median-frequency weights by the labels that were counted, tempered by `class_weight_power`."""
        frequencies = ClassFrequencies(self._base.num_classes)
        for _, pixels in self._pixels.values():
            frequencies.add_pixels(pixels)
        return frequencies.median_weights() ** self._settings.class_weight_power

    @torch.no_grad()
    def blended(self, learned: SegmentationNetwork) -> SegmentationNetwork:
        """A network between the base model and the learned one (WiSE-FT, Wortsman et al., CVPR 2022)."""
        network, base = copy.deepcopy(learned), self._base.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(base[name], self._settings.base_share)
        return network

    def learned(self, served: Mapping[str, Tensor], base_share: float) -> dict[str, Tensor]:
        """The weights of which `blended` has made those that serve: learning goes on from them, not from the blend.

        Args:
            served: state of the network.
            base_share: share of the base model in it; with 0 and 1 nothing can be told apart, and it is returned.
        """
        if base_share in (0, 1):
            return dict(served)
        base = self._base.state_dict()
        return {
            name: base[name].lerp(value, 1 / (1 - base_share)) if value.is_floating_point() else value
            for name, value in served.items()
        }
