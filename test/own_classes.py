"""Five classes of a user's own, and the tests' room labelled with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scenes import BED, BOX, CABINET, FLOOR, make_room_frames, make_source_images

from s4net_core.classes import read_classes
from s4net_core.frames import Frame
from s4net_core.io.source_sets.source_set import LabelledImage

TEXT = """\
- {name: floor, color: [10, 20, 30]}
- {name: pallet, color: [200, 120, 40], synonyms: [skid, Euro-pallet]}
- rack
- person
- {name: rest, no_class: true, synonyms: [wall, ceiling, table, picture]}
"""
NAMES = ("floor", "pallet", "rack", "person", "rest")
REST = 5


def write_five(folder: Path, name: str = "warehouse.yaml") -> Path:
    """Write the file of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(TEXT)
    return folder / name


def as_five(label: np.ndarray) -> np.ndarray:
    """Ids of the tests' room -> those of the five classes."""
    table = np.full(256, REST, np.uint8)
    table[[0, FLOOR, BOX, CABINET, BED]] = range(5)
    return table[label]


def five_frames(n: int, seed: int = 0) -> list[Frame]:
    """Frames of a room with labels of the five classes."""
    return [replace(frame, label=as_five(frame.label)) for frame in make_room_frames(n, seed=seed)]


def five_images(n: int) -> list[LabelledImage]:
    """Images of other rooms with labels of the five classes."""
    return [replace(image, label=as_five(image.label)) for image in make_source_images(n)]


def five_classes(folder: Path):
    """The label space, read from its file."""
    return read_classes(write_five(folder))
