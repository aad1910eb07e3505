"""One step of S4-Net: L_S + λ L_G, and L_D = L_DS + λ_D L_DG where the network predicts depth."""

import itertools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from s4net_core.config import Settings
from s4net_core.errors import LearningError
from s4net_core.io.source_sets.batches import SourceBatch, SourceBatches
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.learning.depth_loss import depth_geometric_loss
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.learning.source_free import SourceFree
from s4net_core.learning.source_loss import SourceLoss, source_loss
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import geometric_loss
from s4net_core.models.build import Outputs, SegmentationNetwork, freeze_batch_norm, freeze_encoder
from s4net_core.models.predict import to_tensor

LabelsOf = Callable[[Keyframe], NDArray[np.uint8] | None]
"""A keyframe -> (H, W) uint8 class ids, 0 = unlabelled; None = it has no labels."""
DEPTH_NEIGHBOURS = 4
"""Neighbours of a target in L_DG when the labels come from all of them; the paper's number."""
WARM_UP = 10
"""Steps over which the average of the weights grows to its full length."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Args:
        step: number of steps done, this one included.
        loss: total: L_S + λ L_G + L_DS + λ_D L_DG, plus the weighted auxiliary losses.
        loss_source: L_S; the loss of `SourceFree` where there is no source set.
        loss_geometric: L_G before λ; 0 when λ is 0.
        coverage: share of target pixels that had a merged label.
        seconds: duration.
        loss_auxiliary: L_S + λ L_G of the auxiliary branch, before its weight; 0 without one.
        loss_depth_source: L_DS, metres; 0 without a depth decoder. Without a source set as `loss_source`.
        loss_depth_geometric: L_DG before λ_D; 0 without a depth decoder, or when λ_D is 0.
    """

    step: int
    loss: float
    loss_source: float
    loss_geometric: float
    coverage: float
    seconds: float
    loss_auxiliary: float = 0.0
    loss_depth_source: float = 0.0
    loss_depth_geometric: float = 0.0


@dataclass(frozen=True)
class _Targets:
    """Target views of one step.

    Args:
        drawn: each with its neighbours.
        images: (B, 3, H, W) float32, 0..1.
        merged: (B, H, W) int64 ids or (B, C, H, W) probabilities, merged from the neighbours.
        valid: (B, 1, H, W) bool.
    """

    drawn: list[tuple[Keyframe, list[Keyframe]]]
    images: Tensor
    merged: Tensor
    valid: Tensor

    @property
    def views(self) -> list[Keyframe]:
        """The views without their neighbours."""
        return [view for view, _ in self.drawn]


@dataclass(frozen=True)
class _TargetLoss:
    """L_G, L_G of the auxiliary branch, and L_DG, before their weights; scalars, 0 where there is none."""

    geometric: Tensor
    auxiliary: Tensor
    depth: Tensor


