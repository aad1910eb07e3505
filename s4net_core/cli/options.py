"""Options that every sub-command with settings shares."""

import argparse
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from s4net_core.config import Settings, load_settings
from s4net_core.errors import SettingsError
from s4net_core.files import LOCK, FolderLock

if TYPE_CHECKING:
    from s4net_core.labels import LabelMap

STATE_ENTRY = re.compile(rf"[0-9a-f]{{12}}|{re.escape(LOCK)}")
"""What lies in a folder of states: a folder for each base model, named by its hash, and the lock of who uses it."""
STATE_IN_USE = "wait until it has ended, or give this run a folder of its own with --state"
"""What may be done about a folder of states that is in use."""


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--settings``, ``--set``, ``--device`` and ``--seed``; `settings_from` reads them."""
    group = parser.add_argument_group("settings", "`s4net settings` lists all of them with their defaults")
    add_settings_file_options(group)
    group.add_argument("--device", help="auto, cpu, cuda or cuda:N; short for --set device=...")
    group.add_argument("--seed", type=int, help="seed of every random choice; short for --set seed=...")


def add_settings_file_options(parser: "argparse._ActionsContainer", file: str = "") -> None:
    """Add ``--settings`` and ``--set`` alone.

    Args:
        parser: or a group of one.
        file: which settings are read without the option, for the help; empty = the defaults.
    """
    default = f" (default: {file})" if file else ""
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"YAML file, or a ROS parameters file{default}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="one setting, e.g. learner.learning_rate=1e-4; may be repeated; wins over the file",
    )


def settings_from(args: argparse.Namespace) -> Settings:
    """Settings as the user asked for: defaults, then the file, then ``--set``, then ``--device`` and ``--seed``.

    Raises:
        SettingsError: unknown name, wrong type, out of range, or a file that is not there.
    """
    overrides = list(args.overrides)
    for name in ("device", "seed"):
        value = getattr(args, name)
        if value is not None:
            overrides.append(f"{name}={value}")
    settings = load_settings(args.settings, overrides)
    if settings.threads:
        import torch  # late: commands that need no network must not wait for it

        torch.set_num_threads(settings.threads)
    return settings


def track_labels(positions: Sequence[int]) -> Iterable[int]:
    """A progress bar for trainings, which read the labels of the whole source set when they start."""
    return track(positions, "labels of the source set", console=Console(stderr=True), transient=True)


def add_learning_options(parser: argparse.ArgumentParser) -> None:
    """`add_settings_options`, and ``--checkpoint`` and ``--source``; `learning_settings_from` reads them."""
    parser.add_argument("--checkpoint", help="weights file of the base model; short for --set checkpoint=...")
    parser.add_argument(
        "--source", help="labelled source set, a folder or a file of s4net pack; short for --set source.path=..."
    )
    add_settings_options(parser)


def learning_settings_from(args: argparse.Namespace) -> Settings:
    """As `settings_from`, with a base model and a source set.

    Raises:
        SettingsError: also when there is no base model or no source set.
    """
    for name, value in (("checkpoint", args.checkpoint), ("source.path", args.source)):
        if value is not None:
            args.overrides.append(f"{name}={json.dumps(str(value))}")
    settings = settings_from(args)
    if not settings.checkpoint or not settings.source.path:
        raise SettingsError("no base model or no source set: give --checkpoint FILE and --source FOLDER")
    return settings


def add_training_options(parser: argparse.ArgumentParser, state: str) -> None:
    """Add ``--state``, ``--resume``, ``--force`` and ``--log``; `state_path` reads the first three.

    Args:
        parser: of the command, which has an argument ``output``.
        state: what is kept there, for the help.
    """
    parser.add_argument("--state", type=Path, help=f"{state} (default: OUTPUT.state)")
    parser.add_argument("--resume", action="store_true", help="go on from what is in the state")
    parser.add_argument("--force", action="store_true", help="remove the state and start anew")
    parser.add_argument("--log", type=Path, metavar="DIR", help="write curves for TensorBoard into this folder")


def state_path(args: argparse.Namespace) -> Path:
    """Where the state of a run is kept; that of an earlier one is neither used nor removed unasked.

    Raises:
        SettingsError: there is one, and nobody said what shall become of it; or it is a folder of something else.
        S4NetError: it is to be removed, but somebody uses it.
    """
    state: Path = args.state or args.output.with_name(args.output.name + ".state")
    if _holds_something(state) and not args.resume:
        if not args.force:
            raise SettingsError(f"state {state} exists: add --resume to go on from it, or --force to remove it")
        if state.is_dir():
            if any(not STATE_ENTRY.fullmatch(entry.name) for entry in state.iterdir()):
                raise SettingsError(f"{state} holds more than the state of a run, so --force does not remove it")
            in_use = FolderLock(state, STATE_IN_USE)
            shutil.rmtree(state)
            in_use.release()
        else:
            state.unlink(missing_ok=True)
    return state


def _holds_something(state: Path) -> bool:
    """An error before the first hand-over leaves a folder with nothing but the lock."""
    return any(entry.name != LOCK for entry in state.iterdir()) if state.is_dir() else state.exists()


def add_poses_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--poses``: a file for `open_capture`."""
    parser.add_argument(
        "--poses",
        default="",
        metavar="FILE",
        help="other poses than the capture's own, or where it has none: TUM text, .log, .json, poses_noisy.txt",
    )


def add_labels_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--labels``; `labels_from` reads it."""
    from s4net_core.labels import LABEL_MAPS  # late: `s4net doctor` must run where NumPy does not

    names = ", ".join(LABEL_MAPS)
    parser.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help=f"map ids of another data set to SUN RGB-D 37: {names}, or the file of ScanNet's or NYU's table",
    )


def labels_from(args: argparse.Namespace) -> "LabelMap | None":
    """The map that ``--labels`` names; None = the ids are those of SUN RGB-D 37.

    Raises:
        LabelTableError: there is no such map or table.
    """
    from s4net_core.io.label_files.tables import label_map  # late: SciPy is for those who need it

    return label_map(args.labels) if args.labels else None


def positive(text: str) -> int:
    """Type of an option: a whole number from 1."""
    return _number(text, 1, 10**6)


def quality(text: str) -> int:
    """Type of an option: quality of JPEG, 1..100."""
    return _number(text, 1, 100)


def _number(text: str, lowest: int, highest: int) -> int:
    value = int(text) if text.isdecimal() else 0
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} to {highest}")
    return value
