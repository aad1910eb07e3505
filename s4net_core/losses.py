"""The losses of S4-Net: cross-entropy on labels and on neighbours' predictions, and the losses on predicted depth."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from s4net_core.errors import S4NetError

IGNORED = -1
"""Channel index of pixels that do not count."""
SSIM_WEIGHT = 0.85
"""Weight of SSIM in the photometric loss; the rest is the difference of intensity (Godard et al., 2017)."""
SSIM_WINDOW = 3
"""Side of the square in which SSIM compares two images, pixels; odd."""
SSIM_STABILISERS = (0.01**2, 0.03**2)
"""C1 and C2 of SSIM for intensities 0..1 (Wang et al., 2004)."""


class ClassFrequencies:
    """Counts the pixels of each class in label images, for class weights.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self._pixels_of_class = np.zeros(num_classes)
        self._pixels_where_present = np.zeros(num_classes)

    def add(self, label: NDArray[np.uint8]) -> None:
        """Count one label image: (H, W) uint8, 0 = unlabelled, ids 1..num_classes."""
        num_classes = len(self._pixels_of_class)
        self.add_pixels(np.bincount(label.ravel(), minlength=num_classes + 1)[1 : num_classes + 1])

    def add_pixels(self, counts: NDArray[np.int64]) -> None:
        """Count one label image whose numbers of pixels by class, (num_classes,), are known."""
        self._pixels_of_class += counts
        self._pixels_where_present += np.where(counts > 0, counts.sum(), 0)

    @property
    def empty(self) -> bool:
        """Whether no labelled pixel was counted."""
        return not self._pixels_of_class.any()

    def median_weights(self) -> Tensor:
        """Weights as `median_frequency_weights` returns them; all 1 while no pixel was counted."""
        weights = np.ones(len(self._pixels_of_class))
        present = self._pixels_of_class > 0
        if present.any():
            frequency = self._pixels_of_class[present] / self._pixels_where_present[present]
            weights[present] = np.median(frequency) / frequency
        return torch.tensor(weights, dtype=torch.float32)


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
    frequencies = ClassFrequencies(num_classes)
    for label in labels:
        frequencies.add(label)
    if frequencies.empty:
        raise S4NetError("no image of the source set has a labelled pixel: check its label images (0 = unlabelled)")
    return frequencies.median_weights()


def supervised_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """L_S: weighted cross-entropy, mean over the labelled pixels weighted by class.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64 ids 1..C, 0 = unlabelled.
        weights: (C,) from `median_frequency_weights`.

    Returns:
        Scalar; 0 with zero gradient when no pixel is labelled.
    """
    return _cross_entropy(logits, labels, weights)


def geometric_loss(logits: Tensor, merged: Tensor, valid: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_G: cross-entropy against the merged predictions of the neighbours (paper: L_G).

    Unweighted by default: these labels are predictions, and class weights would make them drift towards rare classes.

    Args:
        logits: (B, C, H, W).
        merged: constant for the gradient: (B, H, W) int64 ids 1..C, 0 = none, or (B, C, H, W) float probabilities.
        valid: (B, 1, H, W) bool.
        weights: (C,), one a class; None = all equal.

    Returns:
        Scalar, mean over the valid pixels, weighted by class if `weights` are given; 0 with zero gradient when none
        is valid.
    """
    if merged.is_floating_point():
        return _soft_cross_entropy(logits, merged, valid, weights)
    return _cross_entropy(logits, merged * valid[:, 0], weights)


def depth_supervised_loss(depth: Tensor, truth: Tensor) -> Tensor:
    """L_DS: mean absolute difference of predicted and true depth, metres (paper: sec. 3.3).

    Args:
        depth: (B, 1, H, W), metres, predicted.
        truth: (B, 1, H, W), metres; not positive = none, such pixels do not count.

    Returns:
        Scalar; 0 with zero gradient when no pixel has a depth.
    """
    known = truth > 0
    return _mean_where(torch.where(known, depth.float() - truth, 0.0).abs(), known)


def photometric_loss(image: Tensor, warped: Tensor, valid: Tensor) -> Tensor:
    """L_INT: difference of intensity and of structure (SSIM) between a view and its neighbour warped into it.

    Args:
        image: (B, 3, H, W) float, 0..1.
        warped: (B, 3, H, W) float, 0..1; any finite value where `valid` is False.
        valid: (B, 1, H, W) bool; a pixel counts when the whole window around it that SSIM sees lies in the image
            and is valid.

    Returns:
        Scalar, mean over the pixels that count; 0 with zero gradient when none does.
    """
    whole_window = functional.max_pool2d((~valid).float(), SSIM_WINDOW, stride=1) == 0
    margin = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    difference = (image - warped).abs()[..., margin, margin]
    error = SSIM_WEIGHT * (1 - _ssim(image, warped)) / 2 + (1 - SSIM_WEIGHT) * difference
    return _mean_where(error.mean(dim=1, keepdim=True), whole_window)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy against one class a pixel; `labels` as in `supervised_loss`."""
    if not bool((labels > 0).any()):
        return _no_loss(logits)
    return functional.cross_entropy(logits.float(), labels - 1, weight=weights, ignore_index=IGNORED)


def _soft_cross_entropy(logits: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy against probabilities; for one-hot probabilities it equals `_cross_entropy`."""
    weighted = target * valid if weights is None else target * valid * weights.view(1, -1, 1, 1)
    total = weighted.sum()
    if not bool(total > 0):
        return _no_loss(logits)
    return -(weighted * logits.float().log_softmax(dim=1)).sum() / total


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of the values that count; 0 with zero gradient when none does."""
    if not bool(counts.any()):
        return _no_loss(values)
    return values[counts].mean()


def _no_loss(values: Tensor) -> Tensor:
    """0 with zero gradient. The sum is in float32: float16 would overflow, and infinity times 0 is NaN."""
    return values.float().sum() * 0.0


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity, at most 1, of each window inside the image: (B, C, H, W) twice -> (B, C, H - 2, W - 2)."""
    c1, c2 = SSIM_STABILISERS
    mean_1, mean_2 = _window_mean(first), _window_mean(second)
    variance_1 = _window_mean(first**2) - mean_1**2
    variance_2 = _window_mean(second**2) - mean_2**2
    covariance = _window_mean(first * second) - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_1 + variance_2 + c2)


def _window_mean(values: Tensor) -> Tensor:
    """Mean of every square window that lies entirely inside the image."""
    return functional.avg_pool2d(values, SSIM_WINDOW, stride=1)
