"""Opens a labelled source set of any format that is read here."""

from pathlib import Path
from typing import Literal

from s4net_core.io.labelme_source import LabelMeSourceSet, is_labelme_folder
from s4net_core.io.source_set import FolderSourceSet, SourceSet
from s4net_core.labels import LabelMap

Split = Literal["train", "test", "all"]
"""Part of a source set that has an official split; a set without one is the same in each."""


def open_source_set(
    path: str | Path, *, split: Split = "train", with_depth: bool = False, map_labels: LabelMap | None = None
) -> SourceSet:
    """The labelled images at `path`, whatever their format.

    Args:
        path: folder or file.
        split: official part, where the format has one.
        with_depth: read depth as well, where there is some.
        map_labels: from the ids in the files to SUN RGB-D 37, one of `LABEL_MAPS`; None = they are those.

    Raises:
        SourceSetError: nothing is there, or it is in none of the formats.
    """
    if str(path).strip() and is_labelme_folder(Path(path)):
        return LabelMeSourceSet(path)
    return FolderSourceSet(path, map_labels=map_labels, with_depth=with_depth)
