"""``s4net adapt``: adapt a base model to a capture, offline, with the same loop as the adaptation node."""

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from s4net_core.cli.options import add_learning_options, learning_settings_from, track_labels
from s4net_core.errors import SettingsError
from s4net_core.io.captures import open_capture
from s4net_core.learning.adapt import Adaptation, Handover
from s4net_core.learning.base_model import open_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("capture", type=Path, help="scene folder, bag, TUM or 7-Scenes folder")
    parser.add_argument("output", type=Path, help="weights file to write")
    parser.add_argument("--state", type=Path, help="folder for keyframes and versions (default: OUTPUT.state)")
    parser.add_argument("--resume", action="store_true", help="go on from what is in the state folder")
    parser.add_argument("--force", action="store_true", help="remove what is in the state folder and start anew")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Feed the whole capture, learn until finished, write the version that serves at the end."""
    settings = learning_settings_from(args)
    state = args.state or args.output.with_name(args.output.name + ".state")
    if state.exists() and not args.resume:
        if not args.force:
            raise SettingsError(f"state folder {state} exists: add --resume to go on from it, or --force to remove it")
        shutil.rmtree(state)
    adaptation = Adaptation(settings, settings.checkpoint, open_source(settings), state, track=track_labels)
    console = Console()
    capture = open_capture(args.capture, stream=settings.stream, with_depth=settings.geometry.from_sensor)
    for frame in track(capture, "frames", total=len(capture), console=console):
        adaptation.offer(frame)
    adaptation.save_state()
    status = adaptation.status
    left_out = {**capture.skipped, **status.rejected}
    console.print(f"{status.keyframes} keyframes; left out: {left_out or 'none'}")
    if not adaptation.has_enough_views:
        raise SettingsError(
            f"{status.keyframes} keyframes with too little overlap to learn from (adaptation.min_keyframes is "
            f"{settings.adaptation.min_keyframes}): record a longer capture or lower keyframes.min_translation"
        )
    _learn(adaptation, console)
    sha256 = adaptation.save_model(args.output)
    console.print(f"{args.output}: version {adaptation.current.number}, sha256 {sha256[:12]}")
    return 0


def _learn(adaptation: Adaptation, console: Console) -> None:
    columns = (TextColumn("adapt"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        limit = adaptation.settings.adaptation.max_steps or None
        task = progress.add_task("adapt", total=limit, completed=adaptation.status.step, loss=float("nan"))
        while adaptation.ready:
            handover = adaptation.advance()
            status = adaptation.status
            progress.update(task, completed=status.step, loss=status.loss)
            if handover is not None:
                console.print(_describe(adaptation, handover))


def _describe(adaptation: Adaptation, handover: Handover) -> str:
    status = adaptation.status
    if not handover.accepted:
        return f"step {status.step}: refused, back to version {handover.version.number}: {'; '.join(handover.reasons)}"
    return (
        f"step {status.step}: version {handover.version.number}, agreement between views {status.base_agreement:.3f} "
        f"-> {status.agreement:.3f}, source mIoU {status.base_source_miou:.3f} -> {status.source_miou:.3f}"
    )
