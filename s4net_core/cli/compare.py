"""``s4net compare``: S4-Net against its control over several seeds, as a Markdown table."""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from s4net_core.cli.experiment import show_progress
from s4net_core.cli.options import add_learning_options, add_poses_option, learning_settings_from, positive
from s4net_core.errors import SettingsError
from s4net_core.evaluation.tables import to_markdown
from s4net_core.files import read_text, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("capture", type=Path, help="capture to adapt to; its labels, if any, are not used")
    parser.add_argument("scenes", type=Path, nargs="+", help="labelled captures to measure on")
    add_poses_option(parser)
    parser.add_argument("--seeds", type=positive, default=3, help="number of seeds, from the setting `seed` upwards")
    parser.add_argument("--output", type=Path, help="Markdown file to append the table to")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run all adaptations and print the table."""
    before = _content(args.output) if args.output else ""
    settings = learning_settings_from(args)
    seeds = range(settings.seed, settings.seed + args.seeds)
    scans = {_name(path): str(path) for path in args.scenes}
    if len(scans) < len(args.scenes):
        raise SettingsError(f"scenes {[str(path) for path in args.scenes]} end in equal names: rename a folder")
    from s4net_core.experiments.comparison import comparison, comparison_table
    from s4net_core.experiments.run import ExperimentRun

    experiment = comparison(settings, str(args.capture), scans, seeds, poses=args.poses)
    with tempfile.TemporaryDirectory() as out, show_progress(Console(stderr=True)) as show:
        report = ExperimentRun(experiment, Path(), Path(out), on_progress=show).report()
    table = to_markdown(comparison_table(report.results))
    print(table, end="")
    if args.output:
        write_result(args.output, f"{before}\n{table}")
    return 0


def _content(output: Path) -> str:
    """What the table is appended to. It is read first: hours of work must not end at a file that is no text."""
    try:
        return read_text(output) if output.exists() else ""
    except (OSError, ValueError) as error:
        raise SettingsError(f"--output {output} is no text to append to ({error}): give another file") from error


def _name(path: Path) -> str:
    """Last two parts of the path: scans are usually called scan1 and scan2 in a folder named after the room."""
    return "/".join(path.resolve().parts[-2:])
