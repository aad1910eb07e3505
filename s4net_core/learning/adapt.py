"""The loop around the learner that the adaptation node and `s4net adapt` share: frames in, guarded weights out."""

import copy
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import Settings, with_values
from s4net_core.errors import CheckpointError, KeyframeError, LearningError
from s4net_core.files import creation_time, write_result
from s4net_core.frames import View
from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.source_set import SourceSet, split
from s4net_core.keyframes import Decision, KeyframeBuffer
from s4net_core.learning.base_model import check_branches
from s4net_core.learning.devices import Processes
from s4net_core.learning.guard import Guard
from s4net_core.learning.learner import Learner
from s4net_core.learning.versions import Version, VersionStore, base_version
from s4net_core.losses import median_frequency_weights
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import save_checkpoint
from s4net_core.models.predict import pick_device
from s4net_core.models.segmenter import Segmenter

log = logging.getLogger(__name__)

NAN = float("nan")
BOOT = "boot_id"
"""File beside the keyframes: the run of the computer in which they were taken."""
BEST_GAIN, WITHOUT_GAIN = "best_agreement_gain", "handovers_without_gain"
"""Metrics of a version by which a later run knows whether the agreement still rises."""
MAX_BROKEN_STEPS = 5
"""Losses in a row that are not finite, after which rolling back and trying again has no sense."""


