"""Pre-training: supervised training on the source set alone, which gives the base model (paper: L_S and L_DS)."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from s4net_core.classes import label_space_of
from s4net_core.config import LearnerSettings, Settings, leaves
from s4net_core.errors import LearningError, SettingsError, SourceSetError
from s4net_core.evaluation.metrics import pooled_scores
from s4net_core.evaluation.scoring import confusion
from s4net_core.files import creation_time
from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.io.source_sets.source_set import SourceSet, in_label_space, split
from s4net_core.labels import LABEL_SPACES, LabelSpace
from s4net_core.learning.augment import Augmentation
from s4net_core.learning.devices import training_fabric
from s4net_core.learning.interrupt import Interrupt
from s4net_core.learning.source_loader import AugmentedImages, Item, draw_seed, source_loader, to_batch
from s4net_core.learning.source_loss import source_loss
from s4net_core.learning.training_log import TrainingLog
from s4net_core.learning.training_state import load_state, save_state
from s4net_core.losses import median_frequency_weights
from s4net_core.models.build import SegmentationNetwork, build_network, freeze_batch_norm
from s4net_core.models.checkpoint import (
    CheckpointInfo,
    file_sha256,
    load_checkpoint,
    read_info,
    save_checkpoint,
    warn_of_other_network,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps in which the step size of `one_cycle` rises to its setting; then it falls to zero."""
DROPOUT = 2
"""Keeps the random numbers of the network apart from those of `source_loader`."""
MAY_CHANGE = {
    "model.encoder_weights",
    *(f"pretrain.{name}" for name in ("devices", "batch", "evaluate_every", "patience", "steps")),
}
"""What of `training_settings` a resumed run may change; the number of images a step may not."""


@dataclass(frozen=True)
class TrainingReport:
    """What one step did, on all devices together.

    Args:
        step: number of steps done, this one included.
        loss: what is minimised.
        segmentation: L_S.
        auxiliary: L_S of the auxiliary branch, before its weight; 0 without one.
        depth: L_DS, metres; 0 without a depth decoder.
        learning_rate: step size of the next step.
        seconds: duration.
        waited: part of `seconds` spent waiting for the images.
    """

    step: int
    loss: float
    segmentation: float
    auxiliary: float
    depth: float
    learning_rate: float
    seconds: float
    waited: float


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

    def forward(self, images: Tensor, labels: Tensor, depth: Tensor) -> Tensor:
        """Losses of one batch; arguments as in `SourceBatch`.

        Returns:
            (4,): what is minimised, L_S, L_S of the auxiliary branch, L_DS.
        """
        batch = SourceBatch(images, labels, depth)
        loss = source_loss(self.network.outputs(images), batch, self.class_weights, self._settings)
        return torch.stack([loss.total, loss.segmentation, loss.auxiliary, loss.depth])


