"""``s4net experiment``: run experiments of the paper and write its tables."""

import argparse
import re
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.evaluation.paper_report import PaperReport, joined, write_paper_report
from s4net_core.files import write_result
from s4net_core.learning.experiment import load_experiment
from s4net_core.learning.experiment_run import ExperimentRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="YAML file below config/experiments")
    parser.add_argument("--data", type=Path, required=True, help="folder to which the paths in the files are relative")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="folder to write (default: experiments)")
    parser.add_argument(
        "--stand-in", default="", metavar="NAME", help="other data and fewer steps, as the files say, e.g. rendered"
    )
    parser.add_argument("--keep-weights", action="store_true", help="keep the adapted weights, in OUT/weights")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run every experiment, go on where an earlier call stopped, print and write the tables."""
    overrides = settings_from(args).model_dump(exclude_unset=True)
    experiments = {path.stem: load_experiment(path, args.stand_in) for path in args.files}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    reports: dict[str, list[PaperReport]] = {}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        runs = {
            name: ExperimentRun(
                experiment, args.data, args.out, overrides, keep_weights=args.keep_weights, on_progress=show
            )
            for name, experiment in experiments.items()
        }
        for name, started in runs.items():
            report = started.report()
            write_paper_report(args.out / name, report)
            console.print(f"{started.experiment.title}: {args.out / name}/results.html")
            reports.setdefault(started.experiment.table, []).append(report)
    tables = {table: joined(table, group) for table, group in reports.items()}
    for table, joint in tables.items():
        if len(reports[table]) > 1:
            write_paper_report(args.out / re.sub(r"\W+", "-", table).strip("-").lower(), joint)
    text = "\n".join(joint.markdown() for joint in tables.values())
    print(text)
    write_result(args.out / "results.md", text)
    return 0