class Learner:
    """Finetunes a network on batches of source images and keyframes.

    Every random choice follows from `settings.seed` and the step number: the same seed gives the same run on a CPU.

    `network` takes the steps. With `learner.weight_average`, `averaged` is an exponential average of its weights,
    because single steps on eight images scatter; otherwise it is `network` itself. `result()` should serve.

    Args:
        network: trained in place.
        source: batches of labelled images, or what stands in for them.
        class_weights: (C,) median-frequency weights of the source set; `learner.class_weight_power` tempers them. Not
            used where something stands in for the source set.
        teacher: of the network before adaptation; with `learner.teacher_refresh` the learner changes its weights.
        keyframes: target views; may grow and shrink between steps.
        settings: groups `learner` and `geometry`, and `seed`.
        device: where training runs.
        labels_of: labels of a keyframe that are learned instead of the merged predictions, to measure what perfect
            labels would give; None = there are none.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        source: SourceBatches | SourceFree,
        class_weights: Tensor,
        teacher: Teacher,
        keyframes: KeyframeBuffer,
        settings: Settings,
        device: torch.device,
        labels_of: LabelsOf | None = None,
    ) -> None:
        self._settings = settings
        self._labels_of = labels_of
        self.network = network.to(device)
        self._average = self._new_average() if settings.learner.weight_average else None
        self.averaged = self.network
        if self._average is not None:
            averaged = cast(SegmentationNetwork, self._average.module).eval()
            self.averaged = averaged.to(memory_format=torch.channels_last)  # it only predicts, faster so
        freeze_batch_norm(self.network, settings.learner.batch_norm == "frozen")
        self._features = None
        if settings.learner.trained == "decoder":
            freeze_encoder(self.network)
            self._features = FeatureCache(self.network, settings.learner.feature_cache_megabytes)
        self.steps = 0
        self.rate_share = 1.0
        """Step size as a share of `learner.learning_rate`."""
        self._batches = source if isinstance(source, SourceBatches) else None
        self._source_free = source if isinstance(source, SourceFree) else None
        self._class_weights = class_weights.to(device)
        self._source_weights = self._class_weights**settings.learner.class_weight_power
        self._keyframes = keyframes
        self._device = device
        self._rng = np.random.default_rng(settings.seed)
        self._teacher = teacher
        self._start_optimiser()

    def _new_average(self) -> AveragedModel:
        average = AveragedModel(self.network, multi_avg_fn=self._mix, use_buffers=True)
        average.n_averaged.fill_(1)  # the weights at the start are its first value
        return average

    def _start_optimiser(self) -> None:
        amp = self._settings.learner.amp and self._device.type == "cuda"
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimiser = torch.optim.Adam(learning, lr=self._settings.learner.learning_rate)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=amp)
        self._amp = amp

    def load_weights(self, state: dict[str, Tensor], base_share: float = 0.0) -> None:
        """Take over weights (roll-back, reset, resume): a teacher that learns follows, the optimiser starts afresh.

        Args:
            state: of a network.
            base_share: share of the base model in it, as `result()` has blended it.
        """
        if self._source_free is not None:
            state = self._source_free.learned(state, base_share)
        if self._features is not None and not self._features.fit(state):
            self._features.clear()
        self.network.load_state_dict(state)
        self.averaged.load_state_dict(state)
        if self._average is not None:
            self._average.n_averaged.fill_(1)
        if self._settings.learner.teacher_refresh:
            self.refresh_teacher()
        self._start_optimiser()

    def restart(self) -> None:
        """Forget what earlier steps and views have left beside the weights."""
        self.steps, self.rate_share = 0, 1.0
        if self._source_free is not None:
            self._source_free.forget()

    @property
    def features(self) -> FeatureCache | None:
        """Feature maps of the frozen encoder; None = it learns."""
        return self._features

    def result(self) -> SegmentationNetwork:
        """What should serve: `averaged`, or a new network between it and the base model without a source set."""
        return self.averaged if self._source_free is None else self._source_free.blended(self.averaged)

    @property
    def base_share(self) -> float:
        """Share of the base model in `result()`."""
        return 0.0 if self._source_free is None else self._settings.learner.base_share

    @property
    def source_left_out(self) -> int:
        """Number of source images that cannot be read at the moment."""
        return self._batches.left_out if self._batches is not None else 0

    def refresh_teacher(self) -> None:
        """Θ' ← Θ, or Θ' stays the base model's and only forgets its predictions (`learner.teacher_refresh` 0)."""
        if self._settings.learner.teacher_refresh:
            self._teacher.refresh(self.averaged)
        else:
            self._teacher.forget()

    def step(self) -> StepReport:
        """One gradient step.

        Raises:
            LearningError: the loss is not finite; the weights are as before the step.
        """
        start = time.perf_counter()
        settings = self._settings.learner
        self.network.train()
        source = self._batches.next().to(self._device) if self._batches is not None else None
        targets = self._draw_targets() if self._looks_at_targets else None
        outputs = self._outputs(source, targets)
        of_source, of_targets = outputs.split(0 if source is None else len(source))
        owed = self._source_loss(of_source, source, of_targets, targets)
        between = self._target_loss(of_targets, targets)
        geometric = between.geometric + settings.auxiliary_weight * between.auxiliary
        loss = owed.total + settings.lambda_geometric * geometric + settings.lambda_depth * between.depth
        numbers = {
            "loss": loss,
            "loss_source": owed.segmentation,
            "loss_geometric": between.geometric,
            "coverage": self._coverage(targets),
            "loss_auxiliary": owed.auxiliary + settings.lambda_geometric * between.auxiliary,
            "loss_depth_source": owed.depth,
            "loss_depth_geometric": between.depth,
        }
        values = torch.stack([number.detach() for number in numbers.values()]).tolist()
        self._descend(loss, values[0])
        self.steps += 1
        if self._average is not None:
            self._average.update_parameters(self.network)
        if settings.teacher_refresh and self.steps % settings.teacher_refresh == 0:
            self.refresh_teacher()
        seconds = time.perf_counter() - start
        return StepReport(self.steps, seconds=seconds, **dict(zip(numbers, values, strict=True)))

    def _outputs(self, source: SourceBatch | None, targets: _Targets | None) -> Outputs:
        """Outputs for the source images and the target images, in this order."""
        parts, keys = list[Tensor](), list[Hashable]()
        if source is not None:
            parts.append(source.images)
            keys += source.keys
        if targets is not None:
            parts.append(targets.images)
            keys += [view.id for view in targets.views]
        if not parts:
            raise LearningError("there is neither a source image nor a view that overlaps with another to learn from")
        images = torch.cat(parts)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed((self._settings.seed << 32) + self.steps)  # for dropout
            with torch.autocast(self._device.type, enabled=self._amp):
                if self._features is None:
                    return self.network.outputs(images)
                size = (images.shape[2], images.shape[3])
                return self.network.decode(self._features.features(keys, images), size)

    def _source_loss(
        self, of_source: Outputs, source: SourceBatch | None, of_targets: Outputs, targets: _Targets | None
    ) -> SourceLoss:
        """L_S, or the loss that stands in for it."""
        if source is not None:
            return source_loss(of_source, source, self._source_weights, self._settings.learner)
        assert self._source_free is not None
        assert targets is not None  # `_outputs` has refused a step without any image
        return self._source_free.loss(of_targets, targets.views)

    @property
    def _compares_depth(self) -> bool:
        return self.network.settings.depth_decoder and self._settings.learner.lambda_depth > 0

    @property
    def _looks_at_targets(self) -> bool:
        return self._settings.learner.lambda_geometric > 0 or self._compares_depth

    def _target_loss(self, outputs: Outputs, targets: _Targets | None) -> _TargetLoss:
        """Losses between the views; `outputs` are those of the targets."""
        nothing = outputs.logits.new_zeros((), dtype=torch.float32)
        if targets is None:
            return _TargetLoss(nothing, nothing, nothing)
        geometric = auxiliary = depth = nothing
        if self._settings.learner.lambda_geometric > 0:
            weights = self._geometric_weights
            geometric = geometric_loss(outputs.logits, targets.merged, targets.valid, weights)
            if outputs.auxiliary is not None:
                auxiliary = geometric_loss(outputs.auxiliary, targets.merged, targets.valid, weights)
        if outputs.depth is not None and self._compares_depth:
            geometry = self._settings.geometry
            pairs = [(target, self._few(neighbours)) for target, neighbours in targets.drawn]
            depth = depth_geometric_loss(targets.images, outputs.depth, pairs, self._teacher, geometry)
        return _TargetLoss(geometric, auxiliary, depth)

    @property
    def _geometric_weights(self) -> Tensor | None:
        """Class weights in L_G; None = all equal."""
        if self._source_free is not None:
            return self._source_free.class_weights.to(self._device)
        return self._class_weights if self._settings.learner.geometric_weights == "median_frequency" else None

    def _few(self, neighbours: list[Keyframe]) -> list[Keyframe]:
        """The neighbours, or some at random where all of them give the labels: L_DG warps their images at each step."""
        if self._settings.learner.neighbours:
            return neighbours
        return [neighbours[i] for i in self._rng.permutation(len(neighbours))[:DEPTH_NEIGHBOURS].tolist()]

    def _coverage(self, targets: _Targets | None) -> Tensor:
        """Share of the target pixels that have a merged label."""
        if targets is None:
            return torch.zeros((), device=self._device)
        return targets.valid.float().mean()

    def _descend(self, loss: Tensor, value: float) -> None:
        """Follow the gradient of the loss, whose value is `value`."""
        if not math.isfinite(value):
            raise LearningError(f"loss is {value} at step {self.steps + 1}: lower learner.learning_rate")
        for group in self._optimiser.param_groups:  # both factors may change between two steps
            group["lr"] = self._settings.learner.learning_rate * self.rate_share
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()

    @torch.no_grad()
    def _mix(self, means: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        """Move the average towards the network's new weights; whole numbers, such as counts of batches, are copied."""
        # The first steps count equally: with a constant decay the start would dominate for 1 / (1 - decay) steps.
        decay = min(self._settings.learner.weight_average, int(count) / (int(count) + WARM_UP))
        for mean, value in zip(means, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _draw_targets(self) -> _Targets | None:
        """Target views with the merged predictions of their neighbours; None while no view has a neighbour."""
        settings = self._settings.learner
        count = settings.target_images(self.network.settings.architecture)
        if self._source_free is not None:
            count = max(count, settings.source_batch)  # targets take the place of the source images
            self._source_free.forget(but=set(self._keyframes.ids()))  # rooms that were left long ago weigh nothing
            # A few views a step, because their labels are made for it: a step must not last for a minute.
            for view, label in itertools.islice(self.targets(but=self._source_free.is_counted), count):
                self._source_free.count(view, label)
        drawn = self._keyframes.draw(count, settings.neighbours, settings.min_overlap, self._rng)
        if not drawn:
            return None
        labels = [self._labels(target, neighbours) for target, neighbours in drawn]
        images = to_tensor([target.color for target, _ in drawn], self._device)
        return _Targets(drawn, images, torch.cat([m for m, _ in labels]), torch.cat([valid for _, valid in labels]))

    def _labels(self, target: Keyframe, neighbours: list[Keyframe]) -> tuple[Tensor, Tensor]:
        """Labels of one target and which of them count, as `Teacher.labels` gives them."""
        if self._labels_of is None:
            return self._teacher.labels(target, neighbours)
        label = self._labels_of(target)
        known = np.zeros(target.color.shape[:2], np.uint8) if label is None else label
        labels = torch.from_numpy(known.astype(np.int64))[None].to(self._device)
        return labels, (labels > 0).unsqueeze(1)

    def targets(
        self, but: Callable[[Keyframe], bool] = lambda view: False
    ) -> Iterator[tuple[Keyframe, NDArray[np.uint8]]]:
        """Every target view with the labels that a step would learn there now, (H, W) uint8, 0 = none.

        Args:
            but: tells which views are left out.
        """
        settings = self._settings.learner
        count = len(self._keyframes)
        drawn = self._keyframes.draw(count, settings.neighbours, settings.min_overlap, np.random.default_rng(0))
        for target, neighbours in drawn:
            if but(target):
                continue
            labels, valid = self._labels(target, neighbours)
            ids = labels.argmax(dim=1) + 1 if labels.is_floating_point() else labels
            yield target, (ids * valid[:, 0])[0].to(torch.uint8).cpu().numpy()
