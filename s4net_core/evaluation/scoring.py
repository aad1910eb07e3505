"""What a network says of labelled images, counted."""

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.predict import BATCH, predict_labels


def confusion(
    network: SegmentationNetwork,
    images: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    settings: Settings,
    device: torch.device,
) -> ConfusionMatrix:
    """Compare a network's labels with the true ones; a few images are in memory at a time.

    Args:
        network: on `device`.
        images: (H, W, 3) uint8 RGB and (H, W) uint8 true class ids, 0 = unlabelled; any sizes.
        settings, device: as `predict_labels`.

    Raises:
        BadFrame: as `predict_labels`.
    """
    matrix = ConfusionMatrix(network.label_space)
    remaining = iter(images)
    while batch := list(itertools.islice(remaining, BATCH)):
        predicted = predict_labels(network, [color for color, _ in batch], settings, device)
        for (_, truth), label in zip(batch, predicted, strict=True):
            matrix.add(truth, label)
    return matrix
