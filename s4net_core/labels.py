"""Label spaces: ids, names, colours, and the mappings into the 37 classes of SUN RGB-D."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError

UNLABELLED = 0
"""Inside the library: a pixel without a class. It never counts in a loss or a metric."""
MASK_UNLABELLED = 255
"""In published masks (mono8): a pixel without a class."""
UNLABELLED_NAME = "unlabelled"
"""Name of a pixel without a class, where classes are written by name."""
NAMES_SHOWN = 8
"""Classes that an error message lists."""
_NO_CLASS = {
    *(UNLABELLED_NAME, "unlabeled", "unknown", "ignore", "background", "void", "none"),
    *("other", "otherstructure", "otherfurniture", "otherprop", "other structure", "other furniture", "other prop"),
}

LabelMap = Callable[[NDArray[np.unsignedinteger[Any]]], NDArray[np.uint8]]
"""(H, W) uint8 or uint16 ids of one label space -> (H, W) uint8 ids of another, 0 = unlabelled."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes with ids 1..N in the order of `names`; id 0 is unlabelled.

    Args:
        name: key under which checkpoints and settings refer to it.
        names: class names, id 1 first.
        colors: (R, G, B) 0..255 of each class, id 1 first.
        synonyms: other names that people give to a class, in the form that `plain_name` gives, and the class's name.
        no_class: ids that a network predicts and learns, but that mean "none of the others". Such pixels are published
            as unlabelled and count in no score.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    synonyms: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    no_class: frozenset[int] = frozenset()

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

    @property
    def shown_ids(self) -> list[int]:
        """Ids that occur in published labels: all but those that mean no class."""
        return [id for id in range(1, self.num_classes + 1) if id not in self.no_class]

    def __str__(self) -> str:
        shown = ", ".join(self.names[:NAMES_SHOWN]) + (", ..." if self.num_classes > NAMES_SHOWN else "")
        return f"'{self.name}' ({self.num_classes} classes: {shown})"

    def id_of(self, name: str) -> int | None:
        """Id of a class by a name as people write it; 0 for a name that means no class, None for an unknown one.

        Upper case, hyphens and underscores, a plural s and a number behind the name (``chair-2``) make no difference.
        """
        ids = {plain_name(own): id for id, own in enumerate(self.names, start=1)}
        ids = {other: ids[plain_name(own)] for other, own in self.synonyms.items()} | ids
        plain = plain_name(name)
        unnumbered = re.sub(r" ?\d+$", "", plain)
        for candidate in (plain, unnumbered):
            if candidate in ids:
                return ids[candidate]
        if unnumbered in _NO_CLASS:
            return UNLABELLED
        singular = {known.removesuffix("s"): id for known, id in ids.items()}
        return singular.get(unnumbered.removesuffix("s"))

    def table_to(self, other: "LabelSpace") -> NDArray[np.uint8]:
        """Id in another space by id in this one, (256,) uint8; 0, 255 and what means no class there lead to 0.

        A class has a counterpart if the other space knows its name or one of its synonyms.

        Raises:
            S4NetError: a class has no counterpart; the message names both spaces.
        """
        table = np.zeros(256, np.uint8)
        if self.names == other.names:
            table[1 : self.num_classes + 1] = range(1, self.num_classes + 1)
            return table
        missing = []
        for id, name in enumerate(self.names, start=1):
            called = (name, *(synonym for synonym, own in self.synonyms.items() if own == name))
            found = next((there for known in called if (there := other.id_of(known)) is not None), None)
            if found is None and id not in self.no_class:
                missing.append(name)
            table[id] = found or UNLABELLED
        if missing:
            raise S4NetError(
                f"labels of {self} cannot be used with classes {other}, which have no counterpart of "
                f"{', '.join(missing)}: use data and weights of the same classes, or name these classes as synonyms "
                "when you train, e.g. of a class with no_class: true"
            )
        return table

    def without_no_class(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same (H, W) uint8 ids with 0 for those that mean no class."""
        return np.where(np.isin(label, list(self.no_class)), np.uint8(UNLABELLED), label) if self.no_class else label

    def colorize(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 ids -> (H, W, 3) uint8 RGB."""
        return self.palette[label]

    def overlay(self, color: NDArray[np.uint8], label: NDArray[np.uint8], alpha: float) -> NDArray[np.uint8]:
        """The image with its labels painted over it; unlabelled pixels stay as they are.

        Args:
            color: (H, W, 3) uint8 RGB.
            label: (H, W) uint8, 0 = unlabelled.
            alpha: opacity of the labels, 0..1.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        weight = np.uint16(round(alpha * 256))
        mixed = (color.astype(np.uint16) * (256 - weight) + self.colorize(label) * weight + 128) >> 8
        return np.where((label == UNLABELLED)[..., None], color, mixed.astype(np.uint8))

    def check(self, label: NDArray[np.uint8], where: str) -> None:
        """Refuse ids outside the space; 0 and 255 both pass as unlabelled.

        Raises:
            S4NetError: naming `where`, the ids and the remedy.
        """
        foreign = np.setdiff1d(np.unique(label), (*range(self.num_classes + 1), MASK_UNLABELLED))
        if foreign.size:
            remedy = "put a file classes.yaml beside the labels if they have other classes, or correct them"
            if self.name in LABEL_SPACES:
                remedy = (
                    "map them first, s4net convert --labels does so for "
                    f"{', '.join(LABEL_MAPS)} and by the tables of ScanNet and NYU Depth v2"
                )
            raise S4NetError(
                f"{where} has class ids {foreign.tolist()} but {self.name} has 1..{self.num_classes} (0 and 255 = "
                f"unlabelled): {remedy}"
            )


def means_no_class(name: str) -> bool:
    """Whether a name as people write it means no class, e.g. background, void or other."""
    return plain_name(name) in _NO_CLASS


def plain_name(name: str) -> str:
    """A class's name as names are compared: lower case, with single spaces instead of hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", name.lower()).strip()


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

# Names that ScanNet's annotators used. Ambiguous names (shelf of books, monitor) are left out.
_SUNRGBD37_SYNONYMS = {
    "cabinet": ("kitchen cabinet", "file cabinet", "filing cabinet", "bathroom cabinet", "cupboard"),
    "bed": ("mattress", "sofa bed"),
    "chair": ("armchair", "office chair", "folded chair", "rocking chair", "sofa chair"),
    "sofa": ("couch",),
    "table": ("coffee table", "dining table", "end table", "side table", "round table"),
    "door": ("closet door", "shower door", "sliding door", "doorframe", "door frame"),
    "bookshelf": ("bookshelves", "bookcase"),
    "picture": ("painting", "poster"),
    "counter": ("kitchen counter", "bathroom counter", "countertop"),
    "shelves": ("shelf", "closet shelf"),
    "pillow": ("cushion",),
    "floor_mat": ("mat", "doormat", "bath mat", "yoga mat"),
    "clothes": ("clothing", "cloth"),
    "fridge": ("refrigerator", "refridgerator", "mini fridge"),
    "tv": ("television", "television set"),
    "towel": ("hand towel",),
    "box": ("boxes", "storage box", "cardboard box"),
    "whiteboard": ("white board",),
    "person": ("people", "human"),
    "night_stand": ("nightstand", "bedside table"),
    "lamp": ("desk lamp", "table lamp", "ceiling lamp", "floor lamp"),
    "bathtub": ("bath tub",),
    "bag": ("trash bag", "shopping bag"),
}

SUNRGBD37 = LabelSpace(
    name="sunrgbd37",
    names=tuple(name for name, _ in _SUNRGBD37),
    colors=tuple(color for _, color in _SUNRGBD37),
    synonyms={other: name for name, others in _SUNRGBD37_SYNONYMS.items() for other in others},
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


_ADE20K = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, "
    "toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, "
    "bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
    "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, "
    "buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, "
    "barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, "
    "pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, "
    "ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
)
ADE20K_NAMES: tuple[str, ...] = tuple(_ADE20K.split(", "))
"""The 150 classes of ADE20K's scene parsing benchmark, in the order of a network's outputs."""

# Things that NYU40 and ScanNet file under "other..." (a wardrobe, a stool, a light, a monitor) have no class here.
# A rug is the exception: ADE20K has no other word for a mat.
_ADE20K_RENAMED = {
    "windowpane": "window",
    "painting": "picture",
    "poster": "picture",
    "shelf": "shelves",
    "rug": "floor_mat",
    "armchair": "chair",
    "swivel chair": "chair",
    "cushion": "pillow",
    "chest of drawers": "dresser",
    "refrigerator": "fridge",
    "screen door": "door",
    "bookcase": "bookshelf",
    "blind": "blinds",
    "coffee table": "table",
    "book": "books",
    "countertop": "counter",
    "television receiver": "tv",
    "apparel": "clothes",
}

ADE20K_TO_SUNRGBD37: tuple[int, ...] = tuple(
    {name: id for id, name in enumerate(SUNRGBD37.names, start=1)}.get(_ADE20K_RENAMED.get(name, name), UNLABELLED)
    for name in ADE20K_NAMES
)
"""SUN RGB-D id of each of `ADE20K_NAMES`, 0 = no counterpart."""


LABEL_MAPS: dict[str, LabelMap] = {
    "nyu40": nyu40_to_sunrgbd37,
    "ade20k": table_map(np.array([UNLABELLED, *ADE20K_TO_SUNRGBD37], np.uint8)),  # ids in its files start at 1
}
"""From the ids of other data sets to SUN RGB-D 37, by the data set's name."""
