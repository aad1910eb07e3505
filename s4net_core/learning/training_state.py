"""An unfinished training run on disk, from which the run can be resumed exactly."""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from s4net_core.errors import CheckpointError, SettingsError, first_line
from s4net_core.files import open_regular, write_result
from s4net_core.models.checkpoint import MAX_BYTES

DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""Exceptions that reading a damaged file may raise."""


def save_state(path: Path, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a run atomically: the old file stays until the new one is complete.

    Args:
        path: file to (over)write.
        run: settings that must be equal when the run is resumed, plain values by name.
        state: tensors, numbers and containers of them.

    Raises:
        CheckpointError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"run": json.dumps(run), "state": dict(state)}, buffer)
    write_result(path, buffer.getvalue(), CheckpointError)


def load_state(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Read a run that `save_state` has written; nothing in the file is executed, and at most `MAX_BYTES` are read.

    Args:
        path: the file.
        run: as for `save_state`, of the run that resumes.

    Returns:
        The state, on the CPU.

    Raises:
        CheckpointError: the file is missing, cut off, foreign or too large.
        SettingsError: the file belongs to another run.
    """
    try:
        with open_regular(path) as file:
            _check_size(file)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        before, state = json.loads(loaded["run"]), dict(loaded["state"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: leave out --resume to start anew") from error
    except DAMAGE as error:  # experiments resume by themselves: no option of theirs would help
        raise CheckpointError(
            f"{path} holds no training run to resume ({first_line(error)}): delete it to start anew"
        ) from error
    differing = sorted(name for name in before.keys() | run.keys() if before.get(name) != run.get(name))
    if differing:
        changes = ", ".join(f"{name} is {run.get(name)!r} but was {before.get(name)!r}" for name in differing)
        raise SettingsError(f"{path} belongs to another training: {changes}; set it back, or delete it to start anew")
    return state


def _check_size(file: BinaryIO) -> None:
    """Refuse a file that unpacks to more than `MAX_BYTES`: PyTorch also reads compressed ones."""
    with zipfile.ZipFile(file) as archive:
        size: int = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, at most {MAX_BYTES} are read")
    file.seek(0)
