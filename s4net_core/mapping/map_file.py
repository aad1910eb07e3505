"""Files of a map: one .npz that holds all votes, and PLY for Open3D, CloudCompare and others."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import MapSettings
from s4net_core.errors import S4NetError, first_line
from s4net_core.files import open_atomically, open_regular, parse_json, read_file, read_npz, write_result
from s4net_core.labels import NAMES_SHOWN, LabelSpace
from s4net_core.mapping.points import MapPoints

VERSION = 1
DESCRIPTION = 1 << 20
"""Bytes for the description and the headers of the arrays."""
VOXEL_BYTES, VOTES_BYTES = 8 + 3 * 4, 4 + 1 + 4
"""Of key and colours of a voxel, and of its votes for one class: the sum over the arrays below."""
ARRAYS = {"keys": np.int64, "colors": np.uint32, "voxel": np.uint32, "column": np.uint8, "votes": np.uint32}
_VERTEX = np.dtype(
    [("xyz", "<f8", 3), ("color", "u1", 3), ("label", "u1"), ("confidence", "<f4")],
)


@dataclass(frozen=True, eq=False)
class SavedMap:
    """All voxels.

    Args:
        keys: (N,) int64, sorted.
        counts: (N, C + 3) uint32, votes by class, and sums of red, green and blue.
        origin: (3,) int64, index of the voxel from which the keys count.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.uint32]
    origin: NDArray[np.int64]


def check_replaceable(path: Path) -> None:
    """Refuse to write a map over anything else: the keyframes of the adaptation node are .npz files too.

    Raises:
        S4NetError: `path` is there and no map or point cloud, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            ours = file.read(4) == b"ply\n"
            if not ours and zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    ours = {f"{name}.npy" for name in ("about", *ARRAYS)} == set(archive.namelist())
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, zipfile.BadZipFile) as error:
        raise S4NetError(f"{path} is there and is not overwritten ({error}): name another file") from error
    if not ours:
        raise S4NetError(f"{path} is there, is no map and is not overwritten: name another file")


def write(path: Path, saved: SavedMap, space: LabelSpace, voxel_size: float) -> None:
    """Write a map, whole or not at all.

    Raises:
        S4NetError: the file cannot be written.
    """
    votes = saved.counts[:, : space.num_classes]
    voxel, column = np.nonzero(votes)
    about = {"version": VERSION, "voxel_size": voxel_size, "classes": space.names, "origin": saved.origin.tolist()}
    try:
        with open_atomically(path) as file:
            np.savez_compressed(
                file,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                keys=saved.keys,
                colors=saved.counts[:, space.num_classes :],
                voxel=voxel.astype(np.uint32),
                column=column.astype(np.uint8),
                votes=votes[voxel, column],
            )
    except OSError as error:
        raise S4NetError(f"{path} cannot be written ({error}): check the folder's rights and free space") from error


def read(path: Path, space: LabelSpace, settings: MapSettings) -> SavedMap:
    """Read a map.

    Args:
        path: file that `write` wrote.
        space: classes that it must have.
        settings: `voxel_size` that it must have, and `max_voxels`.

    Raises:
        S4NetError: it cannot be read, is damaged, a point cloud or no map at all, or is of other classes, another voxel
            size or too large.
    """
    most = DESCRIPTION + settings.max_voxels * (VOXEL_BYTES + VOTES_BYTES * space.num_classes)
    try:
        content = read_file(path, most)
    except OSError as error:
        raise S4NetError(f"map {path} cannot be read ({error}): give an .npz that s4net map or ~/save wrote") from error
    if content.startswith(b"ply\n"):
        raise S4NetError(f"{path} is a point cloud, which cannot be loaded as a map: give the .npz")
    try:
        about, arrays = _unpacked(content, most)
        version, voxel_size, names = about["version"], float(about["voxel_size"]), tuple(about["classes"])
        origin = np.array(about["origin"], np.int64).reshape(3)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise S4NetError(f"{path} is no map, or is damaged ({first_line(error)}): save it again") from error
    if version != VERSION:
        raise S4NetError(f"map {path} has version {version}, but this program reads {VERSION}: update s4net")
    if names != space.names:
        shown = ", ".join(map(str, names[:NAMES_SHOWN]))
        raise S4NetError(
            f"map {path} has {len(names)} classes ({shown}, ...) but the weights have {space}: use weights of these"
        )
    if voxel_size != settings.voxel_size:
        raise S4NetError(
            f"map {path} has voxels of {voxel_size} m but map.voxel_size is {settings.voxel_size}: set it to the first"
        )
    count = len(arrays["keys"])
    if count > settings.max_voxels:
        raise S4NetError(f"map {path} has {count} voxels but map.max_voxels is {settings.max_voxels}: raise it")
    if not _fits(arrays, space.num_classes):
        raise S4NetError(f"{path} is no map, or is damaged (its arrays do not fit each other): save it again")
    counts = np.zeros((count, space.num_classes + arrays["colors"].shape[1]), np.uint32)
    counts[arrays["voxel"], arrays["column"]] = arrays["votes"]
    counts[:, space.num_classes :] = arrays["colors"]
    return SavedMap(arrays["keys"], counts, origin)


def write_ply(path: Path, points: MapPoints) -> None:
    """Write points with their colour, label and confidence as PLY, binary.

    Raises:
        S4NetError: the file cannot be written.
    """
    vertices = np.empty(len(points), _VERTEX)
    vertices["xyz"], vertices["color"] = points.xyz, points.color
    vertices["label"], vertices["confidence"] = points.label, points.confidence
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property double {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue", "label")),
        "property float confidence",
        "end_header\n",
    ]
    write_result(path, "\n".join(header).encode() + vertices.tobytes())


def _unpacked(content: bytes, most: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Description and arrays of a file; before it is unpacked, more bytes than `most` are refused."""
    arrays = read_npz(io.BytesIO(content), most, "map.max_voxels needs")
    about = parse_json(arrays["about"].tobytes())
    if not isinstance(about, dict):
        raise ValueError("its description is no JSON object")
    return about, {name: arrays[name] for name in ARRAYS}


def _fits(arrays: dict[str, NDArray[Any]], classes: int) -> bool:
    keys, colors, entries = arrays["keys"], arrays["colors"], [arrays[name] for name in ("voxel", "column", "votes")]
    if any(arrays[name].dtype != dtype for name, dtype in ARRAYS.items()) or keys.ndim != 1:
        return False
    if colors.shape != (len(keys), 3) or any(one.shape != entries[0].shape or one.ndim != 1 for one in entries):
        return False
    voxel, column, votes = entries
    sorted_once = bool((np.diff(keys) > 0).all()) and bool((keys >= 0).all())
    inside = bool((voxel < len(keys)).all()) and bool((column < classes).all()) and bool((votes > 0).all())
    return sorted_once and inside and len(np.unique(voxel)) == len(keys)
