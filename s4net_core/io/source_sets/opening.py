"""Opens a labelled source set of any supported format."""

from pathlib import Path

from s4net_core.classes import classes_beside
from s4net_core.errors import SourceSetError
from s4net_core.io.source_sets import SPLITS, Split
from s4net_core.io.source_sets.files import FolderSourceSet
from s4net_core.io.source_sets.labelme_folder import LabelMeSourceSet, is_labelme_folder
from s4net_core.io.source_sets.nyu_depth import NyuDepth, is_nyu_depth
from s4net_core.io.source_sets.packed import PackedSourceSet, is_pack, read_pack_info
from s4net_core.io.source_sets.source_set import SourceSet, in_label_space
from s4net_core.io.source_sets.sunrgbd import SunRgbd, is_sunrgbd
from s4net_core.io.source_sets.sunrgbd_flat import FlatSunRgbd, is_flat_sunrgbd
from s4net_core.labels import SUNRGBD37, LabelMap, LabelSpace


def open_source_set(
    path: str | Path,
    *,
    split: Split = "train",
    with_depth: bool = False,
    map_labels: LabelMap | None = None,
    label_space: LabelSpace | None = None,
) -> SourceSet:
    """The labelled images at `path`; the files tell the format.

    Args:
        path: SUN RGB-D (the official release, or its flattened form), NYU Depth v2, annotations of LabelMe, folders
            with ``color/`` and ``label/``, or the file that `write_pack` made of any of them.
        split: official part, where the format has one.
        with_depth: read depth as well, where there is some.
        map_labels: maps the ids in the files to SUN RGB-D 37, see `label_map`; None = no map is needed.
        label_space: classes to which all labels lead, by name and synonym. Ids in folders without ``classes.yaml`` are
            taken for its ids. None = the set's own classes, and SUN RGB-D 37 where it does not say.

    Raises:
        SourceSetError: nothing is there, it is in none of the formats, or one of its classes is not in `label_space`.
        LabelTableError: the format needs a table of labels that is missing.
        SettingsError: ``classes.yaml`` is refused.
    """
    source = _open(path, split, with_depth, map_labels, label_space)
    return source if label_space is None else in_label_space(source, label_space)


def _open(
    path: str | Path, split: Split, with_depth: bool, map_labels: LabelMap | None, label_space: LabelSpace | None
) -> SourceSet:
    """The set with its own classes; where it does not name them they are those of `label_space`."""
    if not str(path).strip():  # Path("") would be the current folder
        return FolderSourceSet(path)
    if is_nyu_depth(Path(path)):
        return NyuDepth(path, split=split, map_labels=map_labels, with_depth=with_depth)
    for recognises, reader in ((is_sunrgbd, SunRgbd), (is_pack, PackedSourceSet)):
        if recognises(Path(path)):
            if map_labels is not None:
                raise SourceSetError(f"{path} names its classes already: leave --labels out")
            return reader(path, split=split, with_depth=with_depth)
    if is_flat_sunrgbd(Path(path)):
        return FlatSunRgbd(path, split=split, map_labels=map_labels, with_depth=with_depth)
    own = SUNRGBD37 if map_labels else classes_beside(Path(path)) or label_space or SUNRGBD37
    if is_labelme_folder(Path(path)):
        return LabelMeSourceSet(path, own)
    return FolderSourceSet(path, own, map_labels=map_labels, with_depth=with_depth)


def open_test_set(
    path: str | Path, *, map_labels: LabelMap | None = None, label_space: LabelSpace | None = None
) -> SourceSet | None:
    """The official test images of the source set at `path`; None = it has none, and some images must be held out.

    Raises:
        SourceSetError, LabelTableError: as `open_source_set`.
    """
    if not has_official_split(path):
        return None
    return open_source_set(path, split="test", map_labels=map_labels, label_space=label_space)


def has_official_split(path: str | Path) -> bool:
    """Whether "train" and "test" are different images of the source set at `path`.

    Raises:
        SourceSetError: the set is packed and cannot be read.
    """
    return official_parts(path) == SPLITS


def official_parts(path: str | Path) -> tuple[Split, ...]:
    """Parts of the official split that are at `path`; none where the set has no such split.

    Raises:
        SourceSetError: the set is packed and cannot be read.
    """
    if not str(path).strip():
        return ()
    if is_pack(Path(path)):
        packed = read_pack_info(path).parts
        return tuple(split for split in SPLITS if split in packed)
    if is_nyu_depth(Path(path)) or is_sunrgbd(Path(path)):
        return SPLITS
    return tuple(split for split in SPLITS if is_flat_sunrgbd(Path(path), split))
