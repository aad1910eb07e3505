"""Source sets with one file per image, and a writer for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.classes import write_classes
from s4net_core.errors import S4NetError, SourceSetError
from s4net_core.files import files_below
from s4net_core.io.images.files import (
    COLOR_SUFFIXES,
    read_color,
    read_depth,
    write_color,
    write_depth,
    write_label,
)
from s4net_core.io.label_files.lookup import find_label, read_label_file
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37, LabelMap, LabelSpace


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
    """Labelled images, each with its own files.

    Args:
        name: short name for reports.
        files: one entry per image.
        label_space: what the ids mean, after `map_labels`.
        map_labels: maps the ids in the files to those of `label_space`; None = they are the same.
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
        self.name = name
        self._files = files
        self.label_space = label_space
        self._map_labels = map_labels
        self._with_depth = with_depth
        self._read_depth = read_depth

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: it cannot be read, colour, label and depth differ in size, or an id is outside the label
                space.
        """
        files = self._files[index]
        try:
            color = read_color(files.color)
            label = read_label_file(files.label, self.label_space, self._map_labels, color.shape[:2])
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
            return read_label_file(self._files[index].label, self.label_space, self._map_labels)
        except S4NetError as error:
            raise SourceSetError(str(error)) from error


class FolderSourceSet(FileSourceSet):
    """All labelled images below a folder, in the order of their paths.

    A folder with ``color/`` holds the labels beside it, in ``label/`` or as LabelMe annotations, see `find_label`.

    Args:
        path: a scene folder, or a folder that holds scene folders.
        label_space: what the ids mean, after `map_labels`.
        map_labels: maps the ids in ``label/`` to those of `label_space`, see `label_map`; None = they are the same.
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
    """Check that label and depth have the size of colour.

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


def write_source_set(
    path: str | Path, images: Iterable[LabelledImage], *, quality: int = 90, label_space: LabelSpace = SUNRGBD37
) -> int:
    """Write labelled images as one folder with ``color/`` (JPEG), ``label/`` (PNG) and, where known, ``depth/`` (PNG).

    Classes that are not built in are named in ``classes.yaml``.

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
    write_classes(path, label_space)
    return count


def _color_folders(path: Path) -> list[Path]:
    return sorted({file.parent.parent for file in files_below(path) if file.parent.name == "color"})


def _labelled_files(folder: Path) -> list[LabelledFiles]:
    found = []
    for color in sorted(path for path in (folder / "color").iterdir() if path.suffix.lower() in COLOR_SUFFIXES):
        label, depth = find_label(folder, color.stem), folder / "depth" / f"{color.stem}.png"
        if label:
            found.append(LabelledFiles(color, label, depth if depth.is_file() else None))
    return found
