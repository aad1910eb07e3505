"""Published tables of class ids: ScanNet's raw ids and NYU Depth v2's 894 to the 37 classes of SUN RGB-D."""

import csv
from pathlib import Path

import numpy as np

from s4net_core.errors import LabelTableError
from s4net_core.labels import LabelMap, nyu40_to_sunrgbd37, table_map

SCANNET_TABLE = "scannetv2-labels.combined.tsv"
"""Lies beside the scans of ScanNet."""


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
