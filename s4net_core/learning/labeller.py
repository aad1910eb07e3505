"""Labels of images that are shown to one set of weights after another: a frozen encoder sees each of them once."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.labels import UNLABELLED
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.predict import BATCH, most_probable, predict_labels, working_images


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
            for key, one in zip(batch, logits, strict=True):
                labels.append(_label_at(one, colors[key].shape[:2]))
        return labels


def _label_at(logits: Tensor, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """(C, h, w) logits -> (H, W) uint8 class ids, 0 where logits are NaN."""
    if logits.shape[1:] != size:
        return most_probable(logits[None], (size[0], size[1]))[0][0].cpu().numpy()
    highest, channel = logits.max(dim=0)
    label: NDArray[np.uint8] = torch.where(highest.isnan(), UNLABELLED, channel + 1).to(torch.uint8).cpu().numpy()
    return label
