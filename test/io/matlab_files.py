"""Writes MATLAB files as MATLAB does, so that readers are tested on the published form of a data set."""

from pathlib import Path

import h5py
import numpy as np

HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2015 HDF5 schema 1.00 ."


def create_mat73(path: Path) -> h5py.File:
    """An empty file of format 7.3: MATLAB's 512 bytes of header, then HDF5. `finish_mat73` ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return h5py.File(path, "w", userblock_size=512)


def finish_mat73(file: h5py.File) -> None:
    """Close it and write MATLAB's header."""
    path = file.filename
    file.close()
    with open(path, "r+b") as raw:
        raw.write(HEADER.ljust(124) + b"\x00\x02IM")


def put_array(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    """A MATLAB array: its axes are stored in reverse, compressed."""
    return group.create_dataset(name, data=np.ascontiguousarray(array.T), compression="gzip")


def put_cells(file: h5py.File, group: h5py.Group, name: str, arrays: list[np.ndarray]) -> None:
    """A 1xN cell array, or a field of a 1xN structure array: references (N, 1) into ``#refs#``."""
    refs = file.require_group("#refs#")
    start = len(refs)
    references = [put_array(refs, f"{start + i}", array).ref for i, array in enumerate(arrays)]
    data = np.array(references, dtype=h5py.ref_dtype).reshape(-1, 1)
    group.create_dataset(name, data=data, dtype=h5py.ref_dtype)


def text(string: str) -> np.ndarray:
    """A MATLAB string: a row of 16-bit characters."""
    return np.array([[ord(character) for character in string]], np.uint16)


def cell_strings(strings: list[str]) -> np.ndarray:
    """For `scipy.io.savemat`: a 1xN cell array of strings."""
    cells = np.empty((1, len(strings)), object)
    cells[0] = strings
    return cells
