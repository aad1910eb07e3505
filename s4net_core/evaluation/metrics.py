"""The paper's four segmentation scores, pooled over a data set or averaged over its images."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, ShapeError
from s4net_core.labels import UNLABELLED, LabelSpace, from_mask


@dataclass(frozen=True)
class SegmentationScores:
    """Scores 0..1, from n_ij = pixels of class i predicted as j and t_i = Σ_j n_ij.

    Only classes with t_i > 0 are averaged: a class that is predicted but never true has no score of its own; it lowers
    the scores of the classes in whose place it was predicted.

    Args:
        pixel_accuracy: Σ n_ii / Σ t_i.
        mean_accuracy: mean_i n_ii / t_i.
        miou: mean_i n_ii / (t_i + Σ_j n_ji - n_ii).
        fwiou: as `miou`, weighted with t_i.
    """

    pixel_accuracy: float
    mean_accuracy: float
    miou: float
    fwiou: float

    def as_dict(self) -> dict[str, float]:
        """Scores by name."""
        return asdict(self)


class ConfusionMatrix:
    """Counts pixels image by image.

    Args:
        space: the C classes; those that are "no class" count as unlabelled.
    """

    def __init__(self, space: LabelSpace) -> None:
        self.space = space
        self.images = 0
        """Images with at least one labelled pixel."""
        self._counts = np.zeros((space.num_classes, space.num_classes + 1), np.int64)
        self._per_image_sum = np.zeros(4)

    def add(self, label: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> SegmentationScores | None:
        """Count one image.

        Args:
            label: (H, W) true class ids; 0 and 255 = unlabelled, which never counts.
            prediction: (H, W) predicted class ids; 0 and 255 = no answer, which counts as wrong where there is a label.

        Returns:
            The image's own scores; None when nothing in it is labelled.

        Raises:
            ShapeError: the two have different sizes.
            S4NetError: an id is negative, larger than C, or no integer.
        """
        for what, ids in (("label", label), ("prediction", prediction)):
            if ids.dtype.kind not in "iub" or ids.min(initial=0) < 0:
                raise S4NetError(f"{what} is {ids.dtype} and has {ids.min()}: class ids are uint8, 0 = none")
        if label.shape != prediction.shape:
            raise ShapeError(f"label is {label.shape} but prediction is {prediction.shape}: rescale one to the other")
        true, answer = (self.space.without_no_class(from_mask(ids)) for ids in (label, prediction))
        labelled = true != UNLABELLED
        highest = max(int(true.max(initial=0)), int(answer[labelled].max(initial=0)))
        classes = self.space.num_classes
        if highest > classes:
            raise S4NetError(
                f"class id {highest} in label or prediction, but there are {classes} classes: map the labels to the "
                "network's label space first"
            )
        if not labelled.any():
            return None
        index = (true[labelled].astype(np.int64) - 1) * (classes + 1) + answer[labelled]
        counts = np.bincount(index, minlength=self._counts.size).reshape(self._counts.shape)
        scores = _scores(counts)
        self._counts += counts
        self._per_image_sum += list(scores.as_dict().values())
        self.images += 1
        return scores

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C, C + 1) pixels: row = true class id - 1, column = predicted class id, 0 = no answer."""
        counts: NDArray[np.int64] = self._counts.copy()
        return counts

    def pooled(self) -> SegmentationScores:
        """Scores of one confusion matrix over all images: the common convention.

        Raises:
            S4NetError: no labelled pixel was added.
        """
        return pooled_scores(self._counts)

    def per_image_mean(self) -> SegmentationScores:
        """Scores of each image, averaged over the images that have labels: the paper's convention.

        Raises:
            S4NetError: no labelled pixel was added.
        """
        _require_labels(self._counts)
        return SegmentationScores(*(float(value) for value in self._per_image_sum / self.images))

    def class_iou(self) -> dict[int, float]:
        """Pooled IoU by class id, of the classes that occur in the labels."""
        return class_iou(self._counts)


def pooled_scores(counts: NDArray[np.int64]) -> SegmentationScores:
    """Scores from `ConfusionMatrix.counts` or the sum of several.

    Raises:
        S4NetError: no labelled pixel was counted.
    """
    _require_labels(counts)
    return _scores(counts)


def class_iou(counts: NDArray[np.int64]) -> dict[int, float]:
    """IoU by class id of the classes that occur, from `ConfusionMatrix.counts` or the sum of several."""
    present, iou = _iou(counts)
    return {int(i) + 1: float(value) for i, value in zip(np.flatnonzero(present), iou, strict=True)}


def _require_labels(counts: NDArray[np.int64]) -> None:
    if not counts.any():
        raise S4NetError("no labelled pixel was seen, so there is nothing to score: use images with labels")


def _scores(counts: NDArray[np.int64]) -> SegmentationScores:
    present, iou = _iou(counts)
    true = counts.sum(axis=1)[present]
    right = np.diagonal(counts[:, 1:])[present]
    return SegmentationScores(
        pixel_accuracy=float(right.sum() / true.sum()),
        mean_accuracy=float((right / true).mean()),
        miou=float(iou.mean()),
        fwiou=float((true * iou).sum() / true.sum()),
    )


def _iou(counts: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of the C classes occur, and the IoU of those."""
    true = counts.sum(axis=1)
    predicted = counts[:, 1:].sum(axis=0)
    right = np.diagonal(counts[:, 1:])
    present = true > 0
    return present, (right / np.maximum(true + predicted - right, 1))[present]
