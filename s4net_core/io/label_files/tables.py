"""Published tables that map ScanNet's raw ids and NYU Depth v2's 894 classes to the 37 classes of SUN RGB-D."""

import csv
import io
from pathlib import Path

import numpy as np

from s4net_core.errors import LabelTableError
from s4net_core.files import read_text
from s4net_core.io.matlab import load_mat
from s4net_core.labels import LABEL_MAPS, UNLABELLED, LabelMap, nyu40_to_sunrgbd37, table_map

SCANNET_TABLE = "scannetv2-labels.combined.tsv"
"""Lies beside the scans of ScanNet."""
NYU_TABLE = "classMapping40.mat"
"""Comes with the code of Gupta et al.; NYU Depth v2 itself has no table of 40 classes."""
NYU_CLASSES, NYU40_CLASSES = 894, 40
MAX_RAW_ID = 65535
"""ScanNet's label images have 16 bits."""


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
        text = io.StringIO(read_text(tsv), newline="")
        rows = [(int(row["id"]), int(row["nyu40id"] or 0)) for row in csv.DictReader(text, delimiter="\t")]
    except OSError as error:
        raise LabelTableError(
            f"{tsv} cannot be read ({error.strerror}): it comes with ScanNet, put it beside the scans or name it"
        ) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise LabelTableError(f"{tsv} is no {SCANNET_TABLE}: it must have the columns id and nyu40id") from error
    if not rows:
        raise LabelTableError(f"{tsv} has no rows: it is truncated, fetch it again")
    table = np.zeros(MAX_RAW_ID + 1, np.uint8)
    for raw, nyu40 in rows:
        if not (0 <= raw <= MAX_RAW_ID and 0 <= nyu40 <= NYU40_CLASSES):
            raise LabelTableError(
                f"{tsv} maps id {raw} to {nyu40}: ids go up to {MAX_RAW_ID} and nyu40id up to {NYU40_CLASSES}; is it "
                f"{SCANNET_TABLE}?"
            )
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
    numbers = nyu40.dtype.kind in "uif" and nyu40.shape == (NYU_CLASSES,)
    if not numbers or not ((nyu40 >= 0) & (nyu40 <= NYU40_CLASSES)).all():
        raise LabelTableError(
            f"{path}: mapClass is {nyu40.shape} {nyu40.dtype}, but {NYU_CLASSES} ids up to {NYU40_CLASSES} are "
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
