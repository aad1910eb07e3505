"""Packed source set: one file at training resolution, small enough for a robot; it is memory-mapped, not loaded.

It is a safetensors file with three tensors: colour and depth of every image, the labels, and an index of where each
part begins. Colour is PNG, so that a packed set gives exactly the batches of the original set, or JPEG, which takes a
quarter of the space. Depth is kept to the millimetre.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from s4net_core import __version__
from s4net_core.classes import ClassList
from s4net_core.errors import BadFrame, SourceSetError
from s4net_core.files import open_regular
from s4net_core.io.images.codec import MILLIMETRES, imdecode
from s4net_core.io.images.pixels import check_pixels, encoded_size
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37, LabelSpace

T = TypeVar("T", np.uint8, np.uint16)

KEY = "s4net_source_pack"
COLUMNS = ("color_at", "color", "depth", "label_at", "label", "color_crc", "depth_crc", "label_crc")
"""Columns of the index: where an image's parts begin, their bytes and checksums (CRC-32). Depth follows colour."""
_REMEDY = "pack the source set again with s4net pack"


class PackInfo(BaseModel):
    """The file's header: contents and origin of a packed source set.

    Args:
        format: version of this format.
        name: of the source set.
        classes: names, colours and synonyms of the classes; None = SUN RGB-D 37.
        width, height: of every image, pixels.
        quality: of JPEG; 0 = PNG, nothing is lost.
        parts: number of images to "train" and to "test" on, in this order in the file; "all" where there is no split.
        depth: whether there is depth.
        source: path of the original source set.
        source_sha256: of colour, label and depth of all its images, before they were resized.
        version: of the s4net that wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    classes: ClassList | None = None
    width: PositiveInt
    height: PositiveInt
    quality: int
    parts: dict[str, NonNegativeInt]
    depth: bool = False
    source: str = ""
    source_sha256: str = ""
    version: str = __version__

    @property
    def label_space(self) -> LabelSpace:
        """Meaning of the class ids."""
        return self.classes.space() if self.classes else SUNRGBD37


class PackedSourceSet:
    """Images of a file that `write_pack` wrote.

    Args:
        path: the file.
        split: part of it; a set without an official split gives all its images for each.
        with_depth: give depth as well, where there is some.

    Raises:
        SourceSetError: the file is missing, truncated or of another format, or lacks the part.
    """

    def __init__(self, path: str | Path, *, split: str = "train", with_depth: bool = False) -> None:
        self.path = Path(path)
        self.info = read_pack_info(path)
        self.name = self.info.name
        self.label_space = self.info.label_space
        self._with_depth = with_depth
        self._range = _range(self.path, self.info, split)
        with _opened(self.path) as file:
            found, expected = file.get_slice("index").get_shape(), [sum(self.info.parts.values()), len(COLUMNS)]
            if found != expected:
                raise SourceSetError(f"{path} has an index of {found} numbers, its header says {expected}: {_REMEDY}")
            self._index: NDArray[np.int64] = file.get_tensor("index")
            self._images, self._labels = _mapped(self.path, "images"), _mapped(self.path, "labels")

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: it is damaged.
        """
        row = self._row(index)
        color_end = row["color_at"] + row["color"]
        data = self._part(self._images, row["color_at"], color_end, row["color_crc"], index)
        depth = None
        if row["depth"] and self._with_depth:
            packed = self._part(self._images, color_end, color_end + row["depth"], row["depth_crc"], index)
            millimetres = self._unpacked(packed, np.dtype(np.uint16), index)
            depth = np.divide(millimetres, np.float32(MILLIMETRES), dtype=np.float32)
        return LabelledImage(self._color(data, index), self.label(index), depth)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image alone, (H, W) uint8, 0 = unlabelled; its colour is not read.

        Raises:
            SourceSetError: it is damaged.
        """
        row = self._row(index)
        data = self._part(self._labels, row["label_at"], row["label_at"] + row["label"], row["label_crc"], index)
        return self._unpacked(data, np.dtype(np.uint8), index)

    def _color(self, data: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        size = encoded_size(data.tobytes())  # of what it will ask memory for
        color = imdecode(data.tobytes(), cv2.IMREAD_COLOR) if size == (self.info.width, self.info.height) else None
        if color is None:
            raise SourceSetError(f"{self.path}, image {index} is no image of the pack's size: {_REMEDY}")
        return np.asarray(cv2.cvtColor(color, cv2.COLOR_BGR2RGB), np.uint8)

    def _unpacked(self, data: NDArray[np.uint8], dtype: np.dtype[T], index: int) -> NDArray[T]:
        """(H, W), no matter how much the packed bytes stand for."""
        size = (self.info.height, self.info.width)
        most = size[0] * size[1] * dtype.itemsize
        try:
            return np.frombuffer(zlib.decompressobj().decompress(data.data, most + 1), dtype).reshape(size)
        except (zlib.error, ValueError) as error:
            raise SourceSetError(f"{self.path}, image {index} is damaged ({error}): {_REMEDY}") from error

    def _row(self, index: int) -> dict[str, int]:
        return dict(zip(COLUMNS, self._index[self._range[index]].tolist(), strict=True))

    def _part(self, tensor: NDArray[np.uint8], begin: int, end: int, checksum: int, index: int) -> NDArray[np.uint8]:
        data = tensor[begin:end]
        if zlib.crc32(data.data) != checksum:
            raise SourceSetError(f"{self.path}, image {index} is damaged (its checksum differs): {_REMEDY}")
        return data


def read_pack_info(path: str | Path) -> PackInfo:
    """The header alone.

    Raises:
        SourceSetError: the file is missing, truncated or of another format.
    """
    with _opened(path) as file:
        text = (file.metadata() or {})[KEY]
    try:
        info = PackInfo.model_validate_json(text)
        check_pixels(info.width, info.height)
        return info
    except BadFrame as error:
        raise SourceSetError(f"packed source set {path}: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        raise SourceSetError(
            f"{path} has an unknown header ({'.'.join(map(str, problem['loc']))}: {problem['msg']}): it may come from "
            "a newer s4net; update this one, or pack the source set again"
        ) from error


def is_pack(path: Path) -> bool:
    """Whether `path` is taken for a packed source set: any file but MATLAB's, because all other formats are folders."""
    return path.is_file() and path.suffix != ".mat"


def _mapped(path: Path, name: str) -> NDArray[np.uint8]:
    """A tensor of bytes, mapped from the file; safetensors itself would copy every part that is read."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
    return np.memmap(path, np.uint8, "r", offset=8 + length + begin, shape=(end - begin,))


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The file as safetensors gives it, which refuses a truncated one; errors become a `SourceSetError`."""
    try:
        open_regular(path).close()  # not waiting for a pipe
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except OSError as error:
        raise SourceSetError(f"packed source set {path} cannot be read ({error.strerror or error})") from error
    except (SafetensorError, KeyError) as error:
        raise SourceSetError(f"{path} is no packed source set, or is cut off ({error}): {_REMEDY}") from error


def _range(path: Path, info: PackInfo, split: str) -> range:
    """Positions of a part in the file."""
    total = sum(info.parts.values())
    if split == "all" or "all" in info.parts:
        return range(total)
    if split not in info.parts:
        raise SourceSetError(f"{path} has no images to {split} on, only to {' and '.join(info.parts)} on: {_REMEDY}")
    names = list(info.parts)
    begin = sum(info.parts[name] for name in names[: names.index(split)])
    return range(begin, begin + info.parts[split])
