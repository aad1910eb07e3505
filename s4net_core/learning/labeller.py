"""Labels of images that are shown to one set of weights after another: a frozen encoder sees each of them once."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.predict import BATCH, predict_labels, to_array, working_images
from s4net_core.models.scaled_logits import ScaledLogits


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
        if self._features is None or not self._features.fit(network):
            return predict_labels(network, list(colors.values()), self._settings, self._device)
        was_training = network.training
        network.eval()
        try:
            return self._from_features(self._features, network, colors)
        finally:
            network.train(was_training)

    @torch.no_grad()
    def _from_features(
        self, features: FeatureCache, network: SegmentationNetwork, colors: Mapping[Hashable, NDArray[np.uint8]]
    ) -> list[NDArray[np.uint8]]:
        amp = self._settings.learner.amp and self._device.type == "cuda"
        keys, labels = list(colors), list[NDArray[np.uint8]]()
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            images = working_images([colors[key] for key in batch], self._settings, self._device)
            with torch.autocast(self._device.type, enabled=amp):
                maps = features.features(batch, images)
                logits = network.decode(maps, (images.shape[2], images.shape[3])).logits.float()
            for i, key in enumerate(batch):
                labels.append(to_array(ScaledLogits(logits[i : i + 1], colors[key].shape[:2]).label))
        return labels
