"""Errors of predicted depth, pooled over all pixels of a data set or averaged over its images."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, ShapeError

FACTOR = 1.25
"""Base of the δ scores: the share of pixels that are wrong by less than this factor, its square and its cube."""


@dataclass(frozen=True)
class DepthScores:
    """Errors of depth d against the truth t, means over the pixels where t is known.

    Args:
        abs_rel: |d - t| / t.
        sq_rel: (d - t)² / t, metres.
        rmse: root of the mean of (d - t)², metres.
        rmse_log: root of the mean of (ln d - ln t)².
        delta_1, delta_2, delta_3: share 0..1 of the pixels with max(d / t, t / d) below 1.25, 1.25² and 1.25³.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    delta_1: float
    delta_2: float
    delta_3: float

    def as_dict(self) -> dict[str, float]:
        """Scores by name."""
        return asdict(self)


@dataclass(frozen=True)
class DepthEvaluation:
    """Errors of one network's depth on one capture.

    Args:
        pooled: means over all pixels of all frames.
        per_image: scores of each frame, averaged over the frames.
        frames: that were scored.
    """

    pooled: DepthScores
    per_image: DepthScores
    frames: int


class DepthErrors:
    """Sums up errors image by image.

    Args:
        min_depth, max_depth: pixels whose true depth lies outside are not scored, metres.
    """

    def __init__(self, min_depth: float, max_depth: float) -> None:
        self.images = 0
        """Images with at least one pixel of known depth."""
        self._range = (min_depth, max_depth)
        self._sums = np.zeros(len(DepthScores.__dataclass_fields__))
        self._pixels = 0
        self._per_image = np.zeros_like(self._sums)

    def add(self, truth: NDArray[np.float32], prediction: NDArray[np.float32]) -> DepthScores | None:
        """Count one image.

        Args:
            truth: (H, W) metres, 0 = not known.
            prediction: (H, W) metres, positive.

        Returns:
            The image's own scores; None when no depth in it is known.

        Raises:
            ShapeError: the two have different sizes.
            S4NetError: a predicted depth that counts is not positive and finite.
        """
        if truth.shape != prediction.shape:
            raise ShapeError(f"true depth is {truth.shape} but prediction is {prediction.shape}: rescale one of them")
        known = (truth > 0) & (truth >= self._range[0]) & (truth <= self._range[1])
        if not known.any():
            return None
        t, d = truth[known].astype(np.float64), prediction[known].astype(np.float64)
        if not (np.isfinite(d).all() and (d > 0).all()):
            raise S4NetError(f"predicted depth reaches from {d.min()} to {d.max()} m: it must be positive and finite")
        sums = np.array([errors.sum() for errors in _errors(t, d)])
        scores = _scores(sums / t.size)
        self._sums += sums
        self._pixels += t.size
        self._per_image += list(scores.as_dict().values())
        self.images += 1
        return scores

    def evaluation(self) -> DepthEvaluation:
        """Both averages over what was added.

        Raises:
            S4NetError: no pixel of known depth was added.
        """
        if not self.images:
            raise S4NetError("no pixel of known depth was seen, so there is nothing to score: use images with depth")
        per_image = DepthScores(*(float(value) for value in self._per_image / self.images))
        return DepthEvaluation(_scores(self._sums / self._pixels), per_image, self.images)


def _errors(t: NDArray[np.float64], d: NDArray[np.float64]) -> list[NDArray[np.floating] | NDArray[np.bool_]]:
    """What is averaged, pixel by pixel, in the order of `DepthScores`."""
    difference = d - t
    ratio = np.maximum(d / t, t / d)
    logarithm = np.log(d) - np.log(t)
    powers = [ratio < FACTOR**n for n in (1, 2, 3)]
    return [np.abs(difference) / t, difference**2 / t, difference**2, logarithm**2, *powers]


def _scores(means: NDArray[np.float64]) -> DepthScores:
    abs_rel, sq_rel, square, square_log, *deltas = (float(mean) for mean in means)
    return DepthScores(abs_rel, sq_rel, square**0.5, square_log**0.5, *deltas)
