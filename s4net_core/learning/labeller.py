"""Labels of images that are shown to one set of weights after another: a frozen encoder sees each of them once."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.predict import at_work, labels_from, predict_labels
from s4net_core.models.resampling import aligned_upsampling, small_logits


class Labeller:
    """Predicts labels, from kept feature maps where the network has the encoder that made them.

    Args:
        features: of the learner's encoder, kept for the learner as well; None = the encoder learns.
        settings: groups `model` (working size) and `learner`.
        device: where the networks run.
    """

    def __init__(self, features: FeatureCache | None, settings: Settings, device: torch.device) -> None:
        self._features = features
        self._settings = settings
        self._device = device

    def labels(
        self, network: SegmentationNetwork, colors: Mapping[Hashable, NDArray[np.uint8]]
    ) -> list[NDArray[np.uint8]]:
        """The most probable class of every pixel, as `predict_labels` gives it; up to rounding from kept features.

        Args:
            network: its mode is restored afterwards.
            colors: (H, W, 3) uint8 RGB each, any sizes, by the key of their features.

        Returns:
            (H, W) uint8 class ids 1..C an image, at its own size, in the order of `colors`.
        """
        features, keys, shown = self._features, list(colors), list(colors.values())
        if features is None or not features.fit(network.state_dict()):
            return predict_labels(network, shown, self._settings, self._device)

        factor = aligned_upsampling(network)

        def logits_of(part: slice, images: Tensor) -> tuple[Tensor, float | None]:
            size = (images.shape[2], images.shape[3])
            with at_work(network, images, amp=self._settings.learner.amp):
                maps = features.features(keys[part], images)
                if factor is not None and all(color.shape[:2] == size for color in shown[part]):
                    return small_logits(network, maps), factor
                return network.decode(maps, size).logits.float(), None

        with torch.no_grad():
            return labels_from(logits_of, shown, self._settings, self._device)
