"""Measurements on one capture, as tables for people and as numbers for JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from s4net_core.evaluation.confusion import confusion_png
from s4net_core.evaluation.depth import DepthEvaluation
from s4net_core.evaluation.evaluate import Evaluation, Measurement
from s4net_core.evaluation.tables import Cell, Table
from s4net_core.files import nan_as_none

SEGMENTATION = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "miou": "mIoU",
    "fwiou": "fwIoU",
}
"""Headings of `SegmentationScores`."""
DEPTH = {
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel [m]",
    "rmse": "RMSE [m]",
    "rmse_log": "RMSElog",
    "delta_1": "δ<1.25",
    "delta_2": "δ<1.25²",
    "delta_3": "δ<1.25³",
}
"""Headings of `DepthScores`."""


def summary_tables(measured: Measurement, *, classes: bool = True) -> list[Table]:
    """Scores, agreement between views and depth errors with a row a network; what was not measured is left out.

    Args:
        measured: of any number of networks.
        classes: add the long table with the IoU of every class.
    """
    tables = []
    if measured.evaluations:
        columns = ("network", "scores", *SEGMENTATION.values(), "frames")
        tables.append(Table(f"Scores on {measured.capture}", columns, _rows(measured.evaluations)))
    if any(found.pixels for found in measured.agreements.values()):
        agreements: list[list[Cell]] = [
            [name, found.mean, found.pixels, found.pairs] for name, found in measured.agreements.items()
        ]
        columns = ("network", "agreement", "pixels", "pairs of views")
        tables.append(Table("Agreement between views", columns, agreements))
    if measured.depths:
        tables.append(Table("Depth", ("network", "errors", *DEPTH.values(), "frames"), _rows(measured.depths)))
    return [*tables, _class_table(measured)] if classes and measured.evaluations else tables


def _rows(found: Mapping[str, Evaluation] | Mapping[str, DepthEvaluation]) -> list[list[Cell]]:
    """One a network, pooled, and one a network, averaged over images."""
    return [
        [name, convention.replace("_", " "), *getattr(one, convention).as_dict().values(), one.frames]
        for convention in ("pooled", "per_image")
        for name, one in found.items()
    ]


def _class_table(measured: Measurement) -> Table:
    """Pooled IoU of every class that occurs, one column a network; with two networks also the difference."""
    evaluations = measured.evaluations
    rows: list[list[Cell]] = []
    for id in sorted({id for found in evaluations.values() for id in found.class_iou}):
        values = [found.class_iou.get(id, math.nan) for found in evaluations.values()]
        difference = [_signed(values[1] - values[0])] if len(values) == 2 else []
        rows.append([measured.label_space.names[id - 1], *values, *difference])
    return Table("IoU by class", ("class", *evaluations, *(["difference"] if len(evaluations) == 2 else [])), rows)


def confusion_figures(measured: Measurement) -> list[tuple[str, bytes]]:
    """Name and PNG of each network's confusion matrix."""
    return [
        (f"Confusion: {name}", confusion_png(f"{name} on {measured.capture}", found.counts, found.names))
        for name, found in measured.evaluations.items()
    ]


def summary_numbers(measured: Measurement) -> dict[str, dict[str, Any]]:
    """Everything that could be measured, by network; an agreement of no pixel is None."""
    numbers: dict[str, dict[str, Any]] = {}
    for name, agreement in measured.agreements.items():
        numbers[name] = {"agreement": nan_as_none(agreement.mean), "agreement_pixels": agreement.pixels}
        if found := measured.evaluations.get(name):
            numbers[name]["frames"] = found.frames
            numbers[name]["pooled"] = found.pooled.as_dict()
            numbers[name]["per_image"] = found.per_image.as_dict()
            numbers[name]["class_iou"] = {found.names[id - 1]: value for id, value in found.class_iou.items()}
        if depth := measured.depths.get(name):
            numbers[name]["depth"] = asdict(depth)
    return numbers


def _signed(value: float) -> Cell:
    return math.nan if math.isnan(value) else f"{value:+.3f}"
