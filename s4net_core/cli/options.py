"""Options that every sub-command with settings shares."""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from s4net_core.config import Settings, load_settings
from s4net_core.config.options import add_settings_file_options
from s4net_core.errors import SettingsError
from s4net_core.machine.process import prepare_process

if TYPE_CHECKING:
    from s4net_core.labels import LabelMap


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--settings``, ``--set``, ``--device`` and ``--seed``; `settings_from` reads them."""
    group = parser.add_argument_group("settings", "`s4net settings` lists all of them with their defaults")
    add_settings_file_options(group)
    group.add_argument("--device", help="auto, cpu, cuda or cuda:N; short for --set device=...")
    group.add_argument("--seed", type=int, help="seed of every random choice; short for --set seed=...")


def settings_from(args: argparse.Namespace) -> Settings:
    """Settings that the user asked for: defaults, then the file, then ``--set``, then ``--device`` and ``--seed``.

    Raises:
        SettingsError: unknown name, wrong type, out of range, or a file that is not there.
    """
    settings = load_settings(args.settings, overrides_from(args))
    prepare_process(settings)
    return settings


def overrides_from(args: argparse.Namespace) -> list[str]:
    """``--set``, ``--device`` and ``--seed`` as NAME=VALUE; later ones win."""
    short = {"device": args.device, "seed": args.seed}
    return [*args.overrides, *(f"{name}={value}" for name, value in short.items() if value is not None)]


def add_classes_option(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add ``--classes``, short for the setting `model.label_space`; `add_classes` reads it."""
    parser.add_argument(
        "--classes",
        metavar="NAME|FILE",
        help=f"classes of the network: sunrgbd37 (default), {more}or a YAML file of your own, a list of names or of "
        "{name, color, synonyms, no_class}; short for --set model.label_space=...",
    )


def add_classes(args: argparse.Namespace) -> None:
    """Turn ``--classes`` into an override of the settings; call before `settings_from`."""
    if args.classes is not None:
        args.overrides.append(f"model.label_space={args.classes}")


def track_labels(positions: Sequence[int]) -> Iterable[int]:
    """Show a progress bar while a training reads the labels of the whole source set, which it does at its start."""
    return track(positions, "labels of the source set", console=Console(stderr=True), transient=True)


def add_learning_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings options, ``--checkpoint`` and ``--source``; `learning_settings_from` reads them."""
    parser.add_argument(
        "--checkpoint", help="weights file of the base model, or auto or demo; short for --set checkpoint=..."
    )
    parser.add_argument(
        "--source", help="labelled source set, a folder or a file of s4net pack; short for --set source.path=..."
    )
    add_settings_options(parser)


def learning_settings_from(args: argparse.Namespace, *, source_free: bool = False) -> Settings:
    """Like `settings_from`, but requires a base model and, unless `source_free`, a source set.

    Images have the base model's size unless the settings give one.

    Raises:
        SettingsError: as `settings_from`, or the base model or the source set is missing.
        CheckpointError: the base model cannot be read.
    """
    for name, value in (("checkpoint", args.checkpoint), ("source.path", args.source)):
        if value is not None:
            args.overrides.append(f"{name}={value}")
    settings = settings_from(args)
    if not settings.source.path and not source_free:
        raise SettingsError("no source set: give --source FOLDER")
    from s4net_core.models.base_model_file import base_model_file  # late: `s4net doctor` must run without torch
    from s4net_core.models.checkpoint import read_info

    settings.checkpoint = str(base_model_file(settings.checkpoint, settings.model))
    return settings.sized(read_info(settings.checkpoint).model)


def add_poses_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--poses``: a file for `open_capture`."""
    parser.add_argument(
        "--poses",
        default="",
        metavar="FILE",
        help="poses where the capture has none, or instead of its own: TUM text, .log, .json, poses_noisy.txt",
    )


def add_labels_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--labels``; `labels_from` reads it."""
    from s4net_core.labels import LABEL_MAPS  # late: `s4net doctor` must run where NumPy does not

    names = ", ".join(LABEL_MAPS)
    parser.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help=f"map another data set's ids to SUN RGB-D 37: {names}, or a file with ScanNet's or NYU's table",
    )


def labels_from(args: argparse.Namespace) -> "LabelMap | None":
    """The map that ``--labels`` names; None = the ids are already those of SUN RGB-D 37.

    Raises:
        LabelTableError: there is no such map or table.
    """
    from s4net_core.io.label_files.tables import label_map  # late: only --labels needs SciPy

    return label_map(args.labels) if args.labels else None


def positive(text: str) -> int:
    """Type of an option: a whole number, 1..1000000."""
    return _number(text, 1, 10**6)


def add_quality_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--quality`` of the images that a command writes."""
    parser.add_argument(
        "--quality",
        type=_quality,
        default=90,
        metavar="1..100",
        help="JPEG quality; 100 in a scene folder = PNG (%(default)s)",
    )


def _quality(text: str) -> int:
    return _number(text, 1, 100)


def _number(text: str, lowest: int, highest: int) -> int:
    value = int(text) if text.isdecimal() else 0
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} to {highest}")
    return value