class Pretraining:
    """Trains a network until the mIoU on the test images stops rising; `output` holds the best weights so far.

    Every random choice follows from the seed and the step, so a resumed run gives the same result.

    With several devices, each has its own process, which does the same with other images. Losses and
    gradients are the mean over the devices. Live batch norm takes its statistics of the images of all devices on CUDA
    (SyncBatchNorm), but of each process's own images on a CPU, where torch cannot combine them.

    Args:
        settings: groups `model`, `pretrain`, `guard.holdout`, `learner.mirror`, and `seed`, `device`.
        source: labelled images; the guard's hold-out is left out, so that it measures forgetting honestly later.
        output: weights file to write.
        test: images to measure on; None = that hold-out.
        half: store float16.
        start: weights file to go on from, whose network and classes are kept, and which is measured first; None = a new
            network.
        state: file from which the run can be resumed, written with every measurement and when Ctrl-C or SIGTERM
            ends training; None = none.
        resume: go on from `state`.
        fabric: devices to train on; None = as the settings say.
        track: goes through the labels of the source set, which are all read first, e.g. with a progress bar.

    Raises:
        SourceSetError: the source set is too small, has a class that `model.label_space` lacks, or has no depth for the
            depth decoder.
        CheckpointError: `start` is no weights file.
        CheckpointError, SettingsError: `state` holds no run to resume, or another one.
        S4NetError: SOURCE_DATE_EPOCH is no time.
    """

    def __init__(
        self,
        settings: Settings,
        source: SourceSet,
        output: str | Path,
        *,
        test: SourceSet | None = None,
        half: bool = False,
        start: str | Path | None = None,
        state: str | Path | None = None,
        resume: bool = False,
        fabric: "Fabric | None" = None,
        track: Callable[[Sequence[int]], Iterable[int]] = iter,
    ) -> None:
        creation_time()  # if the time is invalid, fail now and not after the last step
        if state is None and resume:
            raise SettingsError("resuming needs a state: give the state file of the interrupted run")
        network, settings = (None, settings.sized()) if start is None else _loaded(start, settings)
        self._settings = settings
        self._output, self._half, self._state = Path(output), half, None if state is None else Path(state)
        self._fabric = fabric = fabric or training_fabric(settings)
        self._space = space = network.label_space if network else label_space_of(settings.model.label_space)
        source, test = in_label_space(source, space), None if test is None else in_label_space(test, space)
        train, holdout = split(source, settings.guard.holdout)
        if settings.model.depth_decoder and source[train[0]].depth is None:
            if start is None:
                raise SourceSetError(
                    f"source set {source.name} has no depth, which model.depth_decoder learns: give one with depth"
                )
            log.warning("source set %s has no depth: the depth decoder of %s learns nothing", source.name, start)
        self._test, self._test_indices = (source, holdout) if test is None else (test, list(range(len(test))))
        augmentation = Augmentation(settings.pretrain, *settings.model.size, mirror=settings.learner.mirror)
        self._images = AugmentedImages(source, train, augmentation, settings.seed)
        self._run = _describe(settings, source, space, len(train), fabric.world_size)
        self._parent = "" if start is None else file_sha256(start)
        if self._parent:
            self._run["weights at the start"] = self._parent
        saved = load_state(self._state, self._run) if resume and self._state else None
        self.network = self._prepared(network or self._new_network(with_encoder_weights=saved is None))
        weights = median_frequency_weights(map(source.label, track(train)), self.network.num_classes)
        weights **= settings.pretrain.class_weight_power
        losses = SourceLosses(self.network, weights, settings.learner)
        optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.pretrain.learning_rate)
        self._schedule = _new_schedule(settings, optimiser)
        self._on_devices, self._optimiser = fabric.setup(losses, optimiser)
        self.steps = 0
        self._best, self._scores_without_gain = -1.0, 0
        if saved is not None:
            self._load(saved)

    def run(
        self,
        *,
        log: Path | None = None,
        on_step: Callable[[TrainingReport], None] = lambda report: None,
        on_score: Callable[[Score], None] = lambda score: None,
    ) -> CheckpointInfo:
        """Train to the end.

        Args:
            log: folder for TensorBoard; None = no curves.
            on_step: called after every step, in the first process alone.
            on_score: called after every measurement, in the first process alone.

        Returns:
            Metadata of the written file, with its metrics.

        Raises:
            LearningError: the loss is not finite.
            KeyboardInterrupt: after Ctrl-C or SIGTERM.
        """
        first = self._fabric.is_global_zero
        with Interrupt() as interrupt, TrainingLog(log if first else None, self.steps) as curves:

            def measure() -> None:
                score = self._measure()
                if first:
                    on_score(score)
                    curves.write(score.step, {"test/miou": score.miou, "test/pixel_accuracy": score.pixel_accuracy})

            if self._parent and not self.steps and self._settings.pretrain.evaluate_every:
                measure()  # weights that training makes worse stay the best
            items = self._items()
            while not self._finished:
                start = time.perf_counter()
                batch = next(items)
                waited = time.perf_counter() - start
                loss, asked = self._step(batch, interrupt.asked)
                seconds, learning_rate = time.perf_counter() - start, float(self._schedule.get_last_lr()[0])
                report = TrainingReport(self.steps, *loss, learning_rate, seconds, waited)
                if first:
                    on_step(report)
                    _log_step(curves, report)
                if self._measures:
                    measure()
                if self._measures or asked:
                    self._save()
                if asked and not self._finished:
                    # The other processes end without an error: Lightning would kill the first if one failed.
                    raise KeyboardInterrupt if first else SystemExit(0)
        return read_info(self._output)

    def _new_network(self, *, with_encoder_weights: bool) -> SegmentationNetwork:
        torch.manual_seed(self._settings.seed)
        model = self._settings.model
        if not with_encoder_weights:
            model = model.model_copy(update={"encoder_weights": "none"})
        return build_network(model, label_space=self._space)

    def _prepared(self, network: SegmentationNetwork) -> SegmentationNetwork:
        """The network with its batch norms as the settings ask."""
        if self._settings.pretrain.batch_norm == "frozen":
            freeze_batch_norm(network)
        elif self._fabric.world_size > 1 and self._fabric.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return network

    @property
    def _finished(self) -> bool:
        """Whether all steps are done, or the mIoU has stopped rising."""
        pretrain = self._settings.pretrain
        return self.steps >= pretrain.steps or 0 < pretrain.patience <= self._scores_without_gain

    @property
    def _measures(self) -> bool:
        """Whether a measurement is due after the steps so far."""
        every = self._settings.pretrain.evaluate_every
        return self.steps >= self._settings.pretrain.steps or bool(every and self.steps % every == 0)

    def _items(self) -> Iterator[Item]:
        """Images for the remaining steps, this process's part."""
        return source_loader(
            self._images,
            self._settings.pretrain.batch,
            first_step=self.steps,
            rank=self._fabric.global_rank,
            ranks=self._fabric.world_size,
            workers=self._settings.pretrain.workers,
        )

    def _step(self, items: Item, asked: bool) -> tuple[tuple[float, float, float, float], bool]:
        """One gradient step.

        Args:
            items: from `_items`.
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
        losses = self._on_devices(batch.images, batch.labels, batch.depth)
        mean = self._mean(torch.cat([losses.detach(), losses.new_tensor([float(asked)])]))
        if not bool(torch.isfinite(mean[0])):
            raise LearningError(f"loss is {float(mean[0])} at step {self.steps + 1}: lower pretrain.learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        fabric.backward(losses[0])
        self._optimiser.step()
        self._schedule.step()
        self.steps += 1
        total, segmentation, auxiliary, depth, any_asked = mean.tolist()
        return (total, segmentation, auxiliary, depth), any_asked > 0

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, which wait here for each other; `values` are not changed."""
        mean = self._fabric.all_reduce(values.clone(), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _measure(self) -> Score:
        """Scores on the test images; the best weights so far are written."""
        fabric = self._fabric
        self._share_statistics()
        mine = (self._test[i] for i in self._test_indices[fabric.global_rank :: fabric.world_size])
        labelled = ((image.color, image.label) for image in mine)
        matrix = confusion(self.network, labelled, self._settings, fabric.device)
        counts = fabric.all_reduce(torch.from_numpy(matrix.counts).to(fabric.device), reduce_op="sum")
        assert isinstance(counts, Tensor)
        scores = pooled_scores(counts.cpu().numpy())
        best = scores.miou > self._best or not self._settings.pretrain.evaluate_every
        self._scores_without_gain = 0 if best else self._scores_without_gain + 1
        if best:
            self._best = scores.miou
            metrics = {"source_miou": scores.miou, "source_pixel_accuracy": scores.pixel_accuracy}
            if fabric.is_global_zero:
                info = CheckpointInfo(
                    model=self.network.settings, parent=self._parent, step=self.steps, metrics=metrics
                )
                save_checkpoint(self._output, self.network, info, half=self._half)
        fabric.barrier()
        return Score(self.steps, len(self._test_indices), scores.miou, scores.pixel_accuracy, best)

    def _share_statistics(self) -> None:
        """Live batch norm on several CPU processes: set the statistics of all processes to their mean."""
        for buffer in self.network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self._mean(buffer))

    def _save(self) -> None:
        """Write the file that a resumed run reads.

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
        if self._output.is_file():  # else the best weights are lost: the next measured ones count as best
            self._best, self._scores_without_gain = saved["best"], saved["scores_without_gain"]


def _log_step(curves: TrainingLog, report: TrainingReport) -> None:
    losses = {"total": report.loss, "segmentation": report.segmentation}
    losses |= {name: value for name in ("auxiliary", "depth") if (value := getattr(report, name))}
    values = {f"loss/{name}": value for name, value in losses.items()}
    speed = {"speed/seconds_per_step": report.seconds, "speed/seconds_waited_for_images": report.waited}
    curves.write(report.step, values | speed | {"learning_rate": report.learning_rate})


def _new_schedule(settings: Settings, optimiser: torch.optim.Optimizer) -> LRScheduler:
    pretrain = settings.pretrain
    if pretrain.schedule == "constant":
        return ConstantLR(optimiser, factor=1.0)
    # Ends near zero: without measurements the last weights are kept, which large steps would still scatter.
    return OneCycleLR(optimiser, pretrain.learning_rate, total_steps=pretrain.steps, pct_start=WARM_UP)


def _loaded(start: str | Path, settings: Settings) -> tuple[SegmentationNetwork, Settings]:
    """The network of a weights file, and the settings with it: images have the size that they give, else the file's."""
    network, info = load_checkpoint(start)
    warn_of_other_network(start, info.model, settings.model)
    width, height = settings.sized(info.model).model.size
    network.settings = network.settings.model_copy(update={"width": width, "height": height})
    return network, settings.model_copy(update={"model": network.settings})


def training_settings(settings: Settings, space: LabelSpace) -> dict[str, Any]:
    """Settings on which the weights of a new network depend, by dotted name; beside them only its images count.

    Args:
        settings: with an image size.
        space: the network's classes; its own are told by their names, because the content of their file counts.
    """
    groups = ("model.", "pretrain.", "seed", "guard.holdout", "learner.mirror", "learner.auxiliary_weight")
    found = {leaf.name: leaf.value for leaf in leaves(settings) if leaf.name.startswith(groups)}
    del found["pretrain.workers"]  # who reads the images does not change them
    if space.name not in LABEL_SPACES:
        found["model.label_space"] = ", ".join(space.names)
    return found


def _describe(settings: Settings, source: SourceSet, space: LabelSpace, images: int, processes: int) -> dict[str, Any]:
    """Values that must be equal when a run is resumed."""
    may_change = MAY_CHANGE - ({"pretrain.steps"} if settings.pretrain.schedule == "one_cycle" else set())
    run = {name: value for name, value in training_settings(settings, space).items() if name not in may_change}
    return run | {"source set": source.name, "its images": images, "images a step": settings.pretrain.batch * processes}
