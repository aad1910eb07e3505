"""Tables in the layout of the paper: one row a scene, network and method, one group of columns a scan."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from s4net_core.evaluation.metrics import class_iou
from s4net_core.evaluation.report import Cell, Table
from s4net_core.evaluation.results import Result
from s4net_core.labels import SUNRGBD37, LabelSpace

CONVENTIONS = {"per_image": "scores of each image, averaged", "pooled": "one confusion matrix a scan"}
"""Both ways to average over images, by the name of their attribute; the paper's first."""
SEGMENTATION = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "miou": "mIoU",
    "fwiou": "fwIoU",
}
DEPTH = {
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel [m]",
    "rmse": "RMSE [m]",
    "rmse_log": "RMSElog",
    "delta_1": "δ<1.25",
    "delta_2": "δ<1.25²",
    "delta_3": "δ<1.25³",
}
MEAN = "mean"
"""Name of the rows that average over scenes."""

Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Score by its name in `SEGMENTATION` or `DEPTH`, by scan, by method."""
Score = Callable[[Result], float]
_Scans = dict[str, dict[str, float]]
_T = TypeVar("_T")


def score_layout(results: Sequence[Result], convention: str, published: Mapping[str, Published] | None = None) -> Table:
    """The paper's four scores.

    Args:
        results: of any number of networks, methods, scenes, scans and seeds.
        convention: one of `CONVENTIONS`.
        published: by network; shown below the method's mean, only beside scores that are averaged as the paper does.
    """
    title = f"Segmentation, {convention.replace('_', ' ')} ({CONVENTIONS[convention]})"
    scores = {heading: _segmentation(convention, name) for name, heading in SEGMENTATION.items()}
    shown = _published(published or {}, SEGMENTATION) if convention == "per_image" else {}
    return _layout(title, [result for result in results if result.evaluation], scores, shown)


def depth_layout(results: Sequence[Result], convention: str, published: Mapping[str, Published] | None = None) -> Table:
    """Errors of predicted depth; arguments as `score_layout`. It has no row when no network predicts depth."""
    average = {"per_image": "errors of each image, averaged", "pooled": "over all pixels of a scan"}[convention]
    title = f"Depth, {convention.replace('_', ' ')} ({average})"
    scores = {heading: _depth(convention, name) for name, heading in DEPTH.items()}
    shown = _published(published or {}, DEPTH) if convention == "per_image" else {}
    return _layout(title, [result for result in results if result.depth], scores, shown)


def agreement_layout(results: Sequence[Result]) -> Table:
    """Agreement between views, and what the guard did meanwhile."""
    return _layout("Agreement between views", results, {"agreement": lambda result: result.agreement.mean}, {})


def class_layout(results: Sequence[Result], label_space: LabelSpace = SUNRGBD37) -> Table:
    """IoU of every class that occurs, from one confusion matrix over all scenes, one column a scan and method."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    groups: list[tuple[str, int]] = [("", 1)]
    rows = _rows(results)
    for scan in _unique(result.scan for result in results):
        groups.append((scan, len(rows)))
        for row in rows:
            counts = summed_counts(results, *row, scan)
            found[(scan, " ".join(row))] = {} if counts is None else class_iou(counts)
    ids = sorted({id for ious in found.values() for id in ious})
    table: list[list[Cell]] = [
        [label_space.names[id - 1], *(ious.get(id, math.nan) for ious in found.values())] for id in ids
    ]
    return Table("IoU by class, one confusion matrix over all scenes", ("class", *(c for _, c in found)), table, groups)


