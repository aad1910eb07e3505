"""Labelled source set S: images with class ids, split into training and hold-out, served as batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.errors import S4NetError, SourceSetError
from s4net_core.geometry.camera import resize_color, resize_nearest
from s4net_core.io.image_files import (
    COLOR_SUFFIXES,
    read_color,
    read_depth,
    write_color,
    write_depth,
    write_label,
)
from s4net_core.io.label_files import find_label, read_label_file
from s4net_core.labels import SUNRGBD37, LabelMap, LabelSpace

BYTES_PER_PIXEL = 8
"""uint8 red, green, blue and class, float32 depth."""
HOLDOUT_SEED = 0
"""Draws the hold-out of a source set; a constant, not a setting."""


@dataclass(frozen=True)
class LabelledImage:
    """One image of a source set.

    Args:
        color: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids, 0 = unlabelled.
        depth: (H, W) float32 metres, aligned to `color`, 0 = none; None = not known, or not asked for.
    """

    color: NDArray[np.uint8]
    label: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None

    def resized(self, width: int, height: int) -> "LabelledImage":
        """The same image at another size; labels are picked, never mixed."""
        if self.label.shape == (height, width):
            return self
        return LabelledImage(
            resize_color(self.color, width, height),
            resize_nearest(self.label, width, height),
            None if self.depth is None else resize_nearest(self.depth, width, height),
        )


@runtime_checkable
class SourceSet(Protocol):
    """Labelled images, by position."""

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    @property
    def label_space(self) -> LabelSpace:
        """What the ids mean."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledImage: ...

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image alone, (H, W) uint8, 0 = unlabelled."""
        ...


@dataclass(frozen=True)
class LabelledFiles:
    """Where one image of a source set lies.

    Args:
        color: JPEG or PNG.
        label: image of class ids with one channel, or annotation of LabelMe.
        depth: 16-bit image of the same pixels; None = there is none.
    """

    color: Path
    label: Path
    depth: Path | None = None


class FileSourceSet:
    """Images with labels in files of their own.

    Args:
        name: short name for reports.
        files: one entry an image.
        label_space: what the ids mean, after `map_labels`.
        map_labels: from the ids in the files to those of `label_space`; None = they are the same.
        with_depth: read depth as well, where there is one.
        read_depth: a depth file -> (H, W) float32 metres, 0 = none.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[LabelledFiles],
        label_space: LabelSpace = SUNRGBD37,
        *,
        map_labels: LabelMap | None = None,
        with_depth: bool = False,
        read_depth: Callable[[Path], NDArray[np.float32]] = read_depth,
    ) -> None:
        self._name = name
        self._files = files
        self._label_space = label_space
        self._map_labels = map_labels
        self._with_depth = with_depth
        self._read_depth = read_depth

    @property
    def name(self) -> str:
        """Short name for reports."""
        return self._name

    @property
    def label_space(self) -> LabelSpace:
        """What the ids mean."""
        return self._label_space

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: it cannot be read, colour and label differ in size, or an id is outside the label space.
        """
        files = self._files[index]
        try:
            color = read_color(files.color)
            label = read_label_file(files.label, self._label_space, self._map_labels, color.shape[:2])
            depth = self._read_depth(files.depth) if files.depth and self._with_depth else None
        except S4NetError as error:
            raise SourceSetError(str(error)) from error
        check_sizes(color, {files.label: label, files.depth: depth}, files.color)
        return LabelledImage(color, label, depth)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image, (H, W) uint8, 0 = unlabelled, at its own size; its colour is not read.

        Raises:
            SourceSetError: it cannot be read, or an id is outside the label space.
        """
        try:
            return read_label_file(self._files[index].label, self._label_space, self._map_labels)
        except S4NetError as error:
            raise SourceSetError(str(error)) from error


