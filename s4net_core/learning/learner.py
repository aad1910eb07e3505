"""One step of S4-Net: L_S on labelled source images plus λ L_G on keyframes of the target scene."""

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.errors import LearningError
from s4net_core.inference import to_tensor
from s4net_core.io.source_set import SourceBatches
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import geometric_loss, supervised_loss
from s4net_core.models.build import SegmentationNetwork, freeze_batch_norm

WARM_UP = 10
"""Steps over which the average of the weights grows to its full length."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Args:
        step: number of steps done, this one included.
        loss: L_S + λ L_G.
        loss_source: L_S.
        loss_geometric: L_G before λ; 0 when λ is 0.
        coverage: share of target pixels that had a merged label.
        seconds: duration.
    """

    step: int
    loss: float
    loss_source: float
    loss_geometric: float
    coverage: float
    seconds: float


class Learner:
    """Finetunes a network on batches of source images and keyframes.

    Every random choice follows from `settings.seed` and the step number: the same seed gives the same run on a CPU.

    `network` takes the steps; `averaged` is what should serve: an exponential average of the weights where
    `learner.weight_average` asks for one, because single steps on eight images scatter, else `network` itself.

    Args:
        network: trained in place.
        source: yields labelled batches.
        class_weights: (C,) median-frequency weights of the source set.
        keyframes: target views; may grow and shrink between steps.
        settings: groups `learner` and `geometry`, and `seed`.
        device: where training runs.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        source: SourceBatches,
        class_weights: Tensor,
        keyframes: KeyframeBuffer,
        settings: Settings,
        device: torch.device,
    ) -> None:
        self.network = network.to(device)
        self.averaged = copy.deepcopy(network).eval() if settings.learner.weight_average else self.network
        freeze_batch_norm(self.network, settings.learner.batch_norm == "frozen")
        self.steps = 0
        self._source = source
        self._class_weights = class_weights.to(device)
        self._keyframes = keyframes
        self._settings = settings
        self._device = device
        self._rng = np.random.default_rng(settings.seed)
        self._teacher = Teacher(network, keyframes, settings, device)
        self._average_steps = 0
        self._start_optimiser()

    def _start_optimiser(self) -> None:
        amp = self._settings.learner.amp and self._device.type == "cuda"
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=self._settings.learner.learning_rate)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=amp)
        self._amp = amp

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Take over weights (roll-back, reset, resume): the teacher follows and the optimiser starts afresh."""
        self.network.load_state_dict(state)
        self.averaged.load_state_dict(state)
        self._average_steps = 0
        self._teacher.refresh(self.network)
        self._start_optimiser()

    def refresh_teacher(self) -> None:
        """Θ' ← Θ."""
        self._teacher.refresh(self.averaged)

    def step(self) -> StepReport:
        """One gradient step.

        Raises:
            LearningError: the loss is not finite; the weights are as before the step.
        """
        start = time.perf_counter()
        settings = self._settings.learner
        self.network.train()
        source = self._source.next().to(self._device)
        targets = self._draw_targets() if settings.lambda_geometric > 0 else None
        images = source.images if targets is None else torch.cat([source.images, targets[0]])
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed((self._settings.seed << 32) + self.steps)
            with torch.autocast(self._device.type, enabled=self._amp):
                logits = self.network(images)
        loss_s = supervised_loss(logits[: len(source)], source.labels, self._class_weights)
        loss_g, coverage = loss_s.new_zeros(()), 0.0
        if targets is not None:
            _, merged, valid = targets
            loss_g = geometric_loss(logits[len(source) :], merged, valid)
            coverage = float(valid.float().mean())
        loss = loss_s + settings.lambda_geometric * loss_g
        self._descend(loss)
        self.steps += 1
        self._average()
        if self.steps % settings.teacher_refresh == 0:
            self.refresh_teacher()
        return StepReport(
            self.steps,
            loss=float(loss.detach()),
            loss_source=float(loss_s.detach()),
            loss_geometric=float(loss_g.detach()),
            coverage=coverage,
            seconds=time.perf_counter() - start,
        )

    def _descend(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            value = float(loss.detach())
            raise LearningError(f"loss is {value} at step {self.steps + 1}: lower learner.learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is self.network:
            return
        self._average_steps += 1
        # The first steps count equally: a constant decay would hold on to the start for 1 / (1 - decay) steps.
        decay = min(self._settings.learner.weight_average, self._average_steps / (self._average_steps + WARM_UP))
        for mean, value in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _draw_targets(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Target views with the labels of their neighbours.

        Returns:
            images (B, 3, H, W), merged ids (B, H, W) and valid (B, 1, H, W); None while no view has a neighbour.
        """
        settings = self._settings.learner
        drawn = self._keyframes.draw(self._settings.target_batch, settings.neighbours, settings.min_overlap, self._rng)
        if not drawn:
            return None
        labels = [self._teacher.labels(target, neighbours) for target, neighbours in drawn]
        images = to_tensor([target.color for target, _ in drawn], self._device)
        return images, torch.cat([merged for merged, _ in labels]), torch.cat([valid for _, valid in labels])
