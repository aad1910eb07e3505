"""Output of the sub-commands: folders that appear once they are complete, progress bars, counts of skipped frames."""

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
from s4net_core.streams.drops import counted

Item = TypeVar("Item")


@contextmanager
def complete_folder(source: Path, output: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `output` to write into; it takes the place of `output` when the block ends without an error.

    Args:
        source: file or folder that is read; never replaced.
        output: folder to create.
        force: replace `output` if it is a capture or a source set.

    Raises:
        CaptureError: `output` holds `source`, is a link, exists and must not be replaced, or cannot be made.
    """
    _check_paths(source, output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=output.parent, prefix=".s4net-")
    except OSError as error:
        raise CaptureError(f"{output} cannot be written ({error}): give a folder where you may write") from error
    with temporary as folder:
        finished = Path(folder) / output.name  # a bag names its files after its folder
        yield finished
        if output.exists():
            shutil.rmtree(output)
        finished.replace(output)


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``."""
    parser.add_argument("--force", action="store_true", help="replace OUTPUT if it is a capture or source set")


def tracked(items: Iterable[Item], doing: str, console: Console, total: int | None = None) -> Iterable[Item]:
    """The items, with a progress bar on a terminal; it shows how many remain if `total` or their length is above 0."""
    return track(items, doing, total=total, console=console, disable=not console.is_terminal)


def progress_bar(console: Console, *, loss: bool = False, transient: bool = True) -> Progress:
    """Progress bar with a description, the count, the total and the remaining time.

    Args:
        console: shows the bar unless it is quiet.
        loss: show the tasks' field `loss` as well.
        transient: remove the bar at the end.
    """
    losses = [TextColumn("loss {task.fields[loss]:.3f}")] if loss else []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *losses, TimeRemainingColumn()
    return Progress(*columns, console=console, transient=transient, disable=console.quiet)


def left_out(skipped: Mapping[str, int]) -> str:
    """Number of skipped frames by reason, in brackets; empty when no frame was skipped."""
    return f" (left out: {counted(skipped)})" if skipped else ""


def say_left_out(skipped: Mapping[str, int], details: Mapping[str, str], console: Console) -> None:
    """Print a line for each reason for skipped frames: how many, and the newest message."""
    for reason, count in skipped.items():
        text = f"left out: {count} {reason}, e.g. {details[reason]}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_written(output: Path, message: str, console: Console) -> None:
    """Print one line: the path, the message and the size in MB."""
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    console.print(f"{output}: {message}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)


def _check_paths(source: Path, output: Path, force: bool) -> None:
    if source.exists() and (output.resolve() == source.resolve() or output.resolve() in source.resolve().parents):
        raise CaptureError(f"output {output} holds the source {source}: give another folder")
    if output.is_symlink():
        raise CaptureError(f"{output} is a link to {output.resolve()}: name that folder itself, or another one")
    if not output.exists():
        return
    if not force:
        raise CaptureError(f"{output} exists already: give another folder, or --force to replace it")
    from s4net_core.io.bags.storage import is_bag

    if not output.is_dir() or not (is_bag(output) or (output / "color").is_dir() or not any(output.iterdir())):
        raise CaptureError(f"{output} is neither a capture nor a source set, so --force does not remove it")
