"""The losses of S4-Net: weighted cross-entropy on labelled images, plain cross-entropy on merged neighbour labels."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from s4net_core.errors import S4NetError

IGNORED = -1
"""Channel index of pixels that do not count."""


def median_frequency_weights(labels: Iterable[NDArray[np.uint8]], num_classes: int) -> Tensor:
    """Class weights by median-frequency balancing (paper: L_S).

    ``w_c = median(freq) / freq_c`` with ``freq_c`` = pixels of c / labelled pixels of the images that contain c.

    Args:
        labels: (H, W) uint8 label images, 0 = unlabelled, ids 1..num_classes.
        num_classes: number of classes.

    Returns:
        (num_classes,) float32, weight of id 1 first; 1 for a class that never occurs (it has no pixel to weigh).

    Raises:
        S4NetError: no labelled pixel at all.
    """
    pixels_of_class = np.zeros(num_classes)
    pixels_where_present = np.zeros(num_classes)
    for label in labels:
        counts = np.bincount(label.ravel(), minlength=num_classes + 1)[1 : num_classes + 1]
        pixels_of_class += counts
        pixels_where_present += np.where(counts > 0, counts.sum(), 0)
    present = pixels_of_class > 0
    if not present.any():
        raise S4NetError("no image of the source set has a labelled pixel: check its label images (0 = unlabelled)")
    frequency = pixels_of_class[present] / pixels_where_present[present]
    weights = np.ones(num_classes)
    weights[present] = np.median(frequency) / frequency
    return torch.tensor(weights, dtype=torch.float32)


def supervised_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """L_S: weighted cross-entropy, mean over the labelled pixels weighted by class.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64 ids 1..C, 0 = unlabelled.
        weights: (C,) from `median_frequency_weights`.

    Returns:
        Scalar; 0 with zero gradient when no pixel is labelled.
    """
    if not bool((labels > 0).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), labels - 1, weight=weights, ignore_index=IGNORED)


def geometric_loss(logits: Tensor, merged: Tensor, valid: Tensor) -> Tensor:
    """L_G: plain, unweighted cross-entropy against the merged labels of the neighbours (paper: L_G).

    The weighted one drifts towards rare classes, because the labels here are predictions.

    Args:
        logits: (B, C, H, W).
        merged: (B, H, W) int64 ids 1..C, 0 = none; constant for the gradient.
        valid: (B, 1, H, W) bool.

    Returns:
        Scalar, mean over the valid pixels; 0 with zero gradient when none is valid.
    """
    target = torch.where(valid[:, 0] & (merged > 0), merged - 1, torch.full_like(merged, IGNORED))
    if not bool((target != IGNORED).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), target, ignore_index=IGNORED)
