"""Files that are safe to read and write: only regular ones, whole or not at all; locks on folders; our own files."""

import errno
import fcntl
import json
import math
import os
import secrets
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from s4net_core.errors import S4NetError, first_line

PACKAGE = "s4net_ros"
"""Name of the ROS package, and of its folder in ``share``."""
TEMPORARY = ".tmp"
"""Suffix of files that are being written; a crash may leave such a file behind."""
LOCK = ".lock"
"""Name of the lock file in a folder that one process uses alone."""
BASE = "base.safetensors"
"""Name of the copy of a base model in the state of its adaptation: a roll-back finds it whatever becomes of the file
that it was made of."""
MAX_BYTES = 1 << 28
"""Size up to which `read_file` reads a file into memory: an image or a description, but not a recording."""
MAX_TEXT = 1 << 26
"""Size up to which `read_text` and `read_json` read a file: Python objects take many times the size of their text."""


def files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and its sub-folders. Folders that are links are entered, because data sets are often linked
    together, but not those that lead back to a folder that they lie in.
    """
    for at, folders, names in os.walk(folder, followlinks=True):
        inside = os.path.realpath(os.path.dirname(at)) + os.sep
        if at != str(folder) and inside.startswith(os.path.realpath(at) + os.sep):
            folders.clear()
            continue
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(at, name)).is_file())


def share_file(*parts: str) -> Path:
    """A file or folder that comes with the code (``config``, ``launch``, ``demo``), in a checkout or installed.

    Raises:
        S4NetError: it is not there; the text names the places searched.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    places = [Path(__file__).absolute().parents[1], *(Path(p) / "share" / PACKAGE for p in prefixes if p)]
    for place in places:
        if (path := place.joinpath(*parts)).exists():
            return path
    searched = ", ".join(map(str, places))
    raise S4NetError(f"{'/'.join(parts)} of {PACKAGE} is in none of {searched}: build and install the package again")


def check_map_name(path: Path) -> None:
    """Refuse a name that does not say what is to be written: ``.npz`` for a semantic map, ``.ply`` for a point cloud.

    It stands here because the command asks before it imports seconds of libraries.

    Raises:
        S4NetError: it ends in neither.
    """
    if path.suffix not in (".npz", ".ply"):
        raise S4NetError(f"output {path} ends neither in .npz nor in .ply: name a file of one of the two")


def read_npz(file: BinaryIO, most: int, who_needs: str) -> dict[str, Any]:
    """Arrays of an .npz file, none of them pickled objects; before it is unpacked, more bytes than `most` are refused.

    Args:
        file: at its start.
        most: bytes of all arrays.
        who_needs: for the error, who needs no more than `most`.

    Raises:
        ValueError: it is no such file, is damaged, or unpacks to more.
    """
    import numpy as np  # late: commands ask for names of files before they import anything slow

    if not zipfile.is_zipfile(file):
        raise ValueError("it is no .npz file, or is cut off")
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= most:
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except MemoryError as error:
        raise ValueError("there is not enough memory to read it") from error
    except ValueError as error:  # NumPy takes what it cannot read for pickled objects, and may advise to allow them
        raise ValueError("it holds something else than arrays of numbers") from error
    except Exception as error:  # whatever zipfile, zlib and NumPy make of a damaged file
        raise ValueError(f"it is damaged ({first_line(error)})") from error
    raise ValueError(f"it unpacks to {size} bytes, more than {who_needs}")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to read it. Pipes and devices are refused and not waited for.

    Raises:
        OSError: it is missing, is no regular file, or may not be read.
    """
    try:
        _check_regular(path, os.stat(path))  # before it is opened: opening some devices does something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        _check_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Content of a regular file.

    Raises:
        OSError: as `open_regular`, or it is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, at most {max_bytes} are read", str(path))
        return file.read(size)


def read_text(path: str | Path) -> str:
    """Content of a text file, UTF-8; at most `MAX_TEXT` bytes are read.

    Raises:
        OSError: as `read_file`.
        ValueError: it is not UTF-8.
    """
    return read_file(path, MAX_TEXT).decode()


def read_json(path: str | Path) -> Any:
    """Content of a JSON file; at most `MAX_TEXT` bytes are read.

    Raises:
        OSError: as `read_file`.
        ValueError: it is no JSON, is nested too deeply, or has a number beyond float64.
    """
    return parse_json(read_file(path, MAX_TEXT))


def parse_json(text: bytes | str) -> Any:
    """As `read_json`, from the file's content."""
    try:
        return json.loads(text, parse_float=_float)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def nan_as_none(value: Any) -> Any:
    """The same for JSON, which knows no NaN: None in its place, however deep in mappings, lists and tuples."""
    if isinstance(value, Mapping):
        return {name: nan_as_none(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [nan_as_none(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _check_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise OSError(errno.EISDIR if kind == "a folder" else errno.EINVAL, f"it is {kind}", str(path))


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


def check_writable(*paths: Path | None) -> None:
    """Refuse files that cannot be written, before the work of which they take the result; nothing is made.

    Args:
        paths: files; None = none is asked for.

    Raises:
        S4NetError: one of them is a folder, or lies where nothing may be written.
    """
    for path in filter(None, paths):
        if path.is_dir():
            raise S4NetError(f"{path} is a folder: name a file")
        if path.exists() and not path.is_file():
            raise S4NetError(f"{path} is no regular file: name another one")
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise S4NetError(
                f"{path} cannot be written: {folder} is no folder that may be written to; name another one"
            )


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

    Who may read the file follows from the umask. A link is replaced, not what it leads to.

    Args:
        path: file to (over)write; missing folders are made.

    Raises:
        OSError: `path` is there and no regular file, the folder is not writable or the disk is full; `path` is as
            before.
    """
    path = Path(path)
    if os.path.exists(path):
        _check_regular(path, os.stat(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers have left behind in a folder that nobody else writes into.

    Raises:
        OSError: the folder cannot be written.
    """
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


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
        self._path = folder / LOCK
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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

    @property
    def holds(self) -> bool:
        """Whether the folder is still there with this lock: another process could lock one that was made anew."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            return False

    def __enter__(self) -> "FolderLock":
        """For a ``with`` block; its end releases the lock."""
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock. The lock file stays: removing it could let two processes hold the lock."""
        os.close(self._descriptor)
