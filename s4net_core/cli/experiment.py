"""``s4net experiment``: run experiments of the paper and write its tables."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from s4net_core.cli.options import add_settings_options, settings_from

if TYPE_CHECKING:
    from s4net_core.experiments.run import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="YAML file below config/experiments")
    parser.add_argument("--data", type=Path, required=True, help="folder to which the paths in the files are relative")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="folder to write (default: experiments)")
    parser.add_argument(
        "--stand-in",
        default="",
        metavar="NAME",
        help="use the files' stand-in NAME: other data and fewer steps, e.g. rendered",
    )
    parser.add_argument("--keep-weights", action="store_true", help="keep the adapted weights, in OUT/weights")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run every experiment, go on where an earlier call stopped, print and write the tables."""
    overrides = settings_from(args).model_dump(exclude_unset=True)
    from s4net_core.experiments.experiment import load_experiment
    from s4net_core.experiments.run import run_experiments

    experiments = {path.stem: load_experiment(path, args.stand_in) for path in args.files}
    console = Console(stderr=True)
    try:
        with show_progress(console) as show:
            reports = run_experiments(
                experiments,
                args.data,
                args.out,
                overrides,
                keep_weights=args.keep_weights,
                on_progress=show,
                on_report=lambda title, folder: console.print(f"{title}: {folder}/results.html"),
            )
    except KeyboardInterrupt:
        kept = len(list((args.out / "runs").glob("*.json")))
        print(
            f"s4net experiment: interrupted; the same line goes on, {args.out}/runs keeps {kept} finished runs",
            file=sys.stderr,
        )
        raise
    print("\n".join(report.markdown() for report in reports))
    return 0


@contextmanager
def show_progress(console: Console) -> "Iterator[Progress]":
    """A progress bar as `ExperimentRun.on_progress`: takes the activity, the steps done and the steps in total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
