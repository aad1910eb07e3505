"""What sub-commands write and show: folders that are there when they are complete, bars, and what was left out."""

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from s4net_core.errors import CaptureError
from s4net_core.io.bags.storage import is_bag

Item = TypeVar("Item")


@contextmanager
def complete_folder(source: Path, output: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `output` to write into; it takes the place of `output` when the block ends without an error.

    Args:
        source: what is read; never replaced.
        output: folder that shall come to be.
        force: replace `output` where it is a capture or a source set.

    Raises:
        CaptureError: something would be lost.
    """
    _check_paths(source, output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".s4net-") as folder:
        finished = Path(folder) / output.name  # a bag names its files after its folder
        yield finished
        if output.exists():
            shutil.rmtree(output)
        finished.replace(output)


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``."""
    parser.add_argument("--force", action="store_true", help="replace OUTPUT where it is a capture or source set")


def tracked(items: Iterable[Item], doing: str, console: Console, total: int | None = None) -> Iterable[Item]:
    """The items, with a progress bar on a terminal; it shows how many remain if `total` or their length is above 0."""
    return track(items, doing, total=total, console=console, disable=not console.is_terminal)


def progress_bar(console: Console, *, loss: bool = False, transient: bool = True) -> Progress:
    """Description, bar, how many of how many, and the time that remains.

    Args:
        console: where it is shown, unless that is quiet.
        loss: show the tasks' field `loss` as well.
        transient: gone when it is over.
    """
    losses = [TextColumn("loss {task.fields[loss]:.3f}")] if loss else []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *losses, TimeRemainingColumn()
    return Progress(*columns, console=console, transient=transient, disable=console.quiet)


def left_out(skipped: Mapping[str, int]) -> str:
    """What a pass over a capture left out, by reason, in brackets; empty = nothing."""
    return f" (left out: {', '.join(f'{count} {reason}' for reason, count in skipped.items())})" if skipped else ""


def say_written(output: Path, message: str, console: Console) -> None:
    """One line: where, what, how large."""
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    console.print(f"{output}: {message}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)


def _check_paths(source: Path, output: Path, force: bool) -> None:
    if source.exists() and (output.resolve() == source.resolve() or output.resolve() in source.resolve().parents):
        raise CaptureError(f"output {output} holds the source {source}: give another folder")
    if not output.exists():
        return
    if not force:
        raise CaptureError(f"{output} exists already: give another folder, or --force to replace it")
    if not output.is_dir() or not (is_bag(output) or (output / "color").is_dir() or not any(output.iterdir())):
        raise CaptureError(f"{output} is neither a capture nor a source set, so --force does not remove it")
