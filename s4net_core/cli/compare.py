"""``s4net compare``: S4-Net against its control over several seeds, as a Markdown table."""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from s4net_core.cli.options import add_learning_options, learning_settings_from
from s4net_core.errors import SettingsError
from s4net_core.io.captures import open_capture
from s4net_core.learning.base_model import open_source
from s4net_core.learning.compare import BASE, CONTROL, S4NET, Run, compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("capture", type=Path, help="capture to adapt to; its labels, if any, are not used")
    parser.add_argument("scenes", type=Path, nargs="+", help="labelled captures to measure on")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from the setting `seed` upwards")
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
        task = progress.add_task("adapt", total=2 * len(seeds) * steps)

        def advance(method: str, seed: int, step: int) -> None:
            progress.update(task, advance=1, description=f"{method}, seed {seed}")

        runs = compare(
            settings,
            open_capture(args.capture, stream=settings.stream, with_depth=settings.geometry.from_sensor),
            open_source(settings),
            {
                _name(path): open_capture(path, stream=settings.stream, with_depth=settings.geometry.from_sensor)
                for path in args.scenes
            },
            seeds,
            on_step=advance,
        )
    table = to_markdown(runs)
    print(table)
    if args.output:
        with args.output.open("a", encoding="utf-8") as file:
            file.write(f"\n{table}\n")
    return 0


def _name(path: Path) -> str:
    """Last two parts: scenes are usually called scan1 and scan2 below the name of the room."""
    return "/".join(path.resolve().parts[-2:])


def to_markdown(runs: Sequence[Run]) -> str:
    """One row a scene, method and seed, and one with the mean and range of each method."""
    header = "scene | method | seed | pixel accuracy | mIoU | mIoU per image | agreement | versions (refused)"
    lines = [f"| {header} |", "|---|---|---|---|---|---|---|---|"]
    for scene in dict.fromkeys(run.scene for run in runs):
        for method in (BASE, S4NET, CONTROL):
            group = [run for run in runs if (run.scene, run.method) == (scene, method)]
            lines += [_row(run) for run in group]
            if len(group) > 1:
                lines.append(_summary(group))
    return "\n".join(lines)


def _row(run: Run) -> str:
    seed, agreement, versions = "–", "–", "–"
    if run.seed is not None:
        seed, agreement, versions = str(run.seed), f"{run.agreement:.3f}", f"{run.versions} ({run.refused})"
    pooled, per_image = run.evaluation.pooled, run.evaluation.per_image
    return (
        f"| {run.scene} | {run.method} | {seed} | {pooled.pixel_accuracy:.3f} | {pooled.miou:.3f} | "
        f"{per_image.miou:.3f} | {agreement} | {versions} |"
    )


def _summary(group: Sequence[Run]) -> str:
    columns = (
        [run.evaluation.pooled.pixel_accuracy for run in group],
        [run.evaluation.pooled.miou for run in group],
        [run.evaluation.per_image.miou for run in group],
        [run.agreement for run in group],
    )
    cells = [f"**{statistics.mean(c):.3f}** ({min(c):.3f}–{max(c):.3f})" for c in columns]
    return f"| {group[0].scene} | {group[0].method} | mean (range) | {' | '.join(cells)} | |"
