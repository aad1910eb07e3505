"""Files that are either the old or the new version, never a part, and folders that one process has for itself."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from s4net_core.errors import S4NetError

TEMPORARY = ".tmp"
"""Suffix of files that are being written, and of those that a crash left behind."""
LOCK = ".lock"
"""File in a folder that one process has for itself."""


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Put `data` at `path`; a reader, or a power cut, sees the old content or the new one.

    Args:
        path: file to (over)write; missing folders are made.
        data: content; text is written as UTF-8.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` is as before.
    """
    with open_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_result(path: str | Path, data: bytes | str, error: type[S4NetError] = S4NetError) -> None:
    """`write_atomically` for a file that a user asked for.

    Raises:
        S4NetError: of the given kind; the file cannot be written.
    """
    try:
        write_atomically(path, data)
    except OSError as reason:
        raise error(f"{path} cannot be written ({reason}): check the folder's rights and free space") from reason


def creation_time() -> str:
    """Now, UTC, ISO 8601, for what a file says about itself; or the time in SOURCE_DATE_EPOCH, for the same file again.

    Raises:
        S4NetError: that variable is set, but is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        time = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise S4NetError(f"SOURCE_DATE_EPOCH is '{epoch}': give seconds since 1970, or unset it") from error
    return time.isoformat(timespec="seconds")


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends, unless it ends by an error.

    Args:
        path: file to (over)write; missing folders are made.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` is as before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, but another user's node may have to read it
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


class FolderLock:
    """A folder for oneself until `release` or the end of the process, however that comes.

    Args:
        folder: must exist.
        remedy: what a person may do who finds it in use.

    Raises:
        S4NetError: somebody else has it.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, remedy: str) -> None:
        self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise S4NetError(f"{folder} is in use by another process: {remedy}") from error
        except OSError:
            os.close(self._descriptor)
            raise

    @classmethod
    def of_new(cls, folder: Path, remedy: str) -> "FolderLock":
        """The same for a folder that is made where it is missing.

        Raises:
            S4NetError: somebody else has it, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(folder, remedy)
        except OSError as error:
            raise S4NetError(f"{folder} cannot be written ({error}): check its rights and free space") from error

    def __enter__(self) -> "FolderLock":
        """For a ``with`` block, at the end of which it is released."""
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Leave the folder to others; the lock file stays, since removing it would let two have it."""
        os.close(self._descriptor)
