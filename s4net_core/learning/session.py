"""A session: one base model learns one place. Views in, guarded weights out; the node and the command line share it."""

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.errors import CheckpointError, LearningError, S4NetError, SettingsError
from s4net_core.files import creation_time
from s4net_core.frames import View
from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.source_set import SourceSet, Usable, in_label_space, split
from s4net_core.keyframes import Decision, Keyframe, buffer_for, spread
from s4net_core.learning.base_model import check_branches
from s4net_core.learning.guard import Guard
from s4net_core.learning.judge import KnownLabels
from s4net_core.learning.learner import LabelsOf, Learner
from s4net_core.learning.serving_weights import ServingWeights
from s4net_core.learning.source_free import SourceFree
from s4net_core.learning.state_folder import StateFolder
from s4net_core.learning.status import CONTRADICTED, Handover, Status
from s4net_core.learning.stopping import LEARNING, WITHOUT_GAIN, Stopping
from s4net_core.learning.teacher import Teacher
from s4net_core.learning.versions import Version, base_version
from s4net_core.losses import median_frequency_weights
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import save_checkpoint, warn_of_other_network
from s4net_core.models.predict import pick_device, predict_depth

log = logging.getLogger(__name__)

BASE_SHARE = "base_share"
"""Metric saved with a version: share of the base model in its weights, where there was no source set."""
MAX_BROKEN_STEPS = 5
"""Losses in a row that are not finite, after which rolling back and trying again makes no sense."""
SOURCE_SAMPLE, KEYFRAME_SAMPLE = 8, 32
"""Images that tell the teachers at which sizes to look, at most; keyframes of one place tell it less clearly."""
SMALLEST_RATE_SHARE = 1 / 64
"""Share of `learner.learning_rate` below which refusals do not lower the step size."""


