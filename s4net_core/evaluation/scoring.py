"""What a network says of labelled images, counted."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.labels import LabelSpace
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
    return counted(_predicted(network, images, settings, device), network.label_space)


def counted(labels: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]], space: LabelSpace) -> ConfusionMatrix:
    """Count labels against the true ones; classes that are "no class" count as unlabelled.

    Args:
        labels: true and predicted class ids, (H, W) uint8 each, 0 = unlabelled.
        space: their classes.
    """
    matrix = ConfusionMatrix(space.num_classes)
    for truth, label in labels:
        matrix.add(space.without_no_class(truth), space.without_no_class(label))
    return matrix


def _predicted(
    network: SegmentationNetwork,
    images: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    settings: Settings,
    device: torch.device,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """True and predicted labels; arguments as `confusion`."""
    remaining = iter(images)
    while batch := list(itertools.islice(remaining, BATCH)):
        predicted = predict_labels(network, [color for color, _ in batch], settings, device)
        yield from zip((truth for _, truth in batch), predicted, strict=True)