class FolderSourceSet(FileSourceSet):
    """All images with labels below a folder: every folder with ``color/`` and ``label/`` (or an
    annotation of LabelMe, see `find_label`), in the order of their names.

    Args:
        path: the folder; scene folders, or folders of them.
        label_space: what the ids mean, after `map_labels`.
        map_labels: from the ids in ``label/`` to those of `label_space`, one of `LABEL_MAPS`; None = they are the same.
        with_depth: read ``depth/`` (16 bit, millimetres) as well, where there is one.

    Raises:
        SourceSetError: `path` is empty or no folder, or there is no image with a label in it.
    """

    def __init__(
        self,
        path: str | Path,
        label_space: LabelSpace = SUNRGBD37,
        *,
        map_labels: LabelMap | None = None,
        with_depth: bool = False,
    ) -> None:
        if not str(path).strip():  # Path("") would be the folder one happens to be in
            raise SourceSetError("source.path is empty: set it to a folder of labelled images")
        self.path = Path(path)
        if not self.path.is_dir():
            raise SourceSetError(f"source set {self.path} is no folder: set source.path to a folder of labelled images")
        files = [files for folder in _color_folders(self.path) for files in _labelled_files(folder)]
        if not files:
            raise SourceSetError(
                f"source set {self.path} is empty: it must hold folders with color/N.jpg and label/N.png of the same N"
            )
        name = self.path.resolve().name
        super().__init__(name, files, label_space, map_labels=map_labels, with_depth=with_depth)


def check_sizes(color: NDArray[np.uint8], images: Mapping[Path | None, NDArray[Any] | None], color_path: Path) -> None:
    """Refuse images that do not show the same pixels.

    Args:
        color: (H, W, 3).
        images: label and depth by their path; None = there is none.
        color_path: where `color` came from.

    Raises:
        SourceSetError: one of them is not (H, W).
    """
    for path, image in images.items():
        if image is not None and image.shape != color.shape[:2]:
            size = "{1}x{0}".format
            raise SourceSetError(
                f"{path} is {size(*image.shape)} but {color_path.name} is {size(*color.shape[:2])}: "
                "colour, label and depth must show the same pixels"
            )


def split(source: SourceSet, holdout: int) -> tuple[list[int], list[int]]:
    """Positions for training and for the hold-out, each in rising order.

    Drawn at random, but the same in every run whatever its seed: what a base model was measured on must stay unseen
    when it is adapted.

    Raises:
        SourceSetError: no image would be left for training.
    """
    if not 0 <= holdout < len(source):
        raise SourceSetError(
            f"source set {source.name} has {len(source)} images, of which {holdout} shall be held out: "
            "lower guard.holdout or add images"
        )
    order = np.random.default_rng(HOLDOUT_SEED).permutation(len(source))
    return sorted(order[holdout:].tolist()), sorted(order[:holdout].tolist())


@dataclass(frozen=True)
class SourceBatch:
    """Labelled images as tensors.

    Args:
        images: (B, 3, H, W) float32, RGB, 0..1.
        labels: (B, H, W) int64, 0 = unlabelled.
        depth: (B, 1, H, W) float32 metres, 0 = none.
    """

    images: Tensor
    labels: Tensor
    depth: Tensor

    def to(self, device: torch.device) -> "SourceBatch":
        """The same batch on a device."""
        return SourceBatch(self.images.to(device), self.labels.to(device), self.depth.to(device))

    def __len__(self) -> int:
        return len(self.images)


