"""The judge: how good weights are, told without a label, on keyframes that nobody learns from."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.learning.labeller import Labeller
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import SegmentationNetwork

KnownLabels = dict[int, NDArray[np.uint8]]
"""What one set of weights has said: (H, W) uint8 class ids by keyframe id."""


class Judge:
    """Compares a network's labels of held-out keyframes with what many views of the base model say together there.

    Those labels never change while the learner does, and the learner has never seen them: unlike the agreement between
    views, the score falls when a network forgets a class or collapses, and rises only with what holds for other views.

    Args:
        teacher: of the base model, never refreshed; it looks as often as the learner's, because the base model agrees
            best with its own first look.
        keyframes: target views.
        settings: groups `keyframes`, `geometry` and `learner`.
        labeller: predicts.
    """

    def __init__(self, teacher: Teacher, keyframes: KeyframeBuffer, settings: Settings, labeller: Labeller) -> None:
        self._teacher = teacher
        self._keyframes = keyframes
        self._settings = settings
        self._labeller = labeller
        self._labels: dict[int, tuple[list[tuple[int, int]], NDArray[np.uint8]]] = {}
        """By keyframe: its neighbours, and the labels merged from them."""

    def score(self, network: SegmentationNetwork, known: KnownLabels | None = None) -> float:
        """Share of the pixels of the held-out keyframes that `network` labels as the merged views of the base do.

        Args:
            network: its weights.
            known: labels that these weights gave before; those that are missing are added.

        Returns:
            0..1; NaN while no keyframe is held out, or none of them overlaps with another.
        """
        judged = self._judged()
        labels = self.labels(network, [view for view, _ in judged], {} if known is None else known)
        right = pixels = 0
        for view, merged in judged:
            counts = merged > 0
            right += int((labels[view.id][counts] == merged[counts]).sum())
            pixels += int(counts.sum())
        return right / pixels if pixels else math.nan

    def forget(self) -> None:
        """Drop the merged labels: the teacher makes others now."""
        self._labels.clear()

    def labels(self, network: SegmentationNetwork, views: Sequence[Keyframe], known: KnownLabels) -> KnownLabels:
        """Labels of keyframes; those that are missing in `known` are predicted, and added to it."""
        missing = [view for view in views if view.id not in known]
        known |= zip((view.id for view in missing), self.predict(network, missing), strict=True)
        return {view.id: known[view.id] for view in views}

    def predict(self, network: SegmentationNetwork, views: Sequence[Keyframe]) -> list[NDArray[np.uint8]]:
        """Labels of keyframes, (H, W) uint8 each."""
        return self._labeller.labels(network, {view.id: view.color for view in views}) if views else []

    def _judged(self) -> list[tuple[Keyframe, NDArray[np.uint8]]]:
        """Held-out keyframes, each with its merged labels."""
        overlap = self._settings.learner.min_overlap
        ids = self._keyframes.held_out(overlap)
        neighbours = {id: sorted(other for other, _ in self._keyframes.overlapping(id, overlap)) for id in ids}
        views = self._keyframes.views({*ids, *(other for others in neighbours.values() for other in others)})
        judged = []
        for id in ids:
            others = [views[other] for other in neighbours[id] if other in views]  # the buffer may evict some meanwhile
            if id in views and others:
                judged.append((views[id], self._merged(views[id], others)))
        self._labels = {view.id: self._labels[view.id] for view, _ in judged}
        return judged

    def _merged(self, view: Keyframe, neighbours: list[Keyframe]) -> NDArray[np.uint8]:
        keys = [one.key for one in (view, *neighbours)]
        known = self._labels.get(view.id)
        if known is None or known[0] != keys:
            labels = self._teacher.merged(view, neighbours).labels[0].to(torch.uint8).cpu().numpy()
            known = self._labels[view.id] = (keys, labels)
        return known[1]