@dataclass(frozen=True)
class Handover:
    """Outcome of one attempt to hand weights over.

    Args:
        version: what serves from now on.
        reasons: why the guard refused the new weights; empty = accepted. After a refusal `version` is the last good one
            and the learner goes on from there.
    """

    version: Version
    reasons: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether `version` is new."""
        return not self.reasons


@dataclass(frozen=True)
class AdaptationStatus:
    """What `adaptation/status` and the progress bar show; NaN = not measured yet."""

    state: str = "waiting"
    keyframes: int = 0
    keyframe_bytes: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    loss: float = NAN
    loss_source: float = NAN
    loss_geometric: float = NAN
    loss_depth_source: float = NAN
    loss_depth_geometric: float = NAN
    coverage: float = NAN
    step_seconds: float = NAN
    version: int = 0
    handovers: int = 0
    refused: int = 0
    last_refusal: str = ""
    agreement: float = NAN
    base_agreement: float = NAN
    source_miou: float = NAN
    base_source_miou: float = NAN
    model_path: str = ""
    model_sha256: str = ""


class Adaptation:
    """Adapts one base model to one place, and keeps what it learnt in a folder.

    `offer` may be called from another thread than `advance` and never waits for it; the other methods wait for the
    running step at most. The folder holds one sub-folder a base model, so that changing the base model neither mixes
    weights nor loses any.

    Args:
        settings: all groups; `settings.model` must fit the checkpoint.
        checkpoint: weights file of the base model.
        source: labelled source set; a hold-out is split off for the guard.
        state_dir: keyframes and weights; what is found there is taken up again.
        track: goes through the labels of the source set, which are all read here, e.g. with a progress bar.
        processes: those that adapt together, each on its device: all of them make the same calls, the first one writes.

    Raises:
        CheckpointError: the base model cannot be loaded, or lacks a branch that the settings ask for.
        SourceSetError: the source set is too small for a hold-out.
        S4NetError: SOURCE_DATE_EPOCH is no time.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: str | Path,
        source: SourceSet,
        state_dir: str | Path,
        *,
        track: Callable[[Sequence[int]], Iterable[int]] = iter,
        processes: Processes | None = None,
    ) -> None:
        creation_time()  # if it cannot be told, now, and not after the first steps
        self.settings = settings
        self._lock = threading.RLock()
        self._processes = processes or Processes()
        self._device = self._processes.device or pick_device(settings.device)
        network, base = base_version(checkpoint)
        check_branches(base.path, base.info.model, settings)
        self._take_over_size(network, base)
        self._base_network = network.to(self._device).eval().requires_grad_(False)
        self._folder = Path(state_dir).expanduser() / base.sha256[:12]
        self._versions = VersionStore(base, self._folder, settings.adaptation.keep_versions, self._processes)
        self._depth_model = None if settings.geometry.from_sensor else self._new_depth_model()
        self._depth_version = self.current
        self.keyframes = KeyframeBuffer(
            settings.keyframes,
            settings.geometry,
            min_overlap=settings.learner.min_overlap,
            size=(settings.model.width, settings.model.height),
            predict_depth=self._predict_depth if self._depth_model else None,
        )
        train, holdout = split(source, settings.guard.holdout)
        self._guard = Guard(self._base_network, source, holdout, self.keyframes, settings, self._device)
        self._learner = self._new_learner(source, train, track)
        self._best_gain, self._handovers_without_gain = 0.0, 0
        self._broken_steps = 0
        self._advancing = False
        self._steps_before_views = 0
        self._status = AdaptationStatus()
        self._resume()

    def _new_depth_model(self) -> Segmenter:
        """Predicts depth with copies of the weights of its own; a graph that serves labels as ONNX could not."""
        settings = with_values(self.settings, {"segmentation.runtime": "torch"})
        return Segmenter(self.current.path, self._device, settings)

    def _take_over_size(self, network: SegmentationNetwork, base: Version) -> None:
        """What is written from here on was learnt at the size in the settings."""
        trained, model = base.info.model, self.settings.model
        if (trained.width, trained.height) != (model.width, model.height):
            log.warning(
                "%s was trained at %dx%d but images are processed at %dx%d: see model.width and model.height",
                *(base.path, trained.width, trained.height, model.width, model.height),
            )
        network.settings = network.settings.model_copy(update={"width": model.width, "height": model.height})

    def _new_learner(
        self, source: SourceSet, train: list[int], track: Callable[[Sequence[int]], Iterable[int]]
    ) -> Learner:
        model, learner = self.settings.model, self.settings.learner
        batches = SourceBatches(
            source,
            learner.source_batch,
            model.width,
            model.height,
            learner.mirror,
            np.random.default_rng(self.settings.seed),
            cache_megabytes=self.settings.source.cache_megabytes,
            indices=train,
        )
        network = copy.deepcopy(self._base_network).requires_grad_(True)
        if network.settings.depth_decoder and source[train[0]].depth is None:
            log.warning("source set %s has no depth: the depth decoder learns from pairs of views alone", source.name)
        weights = median_frequency_weights(map(source.label, track(train)), network.num_classes)
        return Learner(network, batches, weights, self.keyframes, self.settings, self._device)

    def _resume(self) -> None:
        for problem in self._load_keyframes():
            log.warning("saved keyframes: %s", problem)
        self._versions.resume()
        if self.current.number:
            self._learn_from(self.current)
        self._recall_gain()
        self._learner.steps = self._versions.steps
        self._steps_before_views = 0 if len(self.keyframes) else self._learner.steps

    def _load_keyframes(self) -> list[str]:
        """Take up saved keyframes that still fit; returns what was left out, and why."""
        folder = self._folder / "keyframes"
        rule = self.settings.keyframes.after_restart
        if not folder.is_dir() or rule == "drop":
            return []
        if rule == "same_boot" and boot_id() != _read_text(self._folder / BOOT):
            return ["left out, the computer was started anew since (setting keyframes.after_restart)"]
        try:
            return self.keyframes.load(folder)
        except KeyframeError as error:
            return [str(error)]

    # Frames ----------------------------------------------------------------------------------------------------------

    def offer(self, view: View) -> Decision:
        """Consider one view as keyframe.

        Args:
            view: any size, distorted or not; brought to the network's size here. With `geometry.depth`
                predicted it needs no depth: the weights that serve predict it.
        """
        return self.keyframes.offer(view)

    def _predict_depth(self, color: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth as the weights that serve predict it, in copies of their own: the learner is not waited for."""
        assert self._depth_model is not None
        current = self.current
        if self._depth_version.sha256 != current.sha256:
            try:
                self._depth_model.load(current.path, current.sha256)
                self._depth_version = current
            except CheckpointError as error:  # e.g. removed meanwhile; older weights predict almost the same
                log.warning("depth is predicted by version %d: %s", self._depth_version.number, error)
        return self._depth_model.depth(color)

    # Learning --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether learning has stopped for good: steps used up, or no further gain."""
        return 0 < self.settings.adaptation.max_steps <= self._learner.steps or self.converged

    @property
    def converged(self) -> bool:
        """Whether the agreement between views has stopped rising (`adaptation.patience`)."""
        return 0 < self.settings.adaptation.patience <= self._handovers_without_gain

    @property
    def ready(self) -> bool:
        """Whether `advance` has something to learn from, and reason to."""
        return not self.finished and not self._has_learnt_the_views and self.has_enough_views

    @property
    def has_enough_views(self) -> bool:
        """Whether there are `adaptation.min_keyframes`, some of which overlap."""
        enough = len(self.keyframes) >= self.settings.adaptation.min_keyframes
        return enough and self.keyframes.any_trainable(self.settings.learner.min_overlap)

    @property
    def _has_learnt_the_views(self) -> bool:
        adaptation = self.settings.adaptation
        if not adaptation.steps_per_keyframe:
            return False
        steps = adaptation.steps_per_keyframe * (len(self.keyframes) + self.keyframes.evicted)
        whole = int(steps) // adaptation.handover_every * adaptation.handover_every  # steps come by the hand-over
        return self._learner.steps - self._steps_before_views >= whole

    def advance(self) -> Handover | None:
        """One learner step and, every `adaptation.handover_every` steps, an attempt to hand the weights over.

        A loss that is not finite counts as a refusal: the learner goes back to the last good weights.

        Raises:
            CheckpointError: weights cannot be written; the last good ones go on serving.
            LearningError: the loss was not finite several times in a row.
        """
        with self._lock:
            self._advancing = True
            try:
                return self._advance()
            finally:
                self._advancing = False

    def _advance(self) -> Handover | None:
        try:
            report = self._learner.step()
        except LearningError as error:
            self._broken_steps += 1
            if self._broken_steps >= MAX_BROKEN_STEPS:
                raise LearningError(f"{self._broken_steps} times in a row: {error}") from error
            return self._refuse((str(error),))
        self._broken_steps = 0
        self._status = replace(
            self._status,
            loss=report.loss,
            loss_source=report.loss_source,
            loss_geometric=report.loss_geometric,
            loss_depth_source=report.loss_depth_source,
            loss_depth_geometric=report.loss_depth_geometric,
            coverage=report.coverage,
            step_seconds=report.seconds,
        )
        due = report.step % self.settings.adaptation.handover_every == 0 or self.finished
        return self.handover() if due else None

    def time_step(self) -> float:
        """One learner step without a hand-over, for measurements of its cost.

        Returns:
            Its duration, seconds.
        """
        with self._lock:
            return self._learner.step().seconds

    def refresh_teacher(self) -> None:
        """Make the teacher forget its predictions, for measurements of their cost."""
        with self._lock:
            self._learner.refresh_teacher()

    def handover(self) -> Handover:
        """Measure the learner's weights; write them as the next version, or roll back.

        Raises:
            CheckpointError: the weights file cannot be written; the last good version goes on serving.
        """
        with self._lock:
            health, base = self._processes.once(lambda: self._guard.measure(self._learner.averaged))
            self._status = replace(
                self._status,
                agreement=health.agreement,
                base_agreement=base.agreement,
                source_miou=health.source_miou,
                base_source_miou=base.source_miou,
            )
            objections = self._guard.objections(health, base)
            if objections:
                self._handovers_without_gain += 1
                return self._refuse(objections)
            self._note_gain(health.agreement - base.agreement)
            metrics = {
                "source_miou": health.source_miou,
                "agreement": health.agreement,
                BEST_GAIN: self._best_gain,
                WITHOUT_GAIN: self._handovers_without_gain,
            }
            version = self._versions.add(self._learner.averaged, self._learner.steps, metrics)
            self._status = replace(self._status, handovers=self._status.handovers + 1)
            return Handover(version)

    def _note_gain(self, gain: float) -> None:
        """Count hand-overs since the agreement last rose.

        Args:
            gain: agreement above that of the base model on the same keyframes, which change while a robot drives on.
        """
        if gain > self._best_gain + self.settings.adaptation.min_gain:
            self._best_gain, self._handovers_without_gain = gain, 0
        else:
            self._handovers_without_gain += 1

    def _recall_gain(self) -> None:
        """What `_note_gain` knew when the current version was made."""
        known = self.current.info.metrics if self.current.number else {}
        self._best_gain = known.get(BEST_GAIN, 0.0)
        self._handovers_without_gain = int(known.get(WITHOUT_GAIN, 0))

    def _refuse(self, reasons: tuple[str, ...]) -> Handover:
        log.warning("weights of step %d refused: %s", self._learner.steps, "; ".join(reasons))
        self._status = replace(
            self._status, refused=self._status.refused + 1, last_refusal=f"step {self._learner.steps}: {reasons[0]}"
        )
        self._learn_from(self.current)
        return Handover(self.current, reasons)

    def _learn_from(self, version: Version) -> None:
        """Continue from these weights; a damaged file leads to the version before it."""
        if version.number == 0:
            self._learner.load_weights(self._base_network.state_dict())
            return
        try:
            network = self._versions.load(version)
        except CheckpointError as error:
            log.error("version %d is lost (%s): going back to the one before", version.number, error)
            self._learn_from(self._versions.drop_current())
            return
        self._learner.load_weights(network.state_dict())

    # Services --------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Version:
        """What serves now."""
        return self._versions.current

    @property
    def status(self) -> AdaptationStatus:
        """A snapshot; never waits for the running step."""
        current = self.current
        finished = self.finished and not self._advancing  # the last hand-over belongs to learning
        return replace(
            self._status,
            state="finished" if finished else "learning" if self.ready or self._advancing else "waiting",
            keyframes=len(self.keyframes),
            keyframe_bytes=self.keyframes.nbytes,
            rejected=dict(self.keyframes.rejected),
            step=self._learner.steps,
            version=current.number,
            model_path=str(current.path),
            model_sha256=current.sha256,
        )

    def rollback(self) -> Handover:
        """Back to the version before the current one.

        Raises:
            CheckpointError: the state cannot be written.
        """
        with self._lock:
            self._learn_from(self._versions.drop_current())
            self._recall_gain()
            return Handover(self.current)

    def reset(self) -> Handover:
        """Back to the base model: keyframes, versions and the step count are forgotten.

        Raises:
            CheckpointError: the state cannot be written.
        """
        with self._lock:
            self._learn_from(self._versions.clear())
            self._learner.steps = self._steps_before_views = 0
            self._recall_gain()
            self.keyframes.clear()
            self._status = AdaptationStatus()
            self.save_state()
            return Handover(self.current)

    def save_model(self, path: str | Path) -> str:
        """Write the weights that serve now to `path`.

        Returns:
            SHA-256 of the file.

        Raises:
            CheckpointError: it cannot be written, or the current file has been damaged or removed.
        """
        version = self.current
        return self._processes.once(lambda: save_checkpoint(path, self._versions.load(version), version.info))

    def save_state(self) -> None:
        """Write the keyframes that are not on disk yet; weights and versions are written when they are handed over.

        Raises:
            KeyframeError: the folder is not writable or the disk is full.
        """
        self._processes.once(self._save_keyframes)

    def _save_keyframes(self) -> None:
        self.keyframes.save(self._folder / "keyframes")
        write_result(self._folder / BOOT, boot_id(), KeyframeError)


def boot_id() -> str:
    """Which run of this computer it is; empty where the system does not tell."""
    return _read_text(Path("/proc/sys/kernel/random/boot_id"))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
