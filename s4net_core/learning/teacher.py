"""The teacher f(·; Θ'): a frozen copy of the network; its predictions have no gradient."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from s4net_core.config import Settings
from s4net_core.geometry.views import Pairs, Views
from s4net_core.geometry.warp import Merged, away_from_borders, correspond, merge, merge_sampled
from s4net_core.keyframes import Keyframe, views_of
from s4net_core.learning.byte_cache import ByteCache
from s4net_core.learning.looks import Looks, surest_looks
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.folding import folded
from s4net_core.models.predict import BATCH, all_outputs, to_tensor, working_images
from s4net_core.models.resampling import SMOOTH, logits_at

WARPED = 8
"""Neighbours that are warped at once: with all of them, memory would grow with the number of views."""


@dataclass(frozen=True)
class _Prediction:
    """Teacher's prediction of one keyframe.

    Args:
        probabilities: (1, C, H, W) float16, in the memory format ``channels_last``.
        label: (1, 1, H, W) uint8, ids 1..C, the most probable class.
        inner: (1, 1, H, W) bool, away from the borders of its segments.
        depth: (1, 1, H, W) float32, metres; None = the network predicts none.
    """

    probabilities: Tensor
    label: Tensor
    inner: Tensor
    depth: Tensor | None

    @property
    def nbytes(self) -> int:
        parts = (self.probabilities, self.label, self.inner, self.depth)
        return sum(part.nbytes for part in parts if part is not None)


@dataclass(frozen=True)
class _Labels:
    """What `Teacher.labels` gives for one target, and the keys of the views from which it was merged."""

    views: list[tuple[int, int]]
    labels: Tensor
    valid: Tensor

    @property
    def nbytes(self) -> int:
        return self.labels.nbytes + self.valid.nbytes


class Teacher:
    """Predicts without gradient and caches until `refresh`, because the same neighbours are drawn again and again.

    Args:
        network: moved to `device`; its weights stay as they are.
        settings: groups `geometry` and `learner`.
        device: where to compute.
    """

    def __init__(self, network: SegmentationNetwork, settings: Settings, device: torch.device) -> None:
        self._network = folded(network.to(device).to(memory_format=torch.channels_last))  # faster on a CPU
        self._settings = settings
        self._device = device
        self._scales = [1.0]
        megabytes = settings.learner.teacher_cache_megabytes
        self._cache: ByteCache[int, _Prediction] = ByteCache(megabytes, lambda prediction: prediction.nbytes)
        self._labels: ByteCache[int, _Labels] = ByteCache(megabytes, lambda labels: labels.nbytes)

    def refresh(self, network: SegmentationNetwork) -> None:
        """Θ' ← Θ."""
        self._network = folded(copy.deepcopy(network))
        self.forget()

    def surest_looks(self, images: Sequence[NDArray[np.uint8]]) -> Looks:
        """As the function of this name, for images (H, W, 3) uint8 RGB of any sizes."""

        def certainty(scale: float) -> float:
            working = (working_images([image], self._settings, self._device) for image in images)
            return fmean(float(self._seen(image, scale).amax(dim=1).mean()) for image in working)

        return surest_looks(certainty, self._settings.learner.teacher_scale, min(self._settings.model.size))

    def look_at(self, scales: list[float]) -> bool:
        """Look at images at these scales of the working size from now on, the first of which is 1.

        Returns:
            Whether that changes anything, so that all predictions and labels were dropped.
        """
        if scales == self._scales:
            return False
        self._scales = scales
        self.forget()
        return True

    def forget(self) -> None:
        """Drop all predictions and labels; they are made anew when they are asked for."""
        self._cache.clear()
        self._labels.clear()

    def labels(self, target: Keyframe, neighbours: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """Merge_{e'∈N(e)} Warp_{e'→e}( f(I_e'; Θ') ) for one target view e (paper: L_G).

        With `learner.merge_target` e itself is among N(e). Labels from all neighbours (`learner.neighbours` 0) are kept
        until `refresh`, or until other views overlap with the target or one of them is moved.

        Args:
            target: the view e.
            neighbours: the views N(e), at least one.

        Returns:
            (1, H, W) int64 ids, 0 = none, or (1, C, H, W) float probabilities with `learner.merge` soft; and
            (1, 1, H, W) bool.
        """
        if self._settings.learner.neighbours:
            return self._labels_from(target, neighbours)
        views = [view.key for view in (target, *neighbours)]
        known = self._labels.used(target.id)
        if known is None or known.views != views:
            known = _Labels(views, *self._labels_from(target, neighbours))
            self._labels.keep(target.id, known)
        return known.labels, known.valid

    def merged(self, target: Keyframe, neighbours: list[Keyframe]) -> Merged:
        """Sum of the predictions of the views N(e) at the pixels of the target e; arguments as `labels`."""
        chunks = [neighbours[start : start + WARPED] for start in range(0, len(neighbours), WARPED)]
        parts = [self._merged_neighbours(target, chunk) for chunk in chunks]
        if self._settings.learner.merge_target:
            own = self._predict([target])[0]
            parts.append(merge(own.probabilities[None].float(), own.inner[None]))
        return reduce(add, parts)

    def _labels_from(self, target: Keyframe, neighbours: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """As `labels`, computed anew."""
        merged = self.merged(target, neighbours)
        return (merged.mean if self._settings.learner.merge == "soft" else merged.labels), merged.valid

    def _merged_neighbours(self, target: Keyframe, neighbours: list[Keyframe]) -> Merged:
        """Sum of the predictions of the neighbours at the target's pixels."""
        predictions = self._predict(neighbours)
        pairs = Pairs(self._views([target]).repeated(len(neighbours)), self._views(neighbours))
        usable = torch.cat([p.inner for p in predictions]) if self._settings.geometry.boundary_radius else None
        probabilities = torch.cat([p.probabilities for p in predictions])
        return merge_sampled(probabilities, correspond(pairs, self._settings.geometry), usable)

    def predictions(self, views: list[Keyframe]) -> tuple[Tensor, Tensor | None]:
        """Predictions of views: (B, C, H, W) float probabilities, and (B, 1, H, W) depth, metres, if there is any."""
        predictions = self._predict(views)
        depth = [p.depth for p in predictions if p.depth is not None]
        return torch.cat([p.probabilities for p in predictions]).float(), torch.cat(depth) if depth else None

    def segments(self, views: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """Predicted segments of views: (B, 1, H, W) uint8 ids, and (B, 1, H, W) bool where it is not near a border."""
        predictions = self._predict(views)
        return torch.cat([p.label for p in predictions]), torch.cat([p.inner for p in predictions])

    def _views(self, keyframes: list[Keyframe]) -> Views:
        """Keyframes with the depth camera's depth, or with the teacher's; without gradient."""
        if self._settings.geometry.from_sensor:
            return views_of(keyframes, self._device)
        depth = torch.cat([p.depth for p in self._predict(keyframes) if p.depth is not None])
        return views_of(keyframes, self._device, depth=depth)

    def _predict(self, views: list[Keyframe]) -> list[_Prediction]:
        known = {view.id: found for view in views if (found := self._cache.used(view.id)) is not None}
        missing = list({view.id: view for view in views if view.id not in known}.values())
        fresh: dict[int, _Prediction] = {}
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            fresh |= zip((view.id for view in batch), self._fresh(batch), strict=True)
        for id, prediction in fresh.items():
            self._cache.keep(id, prediction)
        predictions = known | fresh
        return [predictions[view.id] for view in views]

    def _fresh(self, views: list[Keyframe]) -> list[_Prediction]:
        """Predictions that are not cached."""
        images = to_tensor([view.color for view in views], self._device)
        probabilities, depths = self._looks(images, [view.id for view in views])
        label = probabilities.max(dim=1).indices  # on a CPU `argmax` takes three times as long
        inner = away_from_borders(label, self._settings.geometry.boundary_radius)
        ids = (label + 1).to(torch.uint8).unsqueeze(1)
        kept = probabilities.to(torch.float16, memory_format=torch.channels_last)
        predictions = []
        for i in range(len(views)):
            one = slice(i, i + 1)
            # Copies: a slice would keep the whole batch in memory.
            depth = None if depths is None else depths[one].clone()
            predictions.append(_Prediction(kept[one].clone(), ids[one].clone(), inner[one].clone(), depth))
        return predictions

    def _looks(self, images: Tensor, ids: list[int]) -> tuple[Tensor, Tensor | None]:
        """Mean of the probabilities over looks at all scales, and the depth of the first look, if there is any.

        With `learner.teacher_mirror` every second look is a mirrored one, in odd views the first, in even views the
        second. So each view costs one look a scale, and the views of a place see it both ways at each scale.
        """
        learner = self._settings.learner
        scales = self._scales * 2 if learner.teacher_mirror and len(self._scales) == 1 else self._scales
        turned = [learner.teacher_mirror and id % 2 == 1 for id in ids]
        outputs = all_outputs(self._network, _mirrored(images, turned), amp=learner.amp)
        total = _mirrored(outputs.logits, turned).softmax(dim=1)
        depth = None if outputs.depth is None else _mirrored(outputs.depth, turned)
        for scale in scales[1:]:
            turned = [before != learner.teacher_mirror for before in turned]
            total = total + _mirrored(self._seen(_mirrored(images, turned), scale), turned)
        return total / len(scales), depth

    def _seen(self, images: Tensor, scale: float) -> Tensor:
        """Probabilities (B, C, H, W) of images (B, 3, H, W), looked at at a scale."""
        size = (images.shape[2], images.shape[3])
        # By its size: with `scale_factor` PyTorch cuts a fraction of a pixel off, and the labels would be shifted.
        seen = functional.interpolate(images, size=[round(side * scale) for side in size], **SMOOTH)
        return logits_at(self._network, seen, size, amp=self._settings.learner.amp).softmax(dim=1)


def _mirrored(images: Tensor, turned: list[bool]) -> Tensor:
    """Images (B, ., H, W), left to right the other way round where `turned`, one an image, says so."""
    if not any(turned):
        return images
    which = torch.tensor(turned, device=images.device).view(-1, 1, 1, 1)
    return torch.where(which, images.flip(-1), images)
