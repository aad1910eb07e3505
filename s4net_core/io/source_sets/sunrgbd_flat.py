"""SUN RGB-D as repositories share it: numbered images and PNG labels, one folder per part of the split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s4net_core.errors import SourceSetError
from s4net_core.files import read_text
from s4net_core.io.images.files import COLOR_SUFFIXES
from s4net_core.io.source_sets import SPLITS
from s4net_core.io.source_sets.files import FileSourceSet, LabelledFiles
from s4net_core.io.source_sets.sunrgbd import read_sunrgbd_depth
from s4net_core.labels import LabelMap

TRAIN_IMAGES, TEST_IMAGES = 5285, 5050
"""Images of each part. Where one numbering runs through both, test images come first: 1..5050, then 5051..10335."""

# {} is the part. The names are those in sunrgbd-meta-data's archives and in repositories made from them.
_COLOR = ("image/{}", "images/{}", "rgb/{}", "SUNRGBD-{}_images", "{}_images", "{}")
_LABEL = ("label37/{}", "labels37/{}", "semantic37/{}", "{}37labels", "label/{}", "labels/{}", "annotations/{}")
_LABEL_OF_BOTH = ("sunrgbd_train_test_labels", "train_test_labels")
_DEPTH = ("depth/{}", "depths/{}", "sunrgbd_{}_depth", "sunrgb_{}_depth", "{}_depth")
_LABEL_13 = ("label13/{}", "labels13/{}", "semantic13/{}", "{}13labels")
_LISTED_LABEL, _LISTED_DEPTH = ("labels", "Labels", "label", "Label"), ("Depth", "depth")


@dataclass(frozen=True)
class _Part:
    """Folders of one part of the split; `both` = the label folder holds the labels of both parts."""

    color: Path
    label: Path
    depth: Path | None
    both: bool


def is_flat_sunrgbd(path: Path, *splits: str) -> bool:
    """Whether images and labels of one of the parts lie in folders of known names, or ``train.txt`` lists them.

    Args:
        path: a folder.
        splits: the parts; none = any.
    """
    return any(
        _part(path, split) or _list(path, split) or _folder(path, _LABEL_13, split) for split in splits or SPLITS
    )


class FlatSunRgbd(FileSourceSet):
    """Numbered images with PNG labels, e.g. ``image/train/img-000001.jpg`` and ``label37/train/img-000001.png``.

    Colour, label and depth are matched by number, whether numbers run within one part of the split or through both.
    Where ``train.txt`` and ``test.txt`` list ``RGB/NAME.jpg``, they are matched by name.

    Args:
        path: the folder that holds all of these.
        split: part to train on, to test on, or all (train, then test).
        map_labels: maps the ids in the files to SUN RGB-D 37; None = they are SUN RGB-D 37 already.
        with_depth: read depth as well, where there is some: PNGs of the release's ``depth_bfx``.

    Raises:
        SourceSetError: the part is missing, or its images and labels do not belong together.
    """

    def __init__(
        self, path: str | Path, *, split: str = "train", map_labels: LabelMap | None = None, with_depth: bool = False
    ) -> None:
        self.path = Path(path)
        files = [files for part in (SPLITS if split == "all" else (split,)) for files in _files(self.path, part)]
        name = self.path.resolve().name
        super().__init__(name, files, map_labels=map_labels, with_depth=with_depth, read_depth=read_sunrgbd_depth)


def _files(path: Path, split: str) -> list[LabelledFiles]:
    part, listed = _part(path, split), _list(path, split)
    if part is not None:
        files = _numbered_files(part, split)
    elif listed is not None:
        files = _listed_files(path, listed)
    elif _folder(path, _LABEL_13, split) is not None:
        raise SourceSetError(
            f"SUN RGB-D at {path} has labels of 13 classes only: fetch those of 37, sunrgbd_train_test_labels.tar.gz"
        )
    else:
        raise SourceSetError(f"SUN RGB-D at {path} lacks image/{split}/ with label37/{split}/: add or rename folders")
    if not files:
        raise SourceSetError(f"SUN RGB-D at {path} has no image to {split} on: unpack its archives again")
    return files


def _folder(path: Path, patterns: Sequence[str], split: str) -> Path | None:
    return next((path / p.format(split) for p in patterns if (path / p.format(split)).is_dir()), None)


def _part(path: Path, split: str) -> _Part | None:
    color, label, both = (_folder(path, patterns, split) for patterns in (_COLOR, _LABEL, _LABEL_OF_BOTH))
    label = label or both
    if color is None or label is None:
        return None
    return _Part(color, label, _folder(path, _DEPTH, split), label is both)


def _numbered_files(part: _Part, split: str) -> list[LabelledFiles]:
    colors = _numbered(part.color, COLOR_SUFFIXES)
    if split == "train" and max(colors, default=0) > TRAIN_IMAGES:
        colors = {number - TEST_IMAGES: path for number, path in colors.items()}
    labels = _matching(colors, part.label, split, both=part.both)
    depths = _matching(colors, part.depth, split) if part.depth else {}
    return [LabelledFiles(colors[number], labels[number], depths.get(number)) for number in sorted(colors)]


def _numbered(folder: Path, suffixes: Sequence[str]) -> dict[int, Path]:
    """Images of a folder by the last number in their name, e.g. ``img37labels-000005.png`` by 5."""
    numbers = {path: re.findall(r"\d+", path.stem) for path in folder.iterdir() if path.suffix.lower() in suffixes}
    return {int(found[-1]): path for path, found in numbers.items() if found}


def _matching(colors: Mapping[int, Path], folder: Path, split: str, *, both: bool = False) -> Mapping[int, Path]:
    """Labels or depth by the number of their image within the part.

    Raises:
        SourceSetError: an image has none.
    """
    found = _numbered(folder, (".png",))
    offsets = (0,) if split == "test" else (TEST_IMAGES,) if both else (0, TEST_IMAGES)
    for offset in offsets:
        files = {number - offset: path for number, path in found.items()}
        if colors.keys() <= files.keys():
            return files
    missing = sorted(colors.keys() - {number - offsets[0] for number in found})
    raise SourceSetError(
        f"{folder} has no file for {len(missing)} of {len(colors)} images to {split} on, first {colors[missing[0]]}: "
        f"number the files like the images, or through both parts (training from {TEST_IMAGES + 1} on)"
    )


def _list(path: Path, split: str) -> Path | None:
    listed = path / f"{split}.txt"
    return listed if listed.is_file() and (path / "RGB").is_dir() else None


def _listed_files(path: Path, listed: Path) -> list[LabelledFiles]:
    label, depth = _folder(path, _LISTED_LABEL, ""), _folder(path, _LISTED_DEPTH, "")
    if label is None:
        raise SourceSetError(f"SUN RGB-D at {path} has {listed.name} and RGB/ but no {' or '.join(_LISTED_LABEL)}/")
    try:
        names = [Path(line.split()[0]).name for line in read_text(listed).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SourceSetError(f"{listed} is no list of images ({error}): fetch it again, or remove it") from error
    files = [
        LabelledFiles(
            path / "RGB" / name, (label / name).with_suffix(".png"), depth and (depth / name).with_suffix(".png")
        )
        for name in names
    ]
    missing = [file for entry in files for file in (entry.color, entry.label) if not file.is_file()]
    if missing:
        raise SourceSetError(f"{listed} names {len(missing)} files that are not there, first {missing[0]}")
    return files