def seed_layout(results: Sequence[Result], convention: str) -> Table:
    """Mean over scenes of the mIoU of each seed: how far apart the runs lie. Empty when there are not several seeds."""
    rows: list[list[Cell]] = []
    scans = _unique(result.scan for result in results)
    for network, method in _rows(results):
        chosen = [r for r in results if (r.network, r.method) == (network, method)]
        seeds = _unique(r.seed for r in chosen)
        if len(seeds) < 2:
            continue
        for seed in seeds:
            own = [r for r in chosen if r.seed == seed]
            values = [_mean([_segmentation(convention, "miou")(r) for r in own if r.scan == scan]) for scan in scans]
            rows.append([network, method, str(seed), *values])
    columns = ("network", "method", "seed", *(f"{scan} mIoU" for scan in scans))
    return Table(f"mIoU of each seed, {convention.replace('_', ' ')}, mean over scenes", columns, rows)


def summed_counts(results: Sequence[Result], network: str, method: str, scan: str) -> NDArray[np.int64] | None:
    """Confusion counts over all scenes and seeds; None when nothing was scored."""
    counts = [
        result.evaluation.counts
        for result in results
        if (result.network, result.method, result.scan) == (network, method, scan) and result.evaluation
    ]
    return np.sum(counts, axis=0) if counts else None


def stacked(tables: Mapping[str, Table], heading: str) -> Table:
    """Tables of the same columns below each other, with a first column that names them."""
    first = next(iter(tables.values()))
    rows = [[name, *row] for name, table in tables.items() for row in table.rows]
    return Table(first.title, (heading, *first.columns), rows, [("", 1), *first.groups])


def _published(published: Mapping[str, Published], names: Mapping[str, str]) -> dict[tuple[str, str], _Scans]:
    """Those of `names` alone, under their headings, by network and method; rows without any are left out."""
    found = {}
    for network, methods in published.items():
        for method, scans in methods.items():
            scores = {
                scan: {names[name]: value for name, value in values.items() if name in names}
                for scan, values in scans.items()
            }
            if any(scores.values()):
                found[(network, method)] = scores
    return found


def _layout(
    title: str,
    results: Sequence[Result],
    scores: Mapping[str, Score],
    published: Mapping[tuple[str, str], _Scans],
) -> Table:
    scans = _unique(result.scan for result in results)
    scenes = _unique(result.scene for result in results)
    rows: list[list[Cell]] = []
    columns = [(scan, heading) for scan in scans for heading in scores]
    for scene in [*scenes, *([MEAN] if len(scenes) > 1 else [])]:
        for network, method in _rows(results):
            own = [r for r in results if (r.network, r.method) == (network, method) and scene in (r.scene, MEAN)]
            cells = [_cell(own, scenes if scene == MEAN else [scene], scan, scores[h]) for scan, h in columns]
            if not all(map(math.isnan, cells)):
                rows.append([scene, network, method, *cells])
            paper = published.get((network, method))
            if paper and (scene == MEAN or len(scenes) == 1):
                known = [paper.get(scan, {}).get(heading, math.nan) for scan, heading in columns]
                rows.append(["paper", network, method, *known])
    groups = [("", 3), *((scan, len(scores)) for scan in scans)]
    return Table(title, ("scene", "network", "method", *(heading for _, heading in columns)), rows, groups)


def _cell(results: Sequence[Result], scenes: Sequence[str], scan: str, score: Score) -> float:
    """Mean over the scenes of the mean over their seeds; unknown when one of the scenes has none."""
    return _mean([_mean([score(r) for r in results if (r.scene, r.scan) == (scene, scan)]) for scene in scenes])


def _segmentation(convention: str, name: str) -> Score:
    def score(result: Result) -> float:
        return float(getattr(getattr(result.evaluation, convention), name)) if result.evaluation else math.nan

    return score


def _depth(convention: str, name: str) -> Score:
    def score(result: Result) -> float:
        return float(getattr(getattr(result.depth, convention), name)) if result.depth else math.nan

    return score


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Network and method of each row, methods of one network beside each other."""
    pairs = _unique((result.network, result.method) for result in results)
    networks = _unique(network for network, _ in pairs)
    return sorted(pairs, key=lambda pair: networks.index(pair[0]))


def _unique(values: Iterable[_T]) -> list[_T]:
    """Each value once, in the order in which they come first."""
    return list(dict.fromkeys(values))
