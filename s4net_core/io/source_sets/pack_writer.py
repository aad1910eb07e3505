"""Packs a source set into one file at training resolution, see `packed`."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.classes import ClassList
from s4net_core.errors import SourceSetError
from s4net_core.files import open_atomically
from s4net_core.io.images.codec import depth_to_millimetres
from s4net_core.io.source_sets.packed import COLUMNS, KEY, PackInfo
from s4net_core.io.source_sets.source_set import LabelledImage, SourceSet
from s4net_core.labels import SUNRGBD37

_ZLIB_LEVEL = 1
"""Labels shrink to a thirtieth at any level; the first is the fastest."""
_SPARE = 256
"""Bytes by which the header may grow after the first image is written."""


def write_pack(
    path: str | Path,
    parts: Mapping[str, SourceSet],
    width: int,
    height: int,
    *,
    quality: int = 0,
    source: str = "",
    limit: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> PackInfo:
    """Pack the parts of a source set; memory holds only their packed labels and one image.

    Args:
        path: file to write, atomically.
        parts: "train" and "test", or "all" where there is no official split.
        width, height: size to which every image is resized, pixels.
        quality: of JPEG, 1..100; 0 = PNG.
        source: path of the original source set, for the header.
        limit: largest number of images to pack from each part; None = all.
        on_image: called after each.

    Returns:
        The header.

    Raises:
        SourceSetError: an image cannot be read, or the file cannot be written; an existing file stays as it is.
    """
    first = next(iter(parts.values()))
    info = PackInfo(
        name=first.name,
        classes=None if first.label_space == SUNRGBD37 else ClassList.of(first.label_space),
        width=width,
        height=height,
        quality=quality,
        parts={name: len(range(len(part))[:limit]) for name, part in parts.items()},
        source=source,
    )
    images = (part[index] for part in parts.values() for index in range(len(part))[:limit])
    try:
        with open_atomically(path) as file:
            return _write(file, info, images, on_image)
    except OSError as error:
        raise SourceSetError(f"{path} cannot be written ({error.strerror or error}): is the disk full?") from error


def _write(file: BinaryIO, info: PackInfo, images: Iterable[LabelledImage], on_image: Callable[[], None]) -> PackInfo:
    """Write images as they come, then the labels, then the header into the space reserved for it."""
    room = -(-(len(_header(info, 0, 0)) + _SPARE) // 8) * 8
    file.seek(8 + room + sum(info.parts.values()) * len(COLUMNS) * 8)
    rows, labels, digest = [], list[bytes](), hashlib.sha256()
    image_at = label_at = 0
    for image in images:
        _hash(image, digest.update)
        color, depth, label = _encode(image.resized(info.width, info.height), info.quality)
        file.write(color + depth)
        labels.append(label)
        sizes = (image_at, len(color), len(depth), label_at, len(label))
        rows.append((*sizes, *(zlib.crc32(part) for part in (color, depth, label))))
        image_at, label_at = image_at + len(color) + len(depth), label_at + len(label)
        on_image()
    file.writelines(labels)
    index = np.array(rows, "<i8")
    changes = {"source_sha256": digest.hexdigest(), "depth": bool(index[:, COLUMNS.index("depth")].any())}
    info = info.model_copy(update=changes)
    file.seek(0)
    file.write(room.to_bytes(8, "little") + _header(info, image_at, label_at).ljust(room) + index.tobytes())
    return info


def _header(info: PackInfo, image_bytes: int, label_bytes: int) -> bytes:
    """The header as safetensors defines it; trailing spaces are allowed."""
    shapes = {"index": [sum(info.parts.values()), len(COLUMNS)], "images": [image_bytes], "labels": [label_bytes]}
    header: dict[str, object] = {"__metadata__": {KEY: info.model_dump_json()}}
    begin = 0
    for name, shape in shapes.items():
        end = begin + int(np.prod(shape)) * (8 if name == "index" else 1)
        header[name] = {"dtype": "I64" if name == "index" else "U8", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    return json.dumps(header).encode()


def _encode(image: LabelledImage, quality: int) -> tuple[bytes, bytes, bytes]:
    """Colour, depth (empty where there is none) and label."""
    bgr = cv2.cvtColor(image.color, cv2.COLOR_RGB2BGR)
    if quality:
        color = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    else:
        color = cv2.imencode(".png", bgr)[1]
    depth = b"" if image.depth is None else _deflate(depth_to_millimetres(image.depth))
    return color.tobytes(), depth, _deflate(image.label)


def _deflate(array: NDArray[np.unsignedinteger[Any]]) -> bytes:
    return zlib.compress(array.tobytes(), _ZLIB_LEVEL)


def _hash(image: LabelledImage, update: Callable[[bytes], None]) -> None:
    update(f"{image.color.shape}".encode() + image.color.tobytes() + image.label.tobytes())
    if image.depth is not None:
        update(depth_to_millimetres(image.depth).tobytes())