class Session:
    """Adapts one base model to one place and keeps keyframes and weights in a folder, which is locked until `close`.

    `offer` and `status` may be called from any thread and never wait for a step. The other methods wait at most for the
    running step.

    Args:
        settings: all groups; `settings.model` must fit the checkpoint, whose image size holds where it gives none.
        checkpoint: weights file of the base model.
        source: labelled source set; a hold-out is split off for the guard. None = there is none: the keyframes alone
            are learned, and only the score on held-out keyframes tells what is forgotten.
        folder: for keyframes and weights.
        resume: go on from what earlier sessions have saved there. False = it is removed, that of other base models too,
            when this one saves anything.
        track: goes through the labels of the source set, which are all read here, e.g. with a progress bar.
        labels_of: as of `Learner`, for measurements alone.

    Raises:
        CheckpointError: the base model cannot be loaded, or lacks a branch that the settings ask for.
        SourceSetError: the source set is too small for a hold-out, or has a class that the base model lacks.
        SettingsError: there is neither a source set nor a loss between views, or one keyframe takes more than
            `keyframes.max_megabytes`.
        S4NetError: another session uses the folder, or SOURCE_DATE_EPOCH is no time.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: str | Path,
        source: SourceSet | None,
        folder: str | Path,
        *,
        resume: bool = True,
        track: Callable[[Sequence[int]], Iterable[int]] = iter,
        labels_of: LabelsOf | None = None,
    ) -> None:
        creation_time()  # if the time is invalid, fail now and not after the first steps
        self._labels_of = labels_of
        self._device = pick_device(settings.device)
        network, base = base_version(checkpoint)
        check_branches(base.path, base.info.model, settings)
        warn_of_other_network(base.path, base.info.model, settings.model)
        self.settings = settings = settings.sized(base.info.model)
        width, height = settings.model.size
        network.settings = network.settings.model_copy(update={"width": width, "height": height})
        network = network.to(self._device).to(memory_format=torch.channels_last)  # it only predicts, faster so
        self._base_network = network.eval().requires_grad_(False)
        self._weights = ServingWeights(self._base_network)
        self._lock = threading.RLock()
        self._status = Status()
        self._offered, self._rejected = 0, Counter[str]()
        self._broken_steps = self._refusals = 0
        self._looks_told_by = 0
        """Number of images that told the teachers where to look."""
        self._advancing = self._owes_handover = False
        self._folder = StateFolder(folder, base, settings)
        try:
            self._prepare(None if source is None else in_label_space(source, network.label_space), track, resume)
        except BaseException:
            self._folder.close()
            raise

    def _prepare(self, source: SourceSet | None, track: Callable[[Sequence[int]], Iterable[int]], resume: bool) -> None:
        settings = self.settings
        self.keyframes = buffer_for(settings, self._predict_depth)
        self.stopping = Stopping(settings, self.keyframes)
        of_depth = settings.learner.lambda_depth if self._base_network.settings.depth_decoder else 0.0
        if source is None and not (settings.learner.lambda_geometric or of_depth):
            raise SettingsError("nothing to learn from: set learner.lambda_geometric above 0, or name a source set")
        train, holdout = split(source, settings.guard.holdout) if source is not None else ([], [])
        number = 2 if settings.learner.teacher_refresh else 1  # the learner's follows it then, the guard's never
        self._teachers = [Teacher(self._base_network, settings, self._device) for _ in range(number)]
        self._learner = self._new_learner(source, train, track)
        base, features = self._teachers[0], self._learner.features
        self._guard = Guard(self._base_network, base, source, holdout, self.keyframes, settings, self._device, features)
        with self._call():
            if resume:
                self._resume()
            else:
                self._folder.replace_saved()

    def _choose_looks(self) -> None:
        """Let the teachers look where the base model is surest: by the hold-out, or by keyframes without a source set.

        More keyframes tell it better: they are asked again whenever there are twice as many.
        """
        images = spread(self._guard.source_images(), SOURCE_SAMPLE)
        if not images:
            ids = spread(self.keyframes.ids(), KEYFRAME_SAMPLE)
            images = [keyframe.color for keyframe in self.keyframes.views(ids).values()]
        if len(images) < max(2 * self._looks_told_by, 1):
            return
        self._looks_told_by = len(images)
        looks = self._teachers[0].surest_looks(images)
        changed = [teacher.look_at(looks.scales) for teacher in self._teachers]
        if any(changed):
            self._guard.forget()
            log.info("the teacher looks at images at these scales: %s", ", ".join(f"{s:.2g}" for s in looks.scales))
        if looks.surest != 1:
            size = self.settings.model.size
            log.info(
                "the base model is surer of images of %dx%d than of %dx%d, at which it works: see model.width",
                *(*(round(side * looks.surest) for side in size), *size),
            )

    def _new_learner(
        self, source: SourceSet | None, train: list[int], track: Callable[[Sequence[int]], Iterable[int]]
    ) -> Learner:
        base, teacher = self._teachers[0], self._teachers[-1]
        network = copy.deepcopy(self._base_network).requires_grad_(True).to(memory_format=torch.contiguous_format)
        kept: SourceBatches | SourceFree
        if source is None:
            kept = SourceFree(self._base_network, base, self.settings.learner)
            weights = torch.ones(network.num_classes)
        else:
            kept = self._batches(source, train)
            usable = Usable(source.name, len(train))
            labels = (usable.read(source.label, index) for index in track(train))
            weights = median_frequency_weights((label for label in labels if label is not None), network.num_classes)
            if network.settings.depth_decoder and source[train[0]].depth is None:
                log.warning(
                    "source set %s has no depth: the depth decoder learns from pairs of views alone", source.name
                )
        return Learner(network, kept, weights, teacher, self.keyframes, self.settings, self._device, self._labels_of)

    def _batches(self, source: SourceSet, train: list[int]) -> SourceBatches:
        learner = self.settings.learner
        return SourceBatches(
            source,
            learner.source_batch,
            *self.settings.model.size,
            learner.mirror,
            np.random.default_rng(self.settings.seed),
            cache_megabytes=self.settings.source.cache_megabytes,
            indices=train,
        )

    def _resume(self) -> None:
        self._folder.load_keyframes(self.keyframes)
        versions = self._folder.versions
        versions.resume()
        if self.current.number:
            self._go_on_from_file()
        else:
            self.stopping.patience.recall(self._metrics)
        self._learner.steps = versions.steps
        if not len(self.keyframes) and versions.steps_before_views != versions.steps:
            versions.steps_before_views = versions.steps
            with suppress(S4NetError), self._folder.write():  # if it fails, `unsaved` says so and the next write has it
                versions.note(versions.since)
        self.stopping.steps_before_views = versions.steps_before_views

    # The time in which it is open -------------------------------------------------------------------------------------

    def __enter__(self) -> "Session":
        """For a ``with`` block; its end closes the session."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout: float = 0.0) -> bool:
        """End the session: a step that still runs can neither save nor hand over its result.

        The folder stays locked until the last running call has ended.

        Args:
            timeout: how long to wait for the running call, seconds.

        Returns:
            Whether no call runs any more, so that the folder is unlocked.
        """
        return self._folder.close(timeout)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """One call to an open session at a time; raises `SessionClosed` otherwise."""
        with self._folder.call(), self._lock:
            yield

    # Views ------------------------------------------------------------------------------------------------------------

    def offer(self, view: View) -> Decision:
        """Consider one view as keyframe.

        Args:
            view: any size, distorted or not; decoded and brought to the network's size if its pose is new. With
                `geometry.depth` predicted it needs no depth: the weights that serve predict it.

        Raises:
            BadFrame: its images cannot be used.
        """
        decision = self.keyframes.offer(view)
        if decision.id is None:
            self._rejected[decision.reason] += 1
        self._offered += 1
        return decision

    def _predict_depth(self, color: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth predicted by the weights that serve; does not wait for the learner."""
        with self._weights.network() as network:
            return predict_depth(network, color, self.settings, self._device)

    def forget_patience(self) -> None:
        """There are new keyframes, with which a score may rise that has not risen before.

        Raises:
            CheckpointError: the state cannot be written.
        """
        patience = self.stopping.patience
        with self._call():
            if patience.metrics[WITHOUT_GAIN]:
                patience.recall({})
                with self._folder.write() as versions:
                    versions.note(patience.metrics)

    # Learning ---------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``waiting``, ``learning`` or ``finished``, see `Stopping`; a hand-over that is due is still learning."""
        return LEARNING if self._advancing or self._owes_handover else self.stopping.state(self._learner.steps)

    def advance(self) -> Handover | None:
        """One learner step and, every `adaptation.handover_every` steps, an attempt to hand the weights over.

        A loss that is not finite counts as a refusal: the learner goes back to the last good weights.

        Raises:
            CheckpointError: weights cannot be written; the last good version keeps serving. The next call makes no step
                and tries this hand-over again.
            LearningError: the loss was not finite several times in a row.
            SessionClosed: the session was closed before or during the call.
        """
        with self._call():
            self._advancing = True
            try:
                return self._advance()
            finally:
                self._advancing = False

    def _advance(self) -> Handover | None:
        if self._owes_handover:
            return self.handover()
        self._choose_looks()
        try:
            report = self._learner.step()
        except LearningError as error:
            self._broken_steps += 1
            if self._broken_steps >= MAX_BROKEN_STEPS:
                raise LearningError(f"{self._broken_steps} times in a row: {error}") from error
            return self._refuse((str(error),))
        self._broken_steps = 0
        self._status = replace(self._status, last_step=report)
        last = self.stopping.state(report.step) != LEARNING  # what is not handed over before a rest is lost
        self._owes_handover = last or report.step % self.settings.adaptation.handover_every == 0
        return self.handover() if self._owes_handover else None

    def time_step(self) -> float:
        """One learner step without a hand-over, to measure its cost.

        Returns:
            Its duration, seconds.
        """
        with self._call():
            self._choose_looks()
            return self._learner.step().seconds

    def refresh_teacher(self) -> None:
        """Make the teacher forget its predictions, to measure their cost."""
        with self._call():
            self._learner.refresh_teacher()

    def handover(self) -> Handover:
        """Measure the learner's weights; write them as the next version if they are the best so far.

        Bad weights are refused, and the learner goes back to the last good ones.

        Raises:
            CheckpointError: the weights file cannot be written; the last good version keeps serving.
            SessionClosed: as `advance`.
        """
        with self._call():
            handover = self._handover()
            self._owes_handover = False
            return handover

    def _handover(self) -> Handover:
        learned, labels = self._learner.result(), KnownLabels()
        health, base = self._guard.measure(learned, labels)
        self._status = replace(self._status, health=health)
        if health.finite:  # otherwise nothing was measured
            self._status = replace(self._status, base_health=base)
        objections = self._guard.objections(health, base)
        if objections:
            self.stopping.patience.note_refusal()
            return self._refuse(objections)
        patience = self.stopping.patience.after(health.score - base.score)  # counts when it is written, see `advance`
        serves = self._guard.score(self._weights.current, self._weights.labels)  # on the keyframes of this moment
        self._weights.forget_labels(but=labels)
        if health.score < serves:
            with self._folder.write() as versions:
                versions.note(patience)
            self._passed(patience)
            return Handover(self.current, better=False)
        metrics = {"source_miou": health.source_miou, "agreement": health.agreement, "score": health.score}
        if self._learner.base_share:
            metrics[BASE_SHARE] = self._learner.base_share
        with self._folder.write() as versions:
            version = versions.add(learned, self._learner.steps, metrics | patience)
        self._passed(patience)
        self._weights.take(learned.state_dict(), labels)
        self._status = replace(self._status, handovers=self._status.handovers + 1)
        return Handover(version)

    def _passed(self, patience: dict[str, float]) -> None:
        """Weights that the guard lets through, whether they serve or not, are written down."""
        self.stopping.patience.recall(patience)
        if not self._refusals:  # the second in a row: bad poses or bad luck are over
            self._learner.rate_share = min(2 * self._learner.rate_share, 1.0)
        self._refusals = 0

    def _refuse(self, reasons: tuple[str, ...]) -> Handover:
        steps = self._learner.steps
        serving = self.current.number
        log.warning("weights of step %d refused, version %d keeps serving: %s", steps, serving, "; ".join(reasons))
        refusal = f"step {steps}: {reasons[0]}"
        self._refusals += 1
        if self._refusals > 1:  # one can be bad luck; several in a row say that the steps are too large
            share = self._learner.rate_share = max(self._learner.rate_share / 2, SMALLEST_RATE_SHARE)
            refusal += f"; the step size is {share:g} of learner.learning_rate now"
            log.warning("%d refusals in a row: the step size is %g of learner.learning_rate now", self._refusals, share)
        self._status = replace(self._status, refused=self._status.refused + 1, last_refusal=refusal)
        self._go_on_from_memory()
        return Handover(self.current, reasons)

    def _go_on_from_memory(self) -> None:
        """Continue from the weights that serve in memory."""
        with self._weights.network() as network:
            self._learner.load_weights(network.state_dict(), self._metrics.get(BASE_SHARE, 0.0))

    def _go_on_from_file(self) -> None:
        """Continue from the current version's file; if it is damaged, from the version before."""
        versions = self._folder.versions
        self._broken_steps = 0
        self._owes_handover = False
        self._weights.take_base()
        while self.current.number:
            try:
                network = versions.load(self.current)
            except CheckpointError as error:
                log.error("version %d is lost (%s): going back to the one before", self.current.number, error)
                versions.drop_current()
                continue
            self._weights.take(network.state_dict())
            break
        self._go_on_from_memory()
        self.stopping.patience.recall(self._metrics)
        if versions.owes_write:
            with suppress(S4NetError), self._folder.write():  # if it fails, `unsaved` says so and the next write has it
                pass

    @property
    def _metrics(self) -> dict[str, float]:
        """Metrics since the current version; none of the base model's own, which may be a version of another place."""
        return (self.current.info.metrics if self.current.number else {}) | self._folder.versions.since

    # Services ---------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Version:
        """The version that serves now."""
        return self._folder.versions.current

    @property
    def learned(self) -> SegmentationNetwork:
        """What the learner would hand over now; to be read between two steps, and not modified."""
        return self._learner.result()

    def targets(self) -> Iterator[tuple[Keyframe, NDArray[np.uint8]]]:
        """Every target view with the labels that the learner learns there, (H, W) uint8, 0 = none."""
        with self._call():
            yield from self._learner.targets()

    @property
    def status(self) -> Status:
        """A snapshot; never waits for the running step."""
        current = self.current
        return replace(
            self._status,
            offered=self._offered,  # first: a view that counts as offered is then among the keyframes as well
            rejected=self._rejected | Counter({CONTRADICTED: self.keyframes.contradicted}),
            state=self.state,
            keyframes=len(self.keyframes),
            keyframe_bytes=self.keyframes.nbytes,
            segments=len(set(self.keyframes.segments().values())),
            pairs=self.keyframes.pairs,
            doubt=self.keyframes.doubt,
            step=self._learner.steps,
            source_left_out=self._learner.source_left_out,
            unsaved=self._folder.problem,
            version=current.number,
            model_path=str(current.path),
        )

    def rollback(self) -> Version:
        """Back to the version before the current one; `status.unsaved` says why that could not be saved, if so.

        Returns:
            The version that serves now.
        """
        with self._call():
            self._folder.versions.drop_current()
            self._go_on_from_file()
            return self.current

    def reset(self) -> Version:
        """Back to the base model: keyframes, versions and the step count are forgotten; saved as by `rollback`.

        Returns:
            The base model.
        """
        with self._call():
            self._folder.versions.clear()
            self._refusals = self.stopping.steps_before_views = self._looks_told_by = 0
            self._learner.restart()
            self._go_on_from_file()
            self.keyframes.clear()
            self._status = Status(handovers=self._status.handovers, refused=self._status.refused)
            with suppress(S4NetError):
                self.save()
                self._folder.forget_keyframes()
            return self.current

    def save_model(self, path: str | Path) -> str:
        """Write the weights that serve now to `path`.

        Returns:
            SHA-256 of the file.

        Raises:
            CheckpointError: it cannot be written, or something else would be lost: the base model, a part of the state
                or a file that is no weights file.
        """
        self._folder.check_target(Path(path))
        with self._call():  # nobody changes the weights meanwhile, and a prediction of depth need not wait for the disk
            return save_checkpoint(path, self._weights.current, self.current.info)

    def save(self) -> None:
        """Write the keyframes that are not on disk yet; versions are written when they are handed over.

        It does not wait for the running step.

        Raises:
            KeyframeError, S4NetError: the folder is not writable or the disk is full.
        """
        with self._folder.call():
            self._folder.save_keyframes(self.keyframes)
