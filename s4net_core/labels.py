"""Label spaces: ids, names, colours, and the mappings into the 37 classes of SUN RGB-D."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError

UNLABELLED = 0
"""Inside the library: a pixel without a class. It never counts in a loss or a metric."""
MASK_UNLABELLED = 255
"""In published masks (mono8): a pixel without a class."""


LabelMap = Callable[[NDArray[np.unsignedinteger[Any]]], NDArray[np.uint8]]
"""(H, W) uint8 or uint16 ids of one label space -> (H, W) uint8 ids of another, 0 = unlabelled."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes with ids 1..N in the order of `names`; id 0 is unlabelled.

    Args:
        name: key under which checkpoints and settings refer to it.
        names: class names, id 1 first.
        colors: (R, G, B) 0..255 a class, id 1 first.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    @property
    def num_classes(self) -> int:
        """N; ids run from 1 to N."""
        return len(self.names)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 RGB by pixel value; 0, 255 and ids outside the space are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[1 : self.num_classes + 1] = self.colors
        return palette

    def colorize(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 ids -> (H, W, 3) uint8 RGB."""
        return self.palette[label]

    def check(self, label: NDArray[np.uint8], where: str) -> None:
        """Refuse ids outside the space; 0 and 255 both pass as unlabelled.

        Raises:
            S4NetError: naming `where`, the ids and the remedy.
        """
        foreign = np.setdiff1d(np.unique(label), (*range(self.num_classes + 1), MASK_UNLABELLED))
        if foreign.size:
            raise S4NetError(
                f"{where} has class ids {foreign.tolist()} but {self.name} has 1..{self.num_classes} (0 and 255 = "
                "unlabelled): map them first, s4net convert --labels does so for "
                f"{', '.join(LABEL_MAPS)}"
            )


def from_mask(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 with 0 or 255 = unlabelled -> the library's form, 0 = unlabelled."""
    return np.where(mask == MASK_UNLABELLED, np.uint8(UNLABELLED), mask)


def to_mask(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 with 0 = unlabelled -> the published form, 255 = unlabelled."""
    return np.where(label == UNLABELLED, np.uint8(MASK_UNLABELLED), label)


# Names and order: SUN RGB-D toolbox. Colours: the NYU40 palette of the ScanNet tools, so that pictures look familiar.
_SUNRGBD37: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("wall", (174, 199, 232)),
    ("floor", (152, 223, 138)),
    ("cabinet", (31, 119, 180)),
    ("bed", (255, 187, 120)),
    ("chair", (188, 189, 34)),
    ("sofa", (140, 86, 75)),
    ("table", (255, 152, 150)),
    ("door", (214, 39, 40)),
    ("window", (197, 176, 213)),
    ("bookshelf", (148, 103, 189)),
    ("picture", (196, 156, 148)),
    ("counter", (23, 190, 207)),
    ("blinds", (178, 76, 76)),
    ("desk", (247, 182, 210)),
    ("shelves", (66, 188, 102)),
    ("curtain", (219, 219, 141)),
    ("dresser", (140, 57, 197)),
    ("pillow", (202, 185, 52)),
    ("mirror", (51, 176, 203)),
    ("floor_mat", (200, 54, 131)),
    ("clothes", (92, 193, 61)),
    ("ceiling", (78, 71, 183)),
    ("books", (172, 114, 82)),
    ("fridge", (255, 127, 14)),
    ("tv", (91, 163, 138)),
    ("paper", (153, 98, 156)),
    ("towel", (140, 153, 101)),
    ("shower_curtain", (158, 218, 229)),
    ("box", (100, 125, 154)),
    ("whiteboard", (178, 127, 135)),
    ("person", (120, 185, 128)),
    ("night_stand", (146, 111, 194)),
    ("toilet", (44, 160, 44)),
    ("sink", (112, 128, 144)),
    ("lamp", (96, 207, 209)),
    ("bathtub", (227, 119, 194)),
    ("bag", (213, 92, 176)),
)

SUNRGBD37 = LabelSpace(
    name="sunrgbd37",
    names=tuple(name for name, _ in _SUNRGBD37),
    colors=tuple(color for _, color in _SUNRGBD37),
)

LABEL_SPACES = {space.name: space for space in (SUNRGBD37,)}
"""Every label space by its name."""


def nyu40_to_sunrgbd37(label: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint8]:
    """(H, W) NYU40 ids -> SUN RGB-D 37, uint8. Ids 1..37 are the same classes in the same order.

    NYU40's otherstructure, otherfurniture and otherprop (38..40) have no counterpart and become unlabelled, as does
    every id that NYU40 does not have.
    """
    return np.where(label <= SUNRGBD37.num_classes, label, UNLABELLED).astype(np.uint8)


def table_map(table: NDArray[np.uint8]) -> LabelMap:
    """Map that looks every id up in a table.

    Args:
        table: (N,) uint8 new id by old id; ids from N on become unlabelled.
    """
    whole = np.zeros(np.iinfo(np.uint16).max + 1, np.uint8)
    whole[: len(table)] = table
    return whole.__getitem__


LABEL_MAPS: dict[str, LabelMap] = {"nyu40": nyu40_to_sunrgbd37}
"""From the ids of other data sets to SUN RGB-D 37, by the data set's name."""
