"""The gate between the learner and the robot: weights that forget, collapse or are not finite are not handed over."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.evaluation.agreement import Agreement, agreement_of_each, compared_views
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.io.source_sets.source_set import LabelledImage, SourceSet, Usable
from s4net_core.keyframes import Keyframe, KeyframeBuffer, spread
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.learning.judge import Judge, KnownLabels
from s4net_core.learning.labeller import Labeller
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.predict import predict_depth


@dataclass(frozen=True)
class Health:
    """Measurements of one set of weights by the guard.

    Args:
        finite: all weights are finite numbers.
        source_miou: pooled mIoU on the hold-out of the source set; NaN without a source set.
        score: what the `Judge` says of it, 0..1; NaN while no keyframe is held out.
        agreement: share of corresponding pixels of overlapping keyframes with equal labels; NaN without overlap. It is
            shown, but decides nothing: a network that collapses agrees with itself.
        largest_share: share of the keyframes' pixels that the most frequent class covers.
        classes: number of classes that cover at least 0.1 % of the keyframes' pixels.
        agreement_of: agreement of each measured keyframe with its neighbours, by id.
    """

    finite: bool
    source_miou: float
    score: float
    agreement: float
    largest_share: float
    classes: int
    agreement_of: Mapping[int, float] = field(default_factory=dict)


MIN_CLASS_SHARE = 0.001
"""A class counts as predicted when it covers at least this share of the pixels."""

Depths = dict[int, NDArray[np.float32]]
"""Depth of views by keyframe id: (H, W) float32, metres."""

NOT_FINITE = Health(False, math.nan, math.nan, math.nan, math.nan, 0)


class Guard:
    """Measures weights against the base model on labelled source images and on overlapping keyframes.

    Args:
        base: the network before adaptation.
        teacher: of the base model, never refreshed.
        source: labelled source set; None = nothing tells what is forgotten beyond the keyframes.
        holdout: positions in it that the learner never sees.
        keyframes: target views, no labels.
        settings: group `guard`.
        device: where the networks run.
        features: of the learner's encoder, kept for the learner; None = the encoder learns.
    """

    def __init__(
        self,
        base: SegmentationNetwork,
        teacher: Teacher,
        source: SourceSet | None,
        holdout: Sequence[int],
        keyframes: KeyframeBuffer,
        settings: Settings,
        device: torch.device,
        features: FeatureCache | None = None,
    ) -> None:
        self._base = base
        self._source = source
        self._holdout = list(holdout)
        self._keyframes = keyframes
        self._settings = settings
        self._device = device
        self._labeller = Labeller(features, settings, device)
        self._judge = Judge(teacher, keyframes, settings, self._labeller)
        self._base_labels: KnownLabels = {}
        self._base_source_miou: float | None = None
        self._labelled: dict[int, LabelledImage] = {}
        """The hold-out, read once: every network is measured on the same images, even if one is lost meanwhile."""

    def measure(self, network: SegmentationNetwork, known: KnownLabels | None = None) -> tuple[Health, Health]:
        """Health of `network` and, on the same keyframes, of the base model, whose predictions are kept.

        Args:
            network: its weights.
            known: as of `Judge.score`.
        """
        if not _is_finite(network):
            return NOT_FINITE, NOT_FINITE
        networks = [(network, {} if known is None else known), (self._base, self._base_labels)]
        compared = compared_views(self._keyframes, self._ids_to_compare(), self._settings)
        views = {view.id: view for view, _ in compared}
        labels = [self._judge.labels(one, list(views.values()), known) for one, known in networks]
        scores = [self.score(*one) for one in networks]  # most of the labels that it needs are known now
        self._base_labels = {id: label for id, label in self._base_labels.items() if id in networks[0][1]}
        if self._base_source_miou is None:
            self._base_source_miou = self._source_miou(self._base)
        mious = [self._source_miou(network), self._base_source_miou]
        depths = self._depths(network, views)
        shares: dict[int, NDArray[np.float64]] = {}
        agreements = agreement_of_each(
            labels, compared, self._settings, self._device, depths=depths, on_share=shares.__setitem__
        )
        of_each = [{id: float(of_networks[i]) for id, of_networks in shares.items()} for i in range(len(networks))]
        adapted, base = map(_health, mious, scores, labels, agreements, of_each)
        return adapted, base

    def score(self, network: SegmentationNetwork, known: KnownLabels | None = None) -> float:
        """As `Judge.score`; what the base model has said is known."""
        return self._judge.score(network, self._base_labels if network is self._base else known)

    def forget(self) -> None:
        """As `Judge.forget`."""
        self._judge.forget()

    def source_images(self) -> list[NDArray[np.uint8]]:
        """Colour of the hold-out, (H, W, 3) uint8 RGB each, any sizes; [] without a source set."""
        if self._source is None:
            return []
        return [image.color for image in self._labelled_images(self._source).values()]

    def objections(self, health: Health, base: Health) -> tuple[str, ...]:
        """Reasons against handing over; empty = none."""
        guard = self._settings.guard
        if not health.finite:
            return ("weights are not finite",)
        reasons = []
        if health.source_miou < base.source_miou - guard.max_source_drop:
            reasons.append(
                f"source mIoU fell from {base.source_miou:.3f} to {health.source_miou:.3f}, "
                f"more than guard.max_source_drop {guard.max_source_drop}"
            )
        if health.score < base.score - guard.max_score_drop:
            reasons.append(
                f"score on held-out keyframes fell from {base.score:.3f} to {health.score:.3f}, "
                f"more than guard.max_score_drop {guard.max_score_drop}"
            )
        if health.classes and math.isnan(health.agreement):  # the labelled views overlap, so this is a failure
            reasons.append("no pixel of two overlapping views could be compared: their depths or poses fit nowhere")
        # A wall can fill the view: it is a collapse only if the share exceeds the base model's as well.
        if health.largest_share > max(guard.max_class_share, base.largest_share):
            reasons.append(f"one class covers {health.largest_share:.1%} of the keyframes")
        if health.classes < guard.min_class_ratio * base.classes:
            reasons.append(f"only {health.classes} of {base.classes} classes are left")
        return tuple(reasons)

    def _ids_to_compare(self) -> list[int]:
        """Ids of keyframes to measure agreement on, held-out ones first, and each one's best neighbour.

        The score needs the labels of held-out keyframes anyway.
        """
        overlap, count = self._settings.learner.min_overlap, self._settings.guard.agreement_views
        targets = spread(self._keyframes.held_out(overlap), count)
        targets += spread(self._keyframes.trainable(overlap), count - len(targets))
        views = dict.fromkeys(targets)
        for id in targets:
            nearest = self._keyframes.overlapping(id, overlap)[:1]
            views.update(dict.fromkeys(other for other, _ in nearest))
        return list(views)

    def _depths(self, network: SegmentationNetwork, views: dict[int, Keyframe]) -> Depths | None:
        """Depth that `network` predicts, used for both networks so that they are compared on the same pixels."""
        if self._settings.geometry.from_sensor:
            return None
        return {id: predict_depth(network, v.color, self._settings, self._device) for id, v in views.items()}

    def _source_miou(self, network: SegmentationNetwork) -> float:
        if self._source is None:
            return math.nan
        images = self._labelled_images(self._source)
        labels = self._labeller.labels(network, {(i, False): image.color for i, image in images.items()})
        matrix = ConfusionMatrix(network.label_space)
        for image, label in zip(images.values(), labels, strict=True):
            matrix.add(image.label, label)
        return matrix.pooled().miou

    def _labelled_images(self, source: SourceSet) -> dict[int, LabelledImage]:
        """The hold-out, by position in the source set."""
        if not self._labelled:
            usable = Usable(source.name, len(self._holdout))
            images = {i: usable.read(source.__getitem__, i) for i in self._holdout}
            self._labelled = {i: image for i, image in images.items() if image is not None}
        return self._labelled


def _is_finite(network: SegmentationNetwork) -> bool:
    """Whether all weights are finite numbers."""
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    sums = torch.stack([value.sum() for value in values])  # cheaper to test; finite only if all values are
    return bool(sums.isfinite().all()) or all(bool(value.isfinite().all()) for value in values)


def _health(
    source_miou: float, score: float, labels: KnownLabels, agreement: Agreement, agreement_of: Mapping[int, float]
) -> Health:
    if not labels:
        return Health(True, source_miou, score, math.nan, math.nan, 0)
    counts = sum((np.bincount(label.ravel(), minlength=256) for label in labels.values()), np.zeros(256, np.int64))
    share = counts / counts.sum()
    classes = int((share >= MIN_CLASS_SHARE).sum())
    return Health(True, source_miou, score, agreement.mean, float(share.max()), classes, agreement_of)
