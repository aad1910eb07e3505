"""Atomic writes, where a reader sees the old or the new file but never a part, and locks on folders."""

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
"""Suffix of files that are being written; a crash may leave such a file behind."""
LOCK = ".lock"
"""Name of the lock file in a folder that one process uses alone."""


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
        S4NetError: the file cannot be written; of the type `error`.
    """
    try:
        write_atomically(path, data)
    except OSError as reason:
        raise error(f"{path} cannot be written ({reason}): check the folder's rights and free space") from reason


def creation_time() -> str:
    """Time for a file's metadata, UTC, ISO 8601: SOURCE_DATE_EPOCH if it is set, for repeatable files, else now.

    Raises:
        S4NetError: SOURCE_DATE_EPOCH is set but is not a number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        time = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise S4NetError(f"SOURCE_DATE_EPOCH is '{epoch}': give seconds since 1970, or unset it") from error
    return time.isoformat(timespec="seconds")


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends; an error in the block discards it.

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
    """Exclusive use of a folder until `release` or until the process ends, even by a crash.

    Args:
        folder: must exist.
        remedy: end of the error message: what the user can do when the folder is in use.

    Raises:
        S4NetError: another process uses the folder.
        OSError: the lock file cannot be written.
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
        """Lock a folder, which is made if it is missing.

        Raises:
            S4NetError: another process uses the folder, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(folder, remedy)
        except OSError as error:
            raise S4NetError(f"{folder} cannot be written ({error}): check its rights and free space") from error

    def __enter__(self) -> "FolderLock":
        """For a ``with`` block; its end releases the lock."""
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock. The lock file stays: removing it could let two processes hold the lock."""
        os.close(self._descriptor)
