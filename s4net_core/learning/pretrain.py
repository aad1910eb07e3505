"""Supervised training on the source set alone: the base model that adaptation starts from (paper: L_S and L_DS)."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.files import creation_time
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.devices import training_fabric
from s4net_core.learning.interrupt import Interrupt
from s4net_core.learning.pretraining import Pretraining, Score
from s4net_core.learning.training_log import TrainingLog
from s4net_core.models.checkpoint import CheckpointInfo, read_info

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
        waited: how much of it went by until the images were there.
    """

    step: int
    loss: float
    segmentation: float
    auxiliary: float
    depth: float
    learning_rate: float
    seconds: float
    waited: float


def pretrain(
    settings: Settings,
    source: SourceSet,
    output: str | Path,
    *,
    test: SourceSet | None = None,
    half: bool = False,
    state: str | Path | None = None,
    resume: bool = False,
    log: Path | None = None,
    fabric: "Fabric | None" = None,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
    on_step: Callable[[TrainingReport], None] = lambda report: None,
    on_score: Callable[[Score], None] = lambda score: None,
) -> CheckpointInfo:
    """Train a new network until the mIoU on the test images rises no more; `output` holds the best weights so far.

    Every random choice follows from the seed and the step, so that a resumed run is the one that was interrupted.

    Args:
        settings: groups `model`, `pretrain`, `guard.holdout`, `learner.mirror`, and `seed`, `device`.
        source: labelled images; the guard's hold-out is left out, so that it measures forgetting honestly later.
        output: weights file to write.
        test: images to measure on; None = that hold-out.
        half: store float16.
        state: file for everything that is needed to go on, written with every measurement and when Ctrl-C or SIGTERM
            ends training; None = none.
        resume: go on from `state`.
        log: folder for TensorBoard; None = no curves.
        fabric: devices to train on; None = as the settings say.
        track: goes through the labels of the source set, which are all read first, e.g. with a progress bar.
        on_step: called after every step, in the first process alone.
        on_score: called after every measurement, in the first process alone.

    Returns:
        Metadata of the written file, with its metrics.

    Raises:
        LearningError: the loss is not finite.
        SourceSetError: the source set is too small.
        CheckpointError, SettingsError: there is no run in `state` to resume, or it is another one.
        S4NetError: SOURCE_DATE_EPOCH is no time.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    creation_time()  # if it cannot be told, now, and not after the last step
    fabric = fabric or training_fabric(settings)
    if state is None and resume:
        raise SettingsError("there is nothing to resume without a state: give the file of the interrupted run")
    run = Pretraining(
        settings,
        source,
        Path(output),
        test=test,
        half=half,
        state=None if state is None else Path(state),
        resume=resume,
        fabric=fabric,
        track=track,
    )
    first = fabric.is_global_zero
    with Interrupt() as interrupt, TrainingLog(log if first else None, run.steps) as curves:
        items = run.items()
        while not run.finished:
            start = time.perf_counter()
            batch = next(items)
            waited = time.perf_counter() - start
            loss, asked = run.step(batch, interrupt.asked)
            report = TrainingReport(run.steps, *loss, run.learning_rate, time.perf_counter() - start, waited)
            if first:
                on_step(report)
                _log_step(curves, report)
            if run.measures:
                score = run.measure()
                if first:
                    on_score(score)
                    curves.write(score.step, {"test/miou": score.miou, "test/pixel_accuracy": score.pixel_accuracy})
            if run.measures or asked:
                run.save()
            if asked and not run.finished:
                # Others than the first end well: Lightning would kill the first if one of them failed.
                raise KeyboardInterrupt if first else SystemExit(0)
    return read_info(output)


def _log_step(curves: TrainingLog, report: TrainingReport) -> None:
    losses = {"total": report.loss, "segmentation": report.segmentation}
    losses |= {name: value for name in ("auxiliary", "depth") if (value := getattr(report, name))}
    values = {f"loss/{name}": value for name, value in losses.items()}
    speed = {"speed/seconds_per_step": report.seconds, "speed/seconds_waited_for_images": report.waited}
    curves.write(report.step, values | speed | {"learning_rate": report.learning_rate})
