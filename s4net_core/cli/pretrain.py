"""``s4net pretrain``: train a base model on a labelled source set."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.io.source_sets import open_source_set
from s4net_core.learning.pretrain import pretrain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", type=Path, help="labelled source set: a folder, or a file of s4net pack")
    parser.add_argument("output", type=Path, help="weights file to write")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train and report the metrics on the hold-out."""
    settings = settings_from(args)
    source = open_source_set(args.source)
    console = Console()
    columns = (TextColumn("pretrain"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("pretrain", total=settings.pretrain.steps, loss=float("nan"))
        info = pretrain(
            settings,
            source,
            args.output,
            half=args.half,
            on_step=lambda report: progress.update(task, completed=report.step, loss=report.loss),
        )
    scores = ", ".join(f"{name} {value:.3f}" for name, value in info.metrics.items())
    console.print(f"{args.output}: {len(source)} images, {settings.pretrain.steps} steps, {scores}")
    return 0
