"""``s4net adapt``: adapt a base model to a capture, offline, with the same loop as the adaptation node."""

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console

from s4net_core.cli.options import add_learning_options, add_poses_option, learning_settings_from, track_labels
from s4net_core.cli.output import progress_bar, tracked
from s4net_core.cli.state_options import add_training_options, state_path, take_state_folder
from s4net_core.config import Settings
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.files import FolderLock, creation_time
from s4net_core.io.captures.opening import open_capture
from s4net_core.learning.adapt import Adaptation, AdaptationStatus, Handover
from s4net_core.learning.base_model import open_source
from s4net_core.learning.devices import Processes, adaptation_processes
from s4net_core.learning.training_log import TrainingLog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "capture",
        type=Path,
        help="capture of any format, e.g. a bag or a scene folder; labels that it has are not used",
    )
    parser.add_argument("output", type=Path, help="weights file to write")
    add_poses_option(parser)
    parser.add_argument(
        "--until-converged", action="store_true", help="no limit of steps: short for --set adaptation.max_steps=0"
    )
    add_training_options(parser, "folder for keyframes and versions")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Feed the whole capture, learn until finished, write the version that serves at the end."""
    settings = _settings(args)
    creation_time()  # if it cannot be told, now, and not when a state has been removed
    processes = adaptation_processes(settings)
    locks: list[FolderLock] = []  # of the first process; without it none of them starts
    try:
        processes.once(lambda: locks.append(take_state_folder(args)))
    except S4NetError as error:
        if processes.first:
            raise
        # The first one says it. Others end well: Lightning would kill the first if one of them failed.
        raise SystemExit(0) from error
    try:
        return _adapt(args, settings, processes)
    finally:
        for lock in locks:
            lock.release()


def _adapt(args: argparse.Namespace, settings: Settings, processes: Processes) -> int:
    track_source = track_labels if processes.first else iter
    source = open_source(settings)
    adaptation = Adaptation(
        settings, settings.checkpoint, source, state_path(args), track=track_source, processes=processes
    )
    console = Console(quiet=not processes.first)
    capture = open_capture(
        args.capture, stream=settings.stream, poses=args.poses, with_depth=settings.geometry.from_sensor
    )
    for frame in tracked(capture, "frames", console):
        adaptation.offer(frame)
    adaptation.save_state()
    status = adaptation.status
    left_out = dict(Counter(capture.skipped) + Counter(status.rejected))
    console.print(f"{status.keyframes} keyframes; left out: {left_out or 'none'}")
    if not adaptation.has_enough_views:
        raise SettingsError(
            f"{status.keyframes} keyframes with too little overlap to learn from (adaptation.min_keyframes is "
            f"{settings.adaptation.min_keyframes}): record a longer capture or lower keyframes.min_translation"
        )
    with TrainingLog(args.log if processes.first else None, status.step) as curves:
        _learn(adaptation, console, curves)
    sha256 = adaptation.save_model(args.output)
    console.print(f"{args.output}: version {adaptation.current.number}, sha256 {sha256[:12]}")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """Those of the adaptation, for somebody who waits for the result instead of a robot that goes on."""
    settings = learning_settings_from(args)
    adaptation = settings.adaptation
    adaptation.patience = adaptation.patience or adaptation.offline_patience
    if args.until_converged:
        adaptation.max_steps = 0
    if not adaptation.patience and not adaptation.max_steps:
        raise SettingsError("learning would never end: set adaptation.max_steps or adaptation.patience")
    return settings


def _learn(adaptation: Adaptation, console: Console, curves: TrainingLog) -> None:
    with progress_bar(console, loss=True, transient=False) as progress:
        limit = adaptation.settings.adaptation.max_steps or None
        task = progress.add_task("adapt", total=limit, completed=adaptation.status.step, loss=float("nan"))
        while adaptation.ready:
            handover = adaptation.advance()
            status = adaptation.status
            progress.update(task, completed=status.step, loss=status.loss)
            curves.write(status.step, _step_values(status))
            if handover is not None:
                console.print(_describe(adaptation, handover))
                curves.write(status.step, _handover_values(status))
    if adaptation.converged:
        console.print(f"no further gain in {adaptation.settings.adaptation.patience} hand-overs")


def _step_values(status: AdaptationStatus) -> dict[str, float]:
    values = {
        "loss/total": status.loss,
        "loss/source": status.loss_source,
        "loss/geometric": status.loss_geometric,
        "coverage": status.coverage,
        "speed/seconds_per_step": status.step_seconds,
    }
    of_depth = {"source": status.loss_depth_source, "geometric": status.loss_depth_geometric}
    return values | {f"loss/depth_{name}": value for name, value in of_depth.items() if value}


def _handover_values(status: AdaptationStatus) -> dict[str, float]:
    return {
        "agreement/adapted": status.agreement,
        "agreement/base": status.base_agreement,
        "source_miou/adapted": status.source_miou,
        "source_miou/base": status.base_source_miou,
        "versions/accepted": status.handovers,
        "versions/refused": status.refused,
    }


def _describe(adaptation: Adaptation, handover: Handover) -> str:
    status = adaptation.status
    if not handover.accepted:
        return f"step {status.step}: refused, back to version {handover.version.number}: {'; '.join(handover.reasons)}"
    return (
        f"step {status.step}: version {handover.version.number}, agreement between views {status.base_agreement:.3f} "
        f"-> {status.agreement:.3f}, source mIoU {status.base_source_miou:.3f} -> {status.source_miou:.3f}"
    )
