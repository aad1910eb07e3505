"""Published tables that map ScanNet's raw ids and NYU Depth v2's 894 classes to the 37 classes of SUN RGB-D."""

import csv
from pathlib import Path

import numpy as np

from s4net_core.errors import LabelTableError
from s4net_core.io.matlab import load_mat
from s4net_core.labels import LABEL_MAPS, UNLABELLED, LabelMap, nyu40_to_sunrgbd37, table_map

SCANNET_TABLE = "scannetv2-labels.combined.tsv"
"""Lies beside the scans of ScanNet."""
NYU_TABLE = "classMapping40.mat"
"""Comes with the code of Gupta et al.; NYU Depth v2 itself has no table of 40 classes."""
NYU_CLASSES = 894


def scannet_label_map(tsv: Path) -> LabelMap:
    """Map from ScanNet's raw ids to SUN RGB-D 37, through the table's NYU40 ids.

    Where the published table has an id in several rows that disagree, the last one counts, as in ScanNet's own tools.

    Args:
        tsv: `SCANNET_TABLE`: a header, then one raw class a row; its columns `id` and `nyu40id` are read.

    Returns:
        (H, W) uint16 (or uint8) raw ids, 0 = unlabelled -> (H, W) uint8; ids that the table lacks become unlabelled.

    Raises:
        LabelTableError: the table is missing or has no such columns.
    """
    try:
        with tsv.open(encoding="utf-8", newline="") as file:
            rows = [(int(row["id"]), int(row["nyu40id"] or 0)) for row in csv.DictReader(file, delimiter="\t")]
    except OSError as error:
        raise LabelTableError(
            f"{tsv} cannot be read ({error.strerror}): it comes with ScanNet, put it beside the scans or name it"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise LabelTableError(f"{tsv} is no {SCANNET_TABLE}: it must have the columns id and nyu40id") from error
    if not rows:
        raise LabelTableError(f"{tsv} has no rows: it is truncated, fetch it again")
    table = np.zeros(max(raw for raw, _ in rows) + 1, np.uint8)
    for raw, nyu40 in rows:
        table[raw] = nyu40
    return table_map(nyu40_to_sunrgbd37(table))


def nyu_label_map(path: Path) -> LabelMap:
    """Map from the 894 classes of NYU Depth v2 to SUN RGB-D 37, through NYU40.

    Args:
        path: `NYU_TABLE`, by Gupta et al. (CVPR 2013): `mapClass` has the NYU40 id of every class, in class order.

    Returns:
        (H, W) uint16 ids, 0 = unlabelled -> (H, W) uint8; ids that the table lacks become unlabelled.

    Raises:
        LabelTableError: the table is missing or has no such variable.
    """
    if not path.is_file():
        raise LabelTableError(
            f"{path} is missing; it maps NYU's 894 classes to 40: put {NYU_TABLE} (Gupta et al.) there, or name it "
            "by --labels FILE"
        )
    (nyu40,) = load_mat(path, ["mapClass"], LabelTableError)
    nyu40 = np.atleast_1d(nyu40)
    if nyu40.ndim != 1 or nyu40.size != NYU_CLASSES or nyu40.min() < 0 or nyu40.max() > 40:
        raise LabelTableError(
            f"{path}: mapClass has shape {nyu40.shape} and ids up to {nyu40.max()}, but {NYU_CLASSES} ids up to 40 are "
            f"expected: is it {NYU_TABLE}?"
        )
    return table_map(nyu40_to_sunrgbd37(np.array([UNLABELLED, *nyu40], np.uint8)))


def label_map(name: str) -> LabelMap:
    """The label map of a name or file that a user gives.

    Args:
        name: a key of `LABEL_MAPS`, or a file: `SCANNET_TABLE` (``.tsv``) or `NYU_TABLE` (``.mat``).

    Raises:
        LabelTableError: it is neither, or the file is not what its suffix says.
    """
    if name in LABEL_MAPS:
        return LABEL_MAPS[name]
    tables = {".tsv": scannet_label_map, ".mat": nyu_label_map}
    if Path(name).suffix not in tables:
        raise LabelTableError(
            f"'{name}' maps no labels: give one of {', '.join(LABEL_MAPS)}, or a file {SCANNET_TABLE} or {NYU_TABLE}"
        )
    return tables[Path(name).suffix](Path(name))
