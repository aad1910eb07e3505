"""``s4net adapt``: adapt a base model to a capture, offline, with the same session as the adaptation node."""

import argparse
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from s4net_core.cli.options import add_learning_options, add_poses_option, learning_settings_from, track_labels
from s4net_core.cli.output import left_out, progress_bar, say_left_out, tracked
from s4net_core.cli.state_options import add_training_options, changed_since, state_folder, state_path
from s4net_core.files import check_writable, creation_time
from s4net_core.learning.training_log import TrainingLog

if TYPE_CHECKING:
    from s4net_core.io.captures.indexed import IndexedCapture
    from s4net_core.io.captures.recorded import RecordedCapture
    from s4net_core.learning.learner import StepReport
    from s4net_core.learning.rerun_recording import RerunRecording
    from s4net_core.learning.session import Session
    from s4net_core.learning.status import Handover, Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "capture",
        type=Path,
        help="capture of any format, e.g. a bag or a scene folder; its labels are not used",
    )
    parser.add_argument("output", type=Path, help="weights file to write")
    add_poses_option(parser)
    parser.add_argument(
        "--until-converged",
        action="store_true",
        help="go on until the score on held-out keyframes rises no more; short for --set adaptation.max_steps=0 "
        "and adaptation.steps_per_keyframe=0",
    )
    parser.add_argument(
        "--rerun",
        type=Path,
        metavar="FILE.rrd",
        help="record keyframes, clouds, labels and curves for the viewer of rerun.io; for each new version all "
        "keyframes are labelled, which takes time",
    )
    add_training_options(parser, "folder for keyframes and versions")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Adapt to the whole capture and write the version that serves at the end."""
    settings = learning_settings_from(args, source_free=True)
    from s4net_core.io.captures.opening import open_views
    from s4net_core.learning.base_model import open_source
    from s4net_core.learning.offline import open_session, patience_of
    from s4net_core.learning.rerun_recording import RerunRecording
    from s4net_core.learning.state_folder import check_target

    if args.until_converged:
        settings.adaptation.max_steps, settings.adaptation.steps_per_keyframe = 0, 0.0
    patience_of(settings.adaptation)
    creation_time()  # here: the folder of the state is not made if this fails
    recording = RerunRecording(args.rerun)
    base = settings.checkpoint
    check_target(args.output, Path(base), state_path(args))
    check_writable(args.output)
    state = state_folder(args)
    source = open_source(settings)
    capture = open_views(args.capture, settings, poses=args.poses)
    _warn_of_labels(args.capture, settings.source.path)
    with open_session(capture, settings, base, source, state, resume=args.resume, track=track_labels) as session:
        changes = changed_since(state, session.settings)
        if changes and args.resume:
            _warn(f"resumed with other settings: {', '.join(changes)}")
        _adapt(args, session, capture, recording)
    return 0


def _warn_of_labels(capture: Path, source: str) -> None:
    """Tell where the labels of the capture itself are learned from: then a gain says nothing about the method."""
    if source and Path(source).resolve() in (capture.resolve(), *capture.resolve().parents):
        _warn(
            f"source set {source} holds the capture {capture}: if it reads the labels there, they are learned from, "
            "and scores in this place say nothing about other places"
        )


def _warn(text: str) -> None:
    Console(stderr=True).print(text, style="yellow", markup=False, highlight=False)


def _adapt(
    args: argparse.Namespace,
    session: "Session",
    capture: "IndexedCapture | RecordedCapture",
    recording: "RerunRecording",
) -> None:
    from s4net_core.learning.offline import adapt_to

    console = Console()
    progress = progress_bar(console, loss=True, transient=False)
    first = session.status.step
    task = progress.add_task("adapt", start=False, total=None, completed=first, loss=float("nan"))

    def show_collected(rejected: Mapping[str, int]) -> None:
        status = session.status
        console.print(f"{status.keyframes} keyframes{left_out(Counter(capture.skipped) | Counter(rejected))}")
        unopened = {reason: count for reason, count in capture.skipped.items() if reason not in rejected}
        say_left_out(unopened, capture.details, console)  # a warning gives an example of the others
        console.print(
            f"{status.pairs.usable} pairs of keyframes teach each other; "
            f"left out: {status.pairs.refused} whose depths contradict each other"
        )
        if status.segments > 1:
            console.print(
                f"the poses jump or pause: {status.segments} segments of keyframes were not shown to be in one frame, "
                f"{status.pairs.parted} pairs between them are left out"
            )
        recording.begin(session)
        progress.update(task, total=session.stopping.last_step)
        progress.start_task(task)

    def show_step(status: "Status") -> None:
        progress.start()  # not before: reading the frames shows its own bar, and there may be nothing to learn from
        progress.update(task, completed=status.step, loss=status.last_step.loss)
        write_curves(status.step, _step_values(status.last_step))

    def show_handover(handover: "Handover") -> None:
        status = session.status
        if not handover.reasons:  # the session logs refusals itself
            console.print(_describe(status, handover))
        write_curves(status.step, _handover_values(status))
        if handover.accepted:
            recording.labels(session)

    def write_curves(step: int, values: Mapping[str, float]) -> None:
        curves.write(step, values)
        recording.write(step, values)

    views = tracked(capture.views(), "frames", console, len(capture))
    with TrainingLog(args.log, first) as curves, recording:
        try:
            version = adapt_to(
                session, views, on_collected=show_collected, on_step=show_step, on_handover=show_handover
            )
        finally:
            progress.stop()
    patience = session.stopping.patience
    if patience.exhausted:
        console.print(f"no further gain in {patience.limit} hand-overs")
    if not version.number:
        console.print("no weights were better than the base model's: this is the base model", style="yellow")
    sha256 = session.save_model(args.output)
    console.print(f"{args.output}: version {version.number}, sha256 {sha256[:12]}")


def _step_values(report: "StepReport") -> dict[str, float]:
    values = {
        "loss/total": report.loss,
        "loss/source": report.loss_source,
        "loss/geometric": report.loss_geometric,
        "coverage": report.coverage,
        "speed/seconds_per_step": report.seconds,
    }
    of_depth = {"source": report.loss_depth_source, "geometric": report.loss_depth_geometric}
    return values | {f"loss/depth_{name}": value for name, value in of_depth.items() if value}


def _handover_values(status: "Status") -> dict[str, float]:
    return {
        "score/adapted": status.health.score,
        "score/base": status.base_health.score,
        "agreement/adapted": status.health.agreement,
        "agreement/base": status.base_health.agreement,
        "source_miou/adapted": status.health.source_miou,
        "source_miou/base": status.base_health.source_miou,
        "versions/accepted": status.handovers,
        "versions/refused": status.refused,
    }


def _describe(status: "Status", handover: "Handover") -> str:
    number, new, base = handover.version.number, status.health, status.base_health
    if not handover.better:
        return f"step {status.step}: no better (score {new.score:.3f}), version {number} stays"
    of_score = f"score {base.score:.3f} -> {new.score:.3f}" if new.score >= 0 else "no held-out keyframe gives a score"
    of_source = "" if math.isnan(new.source_miou) else f", source mIoU {base.source_miou:.3f} -> {new.source_miou:.3f}"
    return (
        f"step {status.step}: version {number}, agreement between views {base.agreement:.3f} -> {new.agreement:.3f}, "
        f"{of_score}{of_source}"
    )
