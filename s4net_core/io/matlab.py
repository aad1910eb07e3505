"""MATLAB files: the old format through SciPy, format 7.3 (HDF5) through h5py; only the variables needed are read."""

import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError
from s4net_core.files import MAX_BYTES, open_regular, read_file
from s4net_core.io.images.pixels import check_pixels

if TYPE_CHECKING:
    import h5py

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_COMPRESSED = 15
USER_BLOCK = 512
"""Bytes of MATLAB's own header before the HDF5 signature."""


def is_mat73(path: Path) -> bool:
    """Whether `path` is a file of format 7.3; only its signature is read."""
    if path.suffix != ".mat" or not path.is_file():
        return False
    with open_regular(path) as file:
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

    def has_array(self, name: str) -> bool:
        """Whether a variable of this name is there and is an array."""
        return name in self._file and bool(getattr(self._file[name], "shape", ()))

    def __getitem__(self, key: Any) -> Any:
        """A variable by its name, or by a reference that another variable holds.

        Raises:
            KeyError: no variable has this name.
        """
        if self._process != os.getpid():
            self._file, self._process = self._open(), os.getpid()
        return self._file[key]

    def image(self, where: str, key: Any, position: int | None = None, *, color: bool = False) -> NDArray[Any]:
        """An image, (H, W), or (H, W, 3) with `color`.

        Args:
            where: names the image in errors.
            key: as of ``[key]``.
            position: of the image in an array of images; None = the array is one image.
            color: whether it must have three channels.

        Raises:
            S4NetError: there is no such image, it has more pixels than the limit, or it is damaged.
        """
        try:
            array = self[key]
            shape = array.shape if position is None else array.shape[1:]
            if len(shape) != 2 + color or shape[:-2] != (3,) * color:  # reversed: (3, W, H)
                raise ValueError(f"its shape is {shape[::-1]}")
            check_pixels(*shape[-2:])
            return np.ascontiguousarray(array[() if position is None else position].T)
        except (OSError, LookupError, AttributeError, TypeError, ValueError) as reason:  # BadFrame is a ValueError
            raise self._error(f"{where} cannot be read ({reason}): fetch the file again") from reason

    def _open(self) -> "h5py.File":
        try:
            import h5py
        except ImportError as missing:
            raise self._error(f"{self._path} needs h5py: pip install h5py") from missing
        try:
            open_regular(self._path).close()  # not waiting for a pipe
            return h5py.File(self._path, "r")
        except OSError as reason:
            raise self._error(f"{self._path} cannot be read ({reason}): fetch it again") from reason


def load_mat(path: Path, names: Sequence[str], error: type[S4NetError]) -> list[Any]:
    """Variables of a file of the old format, with axes of length 1 removed and structures as objects.

    Raises:
        S4NetError: of the given kind; the file is missing, truncated, too large or of another format, or has no such
            variable.
    """
    import scipy.io

    try:
        data = read_file(path)
        _check_unpacked(data)
        found = scipy.io.loadmat(io.BytesIO(data), variable_names=names, squeeze_me=True, struct_as_record=False)
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


def _check_unpacked(data: bytes) -> None:
    """Refuse a file whose compressed variables are larger than `MAX_BYTES` together: a few bytes may stand for many.

    A file is 128 bytes of header, whose last two tell the byte order, and then elements with type and length before
    each.
    """
    element = struct.Struct("<II" if data[126:128] == b"IM" else ">II")
    left, at = MAX_BYTES, 128
    while at + element.size <= len(data):
        kind, length = element.unpack_from(data, at)
        at += element.size
        if kind == _COMPRESSED:
            left -= len(zlib.decompressobj().decompress(data[at : at + length], left + 1))
            if left < 0:
                raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
        at += length


def strings(cells: Any) -> list[str]:
    """Strings of a cell array; SciPy gives a single cell without its array."""
    return [str(cell) for cell in np.atleast_1d(cells)]
