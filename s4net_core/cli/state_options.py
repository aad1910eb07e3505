"""The state from which a training resumes: used or removed only on request, and by one process at a time."""

import argparse
from pathlib import Path

from s4net_core.config import CockpitSettings, Settings, leaves, load_settings, to_yaml
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.files import BASE, LOCK, FolderLock, write_result

SETTINGS = ".settings.yaml"
"""Name of the settings of the last run in its state."""


def add_training_options(parser: argparse.ArgumentParser, state: str) -> None:
    """Add ``--state``, ``--resume``, ``--force`` and ``--log``; `state_file` or `state_folder` read the others.

    Args:
        parser: of the command, which has an argument ``output``.
        state: help of ``--state``, without its default.
    """
    parser.add_argument("--state", type=Path, help=f"{state} (default: OUTPUT.state)")
    parser.add_argument("--resume", action="store_true", help="continue from the state")
    parser.add_argument("--force", action="store_true", help="remove the state and start anew")
    parser.add_argument("--log", type=Path, metavar="DIR", help="write curves for TensorBoard into this folder")


def state_path(args: argparse.Namespace) -> Path:
    """Where the state of a run is kept.

    Raises:
        SettingsError: the output has no name.
    """
    if not args.output.name:
        raise SettingsError(f"output '{args.output}' is no name of a file: name the weights file to write")
    state: Path = args.state or args.output.with_name(args.output.name + ".state")
    return state.expanduser()


def state_file(args: argparse.Namespace) -> Path:
    """Path of a state that is one file; nothing is changed.

    Raises:
        SettingsError: a state exists and neither ``--force`` nor ``--resume`` is given, or it is a folder.
    """
    state = state_path(args)
    if state.is_dir():
        raise SettingsError(f"state {state} is a folder: name a file with --state")
    if state.exists() and not (args.resume or args.force):
        raise _unasked(state)
    return state


def state_folder(args: argparse.Namespace) -> Path:
    """Path of a state that is a folder, which is made if it is missing; what a run has saved there is not changed.

    Raises:
        SettingsError: a state exists and neither ``--force`` nor ``--resume`` is given, or it is a file, or holds
            anything else.
        S4NetError: another process uses the folder, or it cannot be written.
    """
    state = state_path(args)
    if state.exists() and not state.is_dir():
        raise SettingsError(f"state {state} is a file: name a folder with --state")
    saved = [] if args.resume else _entries(state)
    from s4net_core.learning.state_folder import OF_A_BASE_MODEL  # late: it imports torch

    if any(not OF_A_BASE_MODEL.fullmatch(entry.name) for entry in saved):
        raise SettingsError(f"{state} holds more than the state of a run: give this one a folder with --state")
    with FolderLock.of_new(state, "wait until it has ended, or give this run a folder of its own with --state"):
        if saved and not args.force:
            raise _unasked(state)
    return state


def changed_since(state: Path, settings: Settings) -> list[str]:
    """What of the settings is not as in the run before, for people; then these are written for the next run.

    Those of the cockpit are left out: nothing is learned from them, and its token is a secret.

    Args:
        state: from `state_folder`; without an earlier run's settings nothing has changed.
        settings: of this run.

    Raises:
        S4NetError: the state cannot be written.
    """
    file = state / SETTINGS
    settings = settings.model_copy(update={"cockpit": CockpitSettings()})
    now = {leaf.name: leaf.value for leaf in leaves(settings)}
    try:
        before = {leaf.name: leaf.value for leaf in leaves(load_settings(file))} if file.is_file() else now
    except SettingsError as error:  # of an earlier release, or damaged: no reason not to go on
        return [f"those of the run before cannot be compared ({error})"]
    finally:
        write_result(file, to_yaml(settings))
    return [f"{name} is {value!r} but was {before[name]!r}" for name, value in now.items() if value != before[name]]


def _entries(state: Path) -> list[Path]:
    """What a run has saved: a run that failed before leaves only the lock and a copy of the base model."""
    try:
        entries = [entry for entry in state.iterdir() if entry.name not in (LOCK, SETTINGS)] if state.is_dir() else []
        return [entry for entry in entries if not entry.is_dir() or {path.name for path in entry.iterdir()} != {BASE}]
    except OSError as error:
        raise S4NetError(f"state {state} cannot be read ({error}): check its rights") from error


def _unasked(state: Path) -> SettingsError:
    return SettingsError(f"state {state} exists: add --resume to go on from it, or --force to remove it")
