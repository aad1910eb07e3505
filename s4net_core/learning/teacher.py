"""The teacher f(·; Θ'): a frozen copy of the network whose warped, merged predictions are the labels of L_G."""

import copy
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.geometry.warp import away_from_borders, correspond, merge, sample, sample_mask
from s4net_core.inference import predict_batch, to_tensor
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.models.build import SegmentationNetwork


@dataclass(frozen=True)
class _Prediction:
    """Teacher's prediction of one keyframe: (1, C, H, W) float16 probabilities, (1, 1, H, W) bool away from borders."""

    probabilities: Tensor
    inner: Tensor

    @property
    def nbytes(self) -> int:
        return self.probabilities.nbytes + self.inner.nbytes


class Teacher:
    """Constant for the gradient; predictions are cached until `refresh`, because neighbours are drawn again and again.

    Args:
        network: copied, never modified.
        keyframes: where colour, depth and pose of the views come from.
        settings: groups `geometry` and `learner`.
        device: where the copy lives.
    """

    def __init__(
        self, network: SegmentationNetwork, keyframes: KeyframeBuffer, settings: Settings, device: torch.device
    ) -> None:
        self._network = copy.deepcopy(network).to(device).eval().requires_grad_(False)
        self._keyframes = keyframes
        self._settings = settings
        self._device = device
        self._cache: OrderedDict[int, _Prediction] = OrderedDict()
        self._cached_bytes = 0

    def refresh(self, network: SegmentationNetwork) -> None:
        """Θ' ← Θ."""
        self._network.load_state_dict(network.state_dict())
        self._cache.clear()
        self._cached_bytes = 0

    def labels(self, target: Keyframe, neighbours: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """Merge_{e'∈N(e)} Warp_{e'→e}( f(I_e'; Θ') ) for one target view e (paper: L_G).

        Args:
            target: the view e.
            neighbours: the views N(e), at least one.

        Returns:
            (1, H, W) int64 ids, 0 = none, and (1, 1, H, W) bool.
        """
        predictions = self._predict(neighbours)
        count = len(neighbours)
        depth_target, K_target = self._depth_and_camera([target] * count)
        depth_source, K_source = self._depth_and_camera(neighbours)
        T_world_source = np.stack([view.T_world_camera for view in neighbours])
        T_source_target = torch.from_numpy(np.linalg.inv(T_world_source) @ target.T_world_camera).float()
        correspondence = correspond(
            depth_target,
            K_target,
            T_source_target.to(self._device),
            depth_source,
            K_source,
            self._settings.geometry,
        )
        probabilities, valid = sample(torch.cat([p.probabilities for p in predictions]).float(), correspondence)
        valid = valid & sample_mask(torch.cat([p.inner for p in predictions]), correspondence)
        return merge(probabilities[:, None], valid[:, None])

    def _predict(self, views: list[Keyframe]) -> list[_Prediction]:
        missing = [view for view in views if view.id not in self._cache]
        fresh: dict[int, _Prediction] = {}
        if missing:
            images = to_tensor([view.color for view in missing], self._device)
            probabilities = predict_batch(self._network, images, amp=self._settings.learner.amp)
            inner = away_from_borders(probabilities.argmax(1), self._settings.geometry.boundary_radius)
            for i, view in enumerate(missing):
                fresh[view.id] = _Prediction(probabilities[i : i + 1].half(), inner[i : i + 1])
        predictions = [fresh.get(view.id) or self._cache[view.id] for view in views]
        for view in views:
            if view.id in fresh:
                self._remember(view.id, fresh[view.id])
            else:
                self._cache.move_to_end(view.id)
        return predictions

    def _remember(self, id: int, prediction: _Prediction) -> None:
        self._cache[id] = prediction
        self._cached_bytes += prediction.nbytes
        while self._cached_bytes > self._settings.learner.teacher_cache_megabytes * 1_000_000 and self._cache:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.nbytes

    def _depth_and_camera(self, views: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) float32 metres and (B, 3, 3) float32."""
        depth = torch.stack([torch.from_numpy(view.depth) for view in views])[:, None]
        K = torch.stack([torch.from_numpy(view.intrinsics.matrix) for view in views]).float()
        return depth.to(self._device), K.to(self._device)
