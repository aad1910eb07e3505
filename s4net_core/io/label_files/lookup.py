"""Labels of images in a folder: a PNG of class ids in ``label/``, or an annotation of LabelMe, by the image's name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.io.images.files import read_label
from s4net_core.io.label_files.labelme import read_labelme
from s4net_core.labels import SUNRGBD37, LabelMap, LabelSpace

LABELME_FOLDER = "labelme"
"""Where annotations are written."""
LABEL_FOLDERS = {LABELME_FOLDER: ".json", "annotations": ".json", "color": ".json", "label": ".png"}
"""Where labels are looked for, beside ``color/``, and their suffix. Annotations drawn by hand win over ``label/``."""


@dataclass(frozen=True)
class LabelReading:
    """How the labels of a capture are read.

    Args:
        space: what the ids in the files mean, after `map_labels`.
        map_labels: maps the ids in images to those of `space`; None = as the capture's format defines them.
        table: (256,) uint8 id that is given out by id of `space`, see `LabelSpace.table_to`; None = the same id.
    """

    space: LabelSpace = SUNRGBD37
    map_labels: LabelMap | None = None
    table: NDArray[np.uint8] | None = None

    def given_out(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 ids of `space` -> the ids that are given out."""
        return label if self.table is None else self.table[label]


AS_THEY_ARE = LabelReading()
"""Ids of SUN RGB-D 37."""


def find_label(folder: Path, stem: str) -> Path | None:
    """The label of ``color/STEM`` in a folder, if there is one."""
    paths = (folder / name / f"{stem}{suffix}" for name, suffix in LABEL_FOLDERS.items())
    return next((path for path in paths if path.is_file()), None)


def read_label_file(
    path: Path, space: LabelSpace, map_labels: LabelMap | None = None, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Class ids of one image, (H, W) uint8, 0 = unlabelled.

    Args:
        path: found by `find_label`.
        space: what the ids mean, after `map_labels`.
        map_labels: for a PNG, as in `read_label`; not used for an annotation, which holds names.
        size: (H, W) to which an annotation is scaled, as in `read_labelme`.

    Raises:
        BadFrame: it cannot be read.
        S4NetError: it has classes outside the label space.
    """
    if path.suffix == ".json":
        return read_labelme(path, space, size)
    return read_label(path, space, map_labels)
