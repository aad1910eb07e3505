"""Image files of captures and source sets: colour as RGB, depth as metres, labels as class ids."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.files import read_file
from s4net_core.io.images.codec import MILLIMETRES, decode_compressed_color, depth_to_millimetres, imdecode
from s4net_core.labels import LabelMap, LabelSpace, from_mask

COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_color(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, read-only.

    Raises:
        BadFrame: ``unreadable`` when the file is missing, ``color_format`` when it is truncated or no JPEG or PNG.
    """
    try:
        return decode_compressed_color(path.suffix, _bytes(path))
    except BadFrame as error:
        raise BadFrame(error.reason, f"{path}: {error}") from error


def read_depth(path: Path, units_per_metre: float = MILLIMETRES, no_depth: int = 0) -> NDArray[np.float32]:
    """(H, W) float32 metres, 0 = none.

    Args:
        path: 16-bit image with one channel.
        units_per_metre: 1000 for millimetres, 5000 for TUM RGB-D.
        no_depth: value that stands for no depth, beside 0.

    Raises:
        BadFrame: ``unreadable``, or ``depth_format`` when it is not a 16-bit image with one channel.
    """
    raw = read_raw_depth(path)
    depth: NDArray[np.float32] = np.divide(raw, np.float32(units_per_metre), dtype=np.float32)
    if no_depth:
        depth[raw == no_depth] = 0.0
    return depth


def read_raw_depth(path: Path) -> NDArray[np.uint16]:
    """(H, W) uint16, the file's values unchanged.

    Raises:
        BadFrame: ``unreadable``, or ``depth_format`` when it is not a 16-bit image with one channel.
    """
    raw = _read(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise BadFrame(
            "depth_format", f"{path} is {raw.shape} {raw.dtype}: depth must be a 16-bit image with one channel"
        )
    return raw.astype(np.uint16, copy=False)


def read_label(path: Path, space: LabelSpace, map_labels: LabelMap | None = None) -> NDArray[np.uint8]:
    """(H, W) uint8 class ids, 0 = unlabelled (without a map, 255 in the file counts as unlabelled too).

    Args:
        path: image of ids with one channel, 8 or 16 bit.
        space: what the ids mean, after `map_labels`.
        map_labels: applied to the ids in the file; None = the ids are those of `space`.

    Raises:
        BadFrame: ``unreadable``, or ``label_format`` when it is not an image of ids with one channel.
        S4NetError: an id is outside the label space.
    """
    return decode_label(_bytes(path), str(path), space, map_labels)


def decode_label(
    content: bytes, where: str, space: LabelSpace, map_labels: LabelMap | None = None
) -> NDArray[np.uint8]:
    """As `read_label`, from the bytes of the file; `where` names it in errors."""
    raw = _decode(content, where, cv2.IMREAD_UNCHANGED)
    if raw.ndim != 2 or not np.issubdtype(raw.dtype, np.unsignedinteger) or (map_labels is None and raw.max() > 255):
        raise BadFrame(
            "label_format",
            f"{where} is {raw.shape} {raw.dtype} with values up to {raw.max()}: labels must be an image of class ids "
            "0..255 with one channel, not a coloured or palette picture",
        )
    label = from_mask(raw.astype(np.uint8)) if map_labels is None else map_labels(raw)
    space.check(label, where)
    return label


def write_color(path: Path, color: NDArray[np.uint8], quality: int = 90) -> None:
    """Write (H, W, 3) uint8 RGB; `quality` is that of JPEG and has no effect on PNG.

    Raises:
        CaptureError: the file cannot be written.
    """
    parameters = [] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    _write(path, cv2.cvtColor(color, cv2.COLOR_RGB2BGR), parameters)


def write_depth(path: Path, depth: NDArray[np.float32]) -> None:
    """Write (H, W) float32 metres as 16-bit millimetres; depth beyond 65.535 m becomes 0 = none.

    Raises:
        CaptureError: the file cannot be written.
    """
    _write(path, depth_to_millimetres(depth), [])


def write_label(path: Path, label: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 class ids, 0 = unlabelled.

    Raises:
        CaptureError: the file cannot be written.
    """
    _write(path, label, [])


def numbered_images(folder: Path) -> dict[int, Path]:
    """Colour images whose names are numbers, by number; leading zeros do not matter."""
    return {int(p.stem): p for p in folder.iterdir() if p.suffix.lower() in COLOR_SUFFIXES and p.stem.isdecimal()}


def _read(path: Path, flags: int) -> NDArray[np.unsignedinteger[Any]]:
    return _decode(_bytes(path), str(path), flags)


def _decode(content: bytes, where: str, flags: int) -> NDArray[np.unsignedinteger[Any]]:
    try:
        image = imdecode(content, flags)
    except BadFrame as error:
        raise BadFrame(error.reason, f"{where}: {error}") from error
    if image is None:
        raise BadFrame("unreadable", f"{where} ({len(content)} bytes) is truncated or no image: fetch the data again")
    return np.asarray(image)


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise BadFrame("unreadable", f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, image: NDArray[np.integer[Any]], parameters: list[int]) -> None:
    if not cv2.imwrite(str(path), image, parameters):
        raise CaptureError(f"{path} cannot be written: is the disk full or the folder read-only?")
