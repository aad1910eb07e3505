"""MATLAB files: the old format through SciPy, format 7.3 (HDF5) through h5py; only the variables needed are read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s4net_core.errors import S4NetError

if TYPE_CHECKING:
    import h5py

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512
"""Bytes of MATLAB's own header before the HDF5 signature."""


def is_mat73(path: Path) -> bool:
    """Whether `path` is a file of format 7.3; only its signature is read."""
    if path.suffix != ".mat" or not path.is_file():
        return False
    with path.open("rb") as file:
        return HDF5_SIGNATURE in (file.read(8), file.read(USER_BLOCK)[-8:])


class Mat73:
    """A file of format 7.3, open for reading. Arrays are read when they are indexed; their axes are reversed.

    A forked process opens the file again, because processes must not share an open HDF5 file.

    Args:
        path: the file.
        error: kind of `S4NetError` to raise.

    Raises:
        S4NetError: it is missing, truncated or of another format, or h5py is not installed.
    """

    def __init__(self, path: Path, error: type[S4NetError]) -> None:
        self._path, self._error = path, error
        self._file, self._process = self._open(), os.getpid()

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def __getitem__(self, key: Any) -> Any:
        """A variable by its name, or by a reference that another variable holds.

        Raises:
            KeyError: no variable has this name.
        """
        if self._process != os.getpid():
            self._file, self._process = self._open(), os.getpid()
        return self._file[key]

    def _open(self) -> "h5py.File":
        try:
            import h5py
        except ImportError as missing:
            raise self._error(f"{self._path} needs h5py: pip install h5py") from missing
        try:
            return h5py.File(self._path, "r")
        except OSError as reason:
            raise self._error(f"{self._path} cannot be read ({reason}): fetch it again") from reason


def load_mat(path: Path, names: Sequence[str], error: type[S4NetError]) -> list[Any]:
    """Variables of a file of the old format, with axes of length 1 removed and structures as objects.

    Raises:
        S4NetError: of the given kind; the file is missing, truncated or of another format, or has no such variable.
    """
    import scipy.io

    try:
        found = scipy.io.loadmat(path, variable_names=names, squeeze_me=True, struct_as_record=False)
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror or reason}): fetch it again") from reason
    except NotImplementedError as reason:
        raise error(f"{path} is of MATLAB's format 7.3: save it again with '-v7', as it was published") from reason
    except Exception as reason:  # SciPy promises no type of error for a truncated file
        raise error(f"{path} is no MATLAB file, or is cut off ({reason}): fetch it again") from reason
    missing = [name for name in names if name not in found]
    if missing:
        raise error(f"{path} has no variable '{missing[0]}': is it another file of that name?")
    return [found[name] for name in names]


def strings(cells: Any) -> list[str]:
    """Strings of a cell array; SciPy gives a single cell without its array."""
    return [str(cell) for cell in np.atleast_1d(cells)]
