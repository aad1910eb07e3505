"""NYU Depth v2: the labelled images of ``nyu_depth_v2_labeled.mat``."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, SourceSetError
from s4net_core.io.label_files.tables import NYU_TABLE, nyu_label_map
from s4net_core.io.matlab import Mat73, is_mat73, load_mat
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37, LabelMap

FILE = "nyu_depth_v2_labeled.mat"
SPLIT_FILE = "splits.mat"


def is_nyu_depth(path: Path) -> bool:
    """Whether `path` is the file, or a folder with it."""
    return (path / FILE).is_file() or is_mat73(path)


class NyuDepth:
    """1449 images with depth and labels, read one by one; the 894 classes are mapped to NYU40 and then to SUN RGB-D 37.

    Args:
        path: the file, or the folder with it.
        split: 795 images to train on, 654 to test on (both need ``splits.mat`` beside the file), or all.
        map_labels: maps the 894 ids to SUN RGB-D 37; None = read from ``classMapping40.mat`` beside the file.
        with_depth: give depth as well; its holes are filled, as in the file's ``depths``.

    Raises:
        SourceSetError: a file is missing or truncated, or h5py is not installed.
        LabelTableError: the table of classes is missing or another file.
    """

    label_space = SUNRGBD37

    def __init__(
        self, path: str | Path, *, split: str = "train", map_labels: LabelMap | None = None, with_depth: bool = False
    ) -> None:
        path = Path(path)
        self.path = path / FILE if path.is_dir() else path
        self.name = self.path.stem
        self._with_depth = with_depth
        self._file = Mat73(self.path, SourceSetError)
        missing = [name for name in ("images", "depths", "labels") if not self._file.has_array(name)]
        if missing:
            raise SourceSetError(f"{self.path} has no variable '{missing[0]}': it is not {FILE}, or is cut off")
        self._map_labels = map_labels or nyu_label_map(self.path.with_name(NYU_TABLE))
        self._positions = _positions(self.path.with_name(SPLIT_FILE), split, len(self._file["images"]))

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: it cannot be read.
        """
        depth = self._read("depths", index).astype(np.float32) if self._with_depth else None
        return LabelledImage(self._read("images", index, color=True), self.label(index), depth)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image alone, (H, W) uint8, 0 = unlabelled.

        Raises:
            SourceSetError: it cannot be read, or an id is outside the label space.
        """
        label = self._map_labels(self._read("labels", index).astype(np.uint16))
        try:
            SUNRGBD37.check(label, f"{self.path.name}, image {self._positions[index] + 1}")
        except S4NetError as error:
            raise SourceSetError(str(error)) from error
        return label

    def _read(self, name: str, index: int, *, color: bool = False) -> NDArray[Any]:
        position = self._positions[index]
        return self._file.image(f"{self.path}, image {position + 1}", name, position, color=color)


def _positions(path: Path, split: str, count: int) -> list[int]:
    """Positions of the images in one part of the official split."""
    if split == "all":
        return list(range(count))
    if not path.is_file():
        raise SourceSetError(
            f"{path} is missing; it lists the images to train on and to test on: put NYU Depth v2's {SPLIT_FILE} there"
        )
    name = f"{split}Ndxs"
    (indices,) = load_mat(path, [name], SourceSetError)
    try:
        positions = [int(index) - 1 for index in np.atleast_1d(indices)]  # MATLAB counts from 1
    except (TypeError, ValueError) as error:
        raise SourceSetError(
            f"{path}: {name} holds no numbers ({error}): is it NYU Depth v2's {SPLIT_FILE}?"
        ) from error
    if not positions or min(positions) < 0 or max(positions) >= count:
        raise SourceSetError(f"{path}: {name} has images outside of the {count} in the file: it is of another data set")
    return positions