class SourceBatches:
    """Endless batches: every image once before any comes again, in an order that `rng` draws.

    Args:
        source: where the images come from.
        batch: images a batch.
        width, height: size to which all are resized, pixels.
        mirror: mirror half of the images, at random.
        rng: source of every random choice.
        cache_megabytes: memory for resized images; what does not fit is read again every time.
        indices: positions to use; None = all.
        part: those of each batch that are wanted here; the others are read by other processes.
    """

    def __init__(
        self,
        source: SourceSet,
        batch: int,
        width: int,
        height: int,
        mirror: bool,
        rng: np.random.Generator,
        *,
        cache_megabytes: int,
        indices: Sequence[int] | None = None,
        part: slice = slice(None),
    ) -> None:
        self._source = source
        self._batch = batch
        self._part = part
        self._width = width
        self._height = height
        self._mirror = mirror
        self._rng = rng
        self._indices = list(range(len(source)) if indices is None else indices)
        if not self._indices:
            raise SourceSetError(f"source set {source.name}: no image is left to train on: add images")
        self._cache: dict[int, LabelledImage] = {}
        self._cache_size = cache_megabytes * 1_000_000 // (BYTES_PER_PIXEL * width * height)
        self._queue: list[int] = []

    def __len__(self) -> int:
        """Number of different images."""
        return len(self._indices)

    def __iter__(self) -> "SourceBatches":
        return self

    def __next__(self) -> SourceBatch:
        return self.next()

    def next(self) -> SourceBatch:
        """The next batch; a depth of 0 everywhere for images that have none."""
        while len(self._queue) < self._batch:
            self._queue += self._rng.permutation(self._indices).tolist()
        indices, self._queue = self._queue[: self._batch], self._queue[self._batch :]
        mirrored = self._rng.random(self._batch) < 0.5 if self._mirror else np.zeros(self._batch, bool)
        return self._stack(indices[self._part], mirrored[self._part])

    def _stack(self, indices: Sequence[int], mirrored: NDArray[np.bool_]) -> SourceBatch:
        images = [self._image(index) for index in indices]
        color, label, depth = (
            np.stack([part[:, ::-1] if m else part for part, m in zip(parts, mirrored, strict=True)])
            for parts in zip(*((i.color, i.label, _depth_or_none(i)) for i in images), strict=True)
        )
        return SourceBatch(
            torch.from_numpy(color).permute(0, 3, 1, 2).float().div_(255.0),
            torch.from_numpy(label).long(),
            torch.from_numpy(depth).unsqueeze(1),
        )

    def _image(self, index: int) -> LabelledImage:
        image = self._cache.get(index)
        if image is None:
            image = self._source[index].resized(self._width, self._height)
            if len(self._cache) < self._cache_size:
                self._cache[index] = image
        return image


def _depth_or_none(image: LabelledImage) -> NDArray[np.float32]:
    return np.zeros(image.label.shape, np.float32) if image.depth is None else image.depth


def write_source_set(path: str | Path, images: Iterable[LabelledImage], *, quality: int = 90) -> int:
    """Write labelled images as one folder with ``color/`` (JPEG), ``label/`` (PNG) and, where known, ``depth/`` (PNG).

    Returns:
        Number of images written.

    Raises:
        SourceSetError: there is no image, or the folder is not empty.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SourceSetError(f"{path} exists already: give another folder or remove it")
    count = 0
    for count, image in enumerate(images, start=1):
        (path / "color").mkdir(parents=True, exist_ok=True)
        (path / "label").mkdir(exist_ok=True)
        write_color(path / "color" / f"{count - 1:06d}.jpg", image.color, quality)
        write_label(path / "label" / f"{count - 1:06d}.png", image.label)
        if image.depth is not None:
            (path / "depth").mkdir(exist_ok=True)
            write_depth(path / "depth" / f"{count - 1:06d}.png", image.depth)
    if not count:
        raise SourceSetError(f"{path}: there is no image to write")
    return count


def _color_folders(path: Path) -> list[Path]:
    return sorted(color.parent for color in path.rglob("color") if color.is_dir())


def _labelled_files(folder: Path) -> list[LabelledFiles]:
    found = []
    for color in sorted(path for path in (folder / "color").iterdir() if path.suffix.lower() in COLOR_SUFFIXES):
        label, depth = find_label(folder, color.stem), folder / "depth" / f"{color.stem}.png"
        if label:
            found.append(LabelledFiles(color, label, depth if depth.is_file() else None))
    return found
