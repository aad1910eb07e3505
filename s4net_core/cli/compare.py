"""``s4net compare``: S4-Net against its control over several seeds, as a Markdown table."""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from s4net_core.cli.options import add_learning_options, add_poses_option, learning_settings_from, positive
from s4net_core.errors import SettingsError
from s4net_core.evaluation.results import Result
from s4net_core.files import write_result
from s4net_core.io.captures.opening import open_capture
from s4net_core.learning.base_model import open_source
from s4net_core.learning.compare import compare, with_control


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
    settings = learning_settings_from(args)
    steps = settings.adaptation.max_steps
    if not steps:
        raise SettingsError("adaptation.max_steps is 0, which never ends: give the number of steps to compare after")
    console = Console(stderr=True)
    seeds = range(settings.seed, settings.seed + args.seeds)
    with Progress(console=console) as progress:
        task = progress.add_task("base model", total=2 * len(seeds) * steps)

        def advance(method: str, seed: int, step: int) -> None:
            doing = ", measuring" if step == steps else ""
            progress.update(task, advance=1, description=f"{method}, seed {seed}{doing}")

        with_depth = settings.geometry.from_sensor
        results = compare(
            with_control(settings),
            open_capture(args.capture, stream=settings.stream, poses=args.poses, with_depth=with_depth),
            open_source(settings),
            {_name(path): open_capture(path, stream=settings.stream, with_depth=with_depth) for path in args.scenes},
            seeds,
            on_step=advance,
        )
    table = to_markdown(results)
    print(table)
    if args.output:
        before = args.output.read_text(encoding="utf-8") if args.output.is_file() else ""
        write_result(args.output, f"{before}\n{table}\n")
    return 0


def _name(path: Path) -> str:
    """Last two parts: scenes are usually called scan1 and scan2 below the name of the room."""
    return "/".join(path.resolve().parts[-2:])


def to_markdown(results: Sequence[Result]) -> str:
    """One row a scan, method and seed, and one with the mean and range of each method."""
    header = "scene | method | seed | pixel accuracy | mIoU | mIoU per image | agreement | versions (refused)"
    lines = [f"| {header} |", "|---|---|---|---|---|---|---|---|"]
    for scan, method in sorted(
        dict.fromkeys((result.scan, result.method) for result in results),
        key=lambda pair: [result.scan for result in results].index(pair[0]),
    ):
        group = [result for result in results if (result.scan, result.method) == (scan, method)]
        lines += [_row(result) for result in group]
        if len(group) > 1:
            lines.append(_summary(group))
    return "\n".join(lines)


def _row(result: Result) -> str:
    seed, versions = ("–", "–") if result.seed is None else (result.seed, f"{result.versions} ({result.refused})")
    cells = " | ".join("–" if math.isnan(value) else f"{value:.3f}" for value in _scores(result))
    return f"| {result.scan} | {result.method} | {seed} | {cells} | {versions} |"


def _summary(group: Sequence[Result]) -> str:
    columns = zip(*(_scores(result) for result in group), strict=True)
    cells = [
        "–" if any(map(math.isnan, c)) else f"**{statistics.mean(c):.3f}** ({min(c):.3f}–{max(c):.3f})" for c in columns
    ]
    return f"| {group[0].scan} | {group[0].method} | mean (range) | {' | '.join(cells)} | |"


def _scores(result: Result) -> tuple[float, float, float, float]:
    assert result.evaluation  # `compare` refuses scans without labels
    pooled = result.evaluation.pooled
    return pooled.pixel_accuracy, pooled.miou, result.evaluation.per_image.miou, result.agreement.mean
