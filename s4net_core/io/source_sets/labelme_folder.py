"""Labelled source set of LabelMe annotations in LabelMe's own layout: one JSON per image, which names or embeds it."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, SourceSetError
from s4net_core.files import files_below
from s4net_core.io.label_files.labelme import is_labelme, read_labelme, read_labelme_color
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37, LabelSpace

FILES_LOOKED_AT = 50
"""JSON files that are tried to tell the format; other data sets have thousands of JSON files."""


class LabelMeSourceSet:
    """All annotations below a folder, in the order of their paths; they have no depth.

    Args:
        path: the folder.
        label_space: gives the ids of the shapes' names.

    Raises:
        SourceSetError: there is no annotation.
    """

    def __init__(self, path: str | Path, label_space: LabelSpace = SUNRGBD37) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.label_space = label_space
        self._files = sorted(filter(is_labelme, _json_files(self.path)))
        if not self._files:
            raise SourceSetError(f"source set {self.path} has no annotation of LabelMe: it must hold NAME.json files")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: image or annotation cannot be read, the two do not fit, or a class is unknown.
        """
        try:
            color = read_labelme_color(self._files[index])
            return LabelledImage(color, read_labelme(self._files[index], self.label_space, _size(color)))
        except S4NetError as error:
            raise SourceSetError(str(error)) from error

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image, (H, W) uint8, 0 = unlabelled, at the size at which it was annotated.

        Raises:
            SourceSetError: it cannot be read, or a class is unknown.
        """
        try:
            return read_labelme(self._files[index], self.label_space)
        except S4NetError as error:
            raise SourceSetError(str(error)) from error


def is_labelme_folder(path: Path) -> bool:
    """Whether a folder holds LabelMe annotations and no ``color/``, which would make it a set of scene folders."""
    some = islice(_json_files(path), FILES_LOOKED_AT)
    return any(map(is_labelme, some)) and not any(file.parent.name == "color" for file in files_below(path))


def _json_files(path: Path) -> Iterator[Path]:
    return (file for file in files_below(path) if file.suffix == ".json")


def _size(color: NDArray[np.uint8]) -> tuple[int, int]:
    return color.shape[0], color.shape[1]
