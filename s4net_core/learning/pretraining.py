"""A run of supervised training on one or several devices: its steps, its measurements, how it is saved and resumed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from s4net_core.config import LearnerSettings, Settings, leaves
from s4net_core.errors import LearningError
from s4net_core.evaluation.metrics import ConfusionMatrix, pooled_scores
from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.io.source_sets.source_set import SourceSet, split
from s4net_core.learning.augment import Augmentation
from s4net_core.learning.devices import Processes
from s4net_core.learning.source_loader import AugmentedImages, Item, draw_seed, source_loader, to_batch
from s4net_core.learning.source_loss import source_loss
from s4net_core.learning.training_state import load_state, save_state
from s4net_core.losses import label_weight, median_frequency_weights
from s4net_core.models.build import SegmentationNetwork, build_network, freeze_batch_norm
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint
from s4net_core.models.predict import BATCH, predict_labels

if TYPE_CHECKING:
    from lightning_fabric import Fabric

WARM_UP = 0.1
"""Share of the steps in which the step size of `one_cycle` rises to its setting; then it falls to zero."""
DROPOUT = 2
"""Keeps the random numbers of the network apart from those of `source_loader`."""
MAY_CHANGE = {"devices", "batch", "workers", "evaluate_every", "patience", "steps"}
"""Settings of the group `pretrain` that a resumed run may change; the number of images a step may not."""


@dataclass(frozen=True)
class Score:
    """One measurement on the test images.

    Args:
        step: after this many steps.
        images: number of test images.
        miou, pixel_accuracy: pooled over the images.
        best: whether it is the best so far, so that these weights are kept.
    """

    step: int
    images: int
    miou: float
    pixel_accuracy: float
    best: bool


class SourceLosses(nn.Module):
    """The network with its losses, as one module: what runs on each device.

    The mean over the devices of what it returns, and of the gradients, is that of one device with all of the images.

    Args:
        network: trained.
        class_weights: (C,).
        settings: `auxiliary_weight`.
    """

    class_weights: Tensor

    def __init__(self, network: SegmentationNetwork, class_weights: Tensor, settings: LearnerSettings) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("class_weights", class_weights)
        self._settings = settings

    def weight(self, batch: SourceBatch) -> Tensor:
        """(2,): by how much a batch counts in L_S (labelled pixels, by class) and in L_DS (pixels with depth)."""
        return torch.stack([label_weight(batch.labels, self.class_weights), (batch.depth > 0).sum().float()])

    def forward(self, images: Tensor, labels: Tensor, depth: Tensor, share: Tensor) -> Tensor:
        """Losses of one batch.

        Args:
            images, labels, depth: as in `SourceBatch`.
            share: (2,) by how much its L_S and its L_DS count here, relative to the mean of the devices; 1 on one.

        Returns:
            (4,): what is minimised, L_S, L_S of the auxiliary branch, L_DS.
        """
        batch = SourceBatch(images, labels, depth)
        loss = source_loss(self.network.outputs(images), batch, self.class_weights, self._settings)
        total = share[0] * (loss.total - loss.depth) + share[1] * loss.depth
        return torch.stack([total, share[0] * loss.segmentation, share[0] * loss.auxiliary, share[1] * loss.depth])


class Pretraining:
    """A training run, step by step, in one or several processes that call the same methods.

    Live batch norm takes its statistics of the images of all devices on CUDA (SyncBatchNorm), but of each process's own
    images on a CPU, where torch cannot join them; with frozen batch norm several processes are the same as one.

    Args:
        settings, source, output, test, half, state, resume, fabric, track: as in `pretrain`.
    """

    def __init__(
        self,
        settings: Settings,
        source: SourceSet,
        output: Path,
        *,
        test: SourceSet | None,
        half: bool,
        state: Path | None,
        resume: bool,
        fabric: "Fabric",
        track: Callable[[Sequence[int]], Iterable[int]],
    ) -> None:
        self._settings = settings
        self._output, self._half, self._state = output, half, state
        self._fabric, self._processes = fabric, Processes(fabric)
        train, holdout = split(source, settings.guard.holdout)
        self._test, self._test_indices = (source, holdout) if test is None else (test, list(range(len(test))))
        model = settings.model
        augmentation = Augmentation(settings.pretrain, model.width, model.height, mirror=settings.learner.mirror)
        self._images = AugmentedImages(source, train, augmentation, settings.seed)
        self._run = _describe(settings, source, len(train), fabric.world_size)
        saved = load_state(state, self._run) if resume and state else None
        self.network = self._new_network(with_encoder_weights=saved is None)
        weights = median_frequency_weights(map(source.label, track(train)), self.network.num_classes)
        self._losses = SourceLosses(self.network, weights, settings.learner)
        optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.pretrain.learning_rate)
        self._schedule = _new_schedule(settings, optimiser)
        self._on_devices, self._optimiser = fabric.setup(self._losses, optimiser)
        self.steps = 0
        self._best, self._scores_without_gain = -1.0, 0
        if saved is not None:
            self._load(saved)

    def _new_network(self, *, with_encoder_weights: bool) -> SegmentationNetwork:
        torch.manual_seed(self._settings.seed)
        model = self._settings.model
        if not with_encoder_weights:
            model = model.model_copy(update={"encoder_weights": "none"})
        network = build_network(model)
        if self._settings.pretrain.batch_norm == "frozen":
            freeze_batch_norm(network)
        elif self._fabric.world_size > 1 and self._fabric.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return network

    @property
    def finished(self) -> bool:
        """Whether the steps are used up, or the mIoU rises no more."""
        pretrain = self._settings.pretrain
        return self.steps >= pretrain.steps or 0 < pretrain.patience <= self._scores_without_gain

    @property
    def measures(self) -> bool:
        """Whether a measurement is due after the steps so far."""
        every = self._settings.pretrain.evaluate_every
        return self.steps >= self._settings.pretrain.steps or bool(every and self.steps % every == 0)

    @property
    def learning_rate(self) -> float:
        """Step size of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def items(self) -> Iterator[Item]:
        """The images of the steps that are still to be done, this process's part of them."""
        return source_loader(
            self._images,
            self._settings.pretrain.batch,
            first_step=self.steps,
            rank=self._fabric.global_rank,
            ranks=self._fabric.world_size,
            workers=self._settings.pretrain.workers,
        )

    def step(self, items: Item, asked: bool = False) -> tuple[tuple[float, float, float, float], bool]:
        """One gradient step.

        Args:
            items: from `items`.
            asked: whether this process has been asked to end.

        Returns:
            Losses as `SourceLosses` gives them, and whether any process has been asked to end.

        Raises:
            LearningError: the loss is not finite; the weights are as before the step.
        """
        fabric = self._fabric
        batch = to_batch(items, fabric.device)
        self.network.train()
        torch.manual_seed(draw_seed(self._settings.seed, DROPOUT, self.steps, fabric.global_rank))
        # Gradients and losses are averaged over the processes, not summed.
        share = self._processes.share(self._losses.weight(batch)) * fabric.world_size
        losses = self._on_devices(batch.images, batch.labels, batch.depth, share)
        mean = self._processes.sum(torch.cat([losses.detach(), losses.new_tensor([float(asked)])])) / fabric.world_size
        if not bool(torch.isfinite(mean[0])):
            raise LearningError(f"loss is {float(mean[0])} at step {self.steps + 1}: lower pretrain.learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        fabric.backward(losses[0])
        self._optimiser.step()
        self._schedule.step()
        self.steps += 1
        total, segmentation, auxiliary, depth, any_asked = mean.tolist()
        return (total, segmentation, auxiliary, depth), any_asked > 0

    def measure(self) -> Score:
        """Scores on the test images; the best weights so far are written."""
        fabric = self._fabric
        self._share_statistics()
        matrix = ConfusionMatrix(self.network.num_classes)
        mine = self._test_indices[fabric.global_rank :: fabric.world_size]
        for start in range(0, len(mine), BATCH):
            images = [self._test[i] for i in mine[start : start + BATCH]]
            labels = predict_labels(self.network, [i.color for i in images], self._settings, fabric.device)
            for image, label in zip(images, labels, strict=True):
                matrix.add(image.label, label)
        counts = self._processes.sum(torch.from_numpy(matrix.counts).to(fabric.device))
        scores = pooled_scores(counts.cpu().numpy())
        best = scores.miou > self._best or not self._settings.pretrain.evaluate_every
        self._scores_without_gain = 0 if best else self._scores_without_gain + 1
        if best:
            self._best = scores.miou
            metrics = {"source_miou": scores.miou, "source_pixel_accuracy": scores.pixel_accuracy}
            if fabric.is_global_zero:
                info = CheckpointInfo(model=self.network.settings, step=self.steps, metrics=metrics)
                save_checkpoint(self._output, self.network, info, half=self._half)
        fabric.barrier()
        return Score(self.steps, len(self._test_indices), scores.miou, scores.pixel_accuracy, best)

    def _share_statistics(self) -> None:
        """Live batch norm on several CPU processes: all of them measure, and keep, the mean of their statistics."""
        for buffer in self.network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self._processes.sum(buffer) / self._fabric.world_size)

    def save(self) -> None:
        """Write what a resumed run reads.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._state is not None and self._fabric.is_global_zero:
            state = {
                "network": self.network.state_dict(),
                "optimiser": self._optimiser.optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "precision": self._fabric.strategy.precision.state_dict(),
                "steps": self.steps,
                "best": self._best,
                "scores_without_gain": self._scores_without_gain,
            }
            save_state(self._state, self._run, state)
        self._fabric.barrier()

    def _load(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._schedule.load_state_dict(saved["schedule"])
        self._fabric.strategy.precision.load_state_dict(saved["precision"])
        self.steps = saved["steps"]
        if self._output.is_file():  # else the best weights are lost, and the next ones are the best there are
            self._best, self._scores_without_gain = saved["best"], saved["scores_without_gain"]


def _new_schedule(settings: Settings, optimiser: torch.optim.Optimizer) -> LRScheduler:
    pretrain = settings.pretrain
    if pretrain.schedule == "constant":
        return ConstantLR(optimiser, factor=1.0)
    # Ends near zero: without measurements the base model is judged where training stops, which should not be mid-swing.
    return OneCycleLR(optimiser, pretrain.learning_rate, total_steps=pretrain.steps, pct_start=WARM_UP)


def _describe(settings: Settings, source: SourceSet, images: int, processes: int) -> dict[str, Any]:
    """What must be the same where a run goes on."""
    may_change = {f"pretrain.{name}" for name in MAY_CHANGE} | {"model.encoder_weights"}
    if settings.pretrain.schedule == "one_cycle":
        may_change.discard("pretrain.steps")
    groups = ("model.", "pretrain.", "seed", "guard.holdout", "learner.mirror", "learner.auxiliary_weight")
    run = {leaf.name: leaf.value for leaf in leaves(settings) if leaf.name.startswith(groups)}
    run = {name: value for name, value in run.items() if name not in may_change}
    return run | {"source set": source.name, "its images": images, "images a step": settings.pretrain.batch * processes}
