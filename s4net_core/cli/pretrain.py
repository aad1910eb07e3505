"""``s4net pretrain``: train a base model on a labelled source set."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from s4net_core.classes import label_space_of
from s4net_core.cli.options import add_classes, add_classes_option, add_settings_options, settings_from, track_labels
from s4net_core.cli.output import progress_bar
from s4net_core.cli.state_options import add_training_options, state_file
from s4net_core.errors import SettingsError
from s4net_core.files import check_writable

if TYPE_CHECKING:
    from s4net_core.learning.pretraining import Score, TrainingReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", type=Path, help="labelled source set: a folder, or a file of s4net pack")
    parser.add_argument("output", type=Path, help="weights file to write; always holds the best so far")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="WEIGHTS",
        help="weights file to go on from, or auto or demo, e.g. with your own images or with larger ones; its network "
        "and classes are kept (default: a new network)",
    )
    add_classes_option(parser)
    add_training_options(parser, "file for an unfinished run")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and print every measurement."""
    if args.start is not None and args.classes:
        raise SettingsError(
            f"--classes {args.classes} was given with --from: leave it out, {args.start} has its classes"
        )
    add_classes(args)
    settings = settings_from(args)
    from s4net_core.io.source_sets.opening import open_source_set, open_test_set
    from s4net_core.learning.devices import training_fabric
    from s4net_core.learning.pretraining import Pretraining
    from s4net_core.models.base_model_file import base_model_file
    from s4net_core.models.checkpoint import read_info

    start = None if args.start is None else base_model_file(args.start, settings.model)
    if start is not None and start.resolve() == args.output.resolve():
        raise SettingsError(
            f"output {args.output} is the file that --from names: name another one, for both are needed"
        )
    kept = None if start is None else read_info(start)
    space = kept.label_space if kept else label_space_of(settings.model.label_space)
    model = kept.model if kept else settings.model
    check_writable(args.output)
    state = state_file(args)
    source = open_source_set(args.source, with_depth=model.depth_decoder, label_space=space)
    fabric = training_fabric(settings)
    console = Console(quiet=not fabric.is_global_zero)
    with progress_bar(console, loss=True, transient=False) as progress:
        task = progress.add_task("pretrain", total=settings.pretrain.steps, loss=float("nan"))

        def show(report: "TrainingReport") -> None:
            progress.update(task, completed=report.step, loss=report.loss)

        def tell(score: "Score") -> None:
            best = ", the best so far" if score.best else ""
            scores = f"mIoU {score.miou:.3f}, pixel accuracy {score.pixel_accuracy:.3f}"
            console.print(f"step {score.step}: {scores} on {score.images} test images{best}")

        training = Pretraining(
            settings,
            source,
            args.output,
            test=open_test_set(args.source, label_space=space),
            half=args.half,
            start=start,
            state=state,
            resume=args.resume,
            fabric=fabric,
            track=track_labels if fabric.is_global_zero else iter,
        )
        if not args.resume:  # not before: nothing can be refused any more
            state.unlink(missing_ok=True)
        info = training.run(log=args.log, on_step=show, on_score=tell)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in info.metrics.items())
    console.print(f"{args.output}: {len(source)} images, weights of step {info.step}, {scores}")
    return 0
