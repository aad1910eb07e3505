"""Errors that a user can act on: each names the thing, its value and the remedy."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class S4NetError(ValueError):
    """Base of every error that this package raises on purpose; the command line prints it without a traceback."""


def first_line(error: Exception) -> str:
    """First line of another library's exception, with its type, for our message: the full text is often long."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the known name that is most like an unknown one; empty = none is."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""


def place_and_problem(where: Sequence[int | str], message: str) -> tuple[str, str]:
    """What pydantic has found in a file of a user: the place, where lists count from 1, and the bare message."""
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in where)
    return place, message.removeprefix("Value error, ")


class SettingsError(S4NetError):
    """A setting is unknown, has the wrong type or lies outside its range."""


class BadFrame(S4NetError):
    """A frame cannot be used. `reason` is a short fixed key by which such frames are counted.

    Args:
        reason: key in snake_case, e.g. ``depth_size``; the same key is used live and offline.
        message: what is wrong, with its value, and the remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CheckpointError(S4NetError):
    """A weights file is missing, truncated, foreign, or does not fit the network that it is loaded into."""


class BaseModelMissing(CheckpointError):
    """There is no base model on this machine, and none can be fetched.

    Args:
        message: the command to run elsewhere, and where to copy the file.
        file: where the model is looked for.
    """

    def __init__(self, message: str, file: Path) -> None:
        super().__init__(message)
        self.file = file


class CaptureError(S4NetError):
    """A capture (scene folder, bag, ...) is missing, truncated or not in the format that its reader expects."""


class ExportError(S4NetError):
    """A network cannot be written in another format, or its answers there differ from PyTorch's."""


class LearningError(S4NetError):
    """Learning cannot begin or go on: views overlap too little, or the loss is repeatedly not finite."""


class SessionClosed(LearningError):
    """A session was closed before a call to it began or ended; the result of the call must not be used."""


class SourceSetError(S4NetError):
    """A labelled source set is missing, empty or has class ids outside its label space."""


class LabelTableError(S4NetError):
    """A table that maps one data set's class ids to another's is missing or not in its published format."""


class ShapeError(S4NetError):
    """A tensor does not have the shape that a function documents."""


class KeyframeError(S4NetError):
    """A keyframe is not in the buffer, does not fit into it, or a folder of saved keyframes cannot be read."""


class RegistrationError(S4NetError):
    """The views of a capture cannot be registered to each other, or the library for registration is not installed."""
