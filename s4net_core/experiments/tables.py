"""Tables in the layout of the paper: one row a scene, network and method, one group of columns a scan."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from s4net_core.evaluation.metrics import class_iou
from s4net_core.evaluation.summary import DEPTH, SEGMENTATION
from s4net_core.evaluation.tables import Cell, Table
from s4net_core.experiments.results import AGREEMENT, Result

CONVENTIONS = ("per_image", "pooled")
"""Both ways to average over images, by the name of their attribute; the paper's first."""
MEAN = "mean"
"""Name of the rows that average over scenes."""

Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Score by its name in `SEGMENTATION` or `DEPTH`, by scan, by method."""
_T = TypeVar("_T")


def segmentation_table(
    results: Sequence[Result], convention: str, published: Mapping[str, Published] | None = None
) -> Table:
    """The paper's four scores.

    Args:
        results: of any number of networks, methods, scenes, scans and seeds.
        convention: one of `CONVENTIONS`.
        published: by network; shown below the method's mean, only beside scores that are averaged as the paper does.
    """
    how = {"per_image": "scores of each image, averaged", "pooled": "one confusion matrix a scan"}[convention]
    title = f"Segmentation, {convention.replace('_', ' ')} ({how})"
    return _table(title, [result for result in results if result.evaluation], SEGMENTATION, convention, published)


def depth_table(results: Sequence[Result], convention: str, published: Mapping[str, Published] | None = None) -> Table:
    """Errors of predicted depth; arguments as `segmentation_table`. It has no row when no network predicts depth."""
    how = {"per_image": "errors of each image, averaged", "pooled": "over all pixels of a scan"}[convention]
    title = f"Depth, {convention.replace('_', ' ')} ({how})"
    return _table(title, [result for result in results if result.depth], DEPTH, convention, published)


def agreement_table(results: Sequence[Result]) -> Table:
    """Agreement between views."""
    return _table("Agreement between views", results, {AGREEMENT: AGREEMENT})


def class_table(results: Sequence[Result]) -> Table:
    """IoU of every class that occurs, from one confusion matrix over all scenes, one column a scan and method."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    groups: list[tuple[str, int]] = [("", 1)]
    rows = _rows(results)
    for scan in _unique(result.scan for result in results):
        groups.append((scan, len(rows)))
        for row in rows:
            counts = summed_counts([result for result in results if result.scan == scan], *row)
            found[(scan, " ".join(row))] = {} if counts is None else class_iou(counts)
    ids = sorted({id for ious in found.values() for id in ious})
    names = names_of(results)
    table: list[list[Cell]] = [[names[id - 1], *(ious.get(id, math.nan) for ious in found.values())] for id in ids]
    return Table("IoU by class, one confusion matrix over all scenes", ("class", *(c for _, c in found)), table, groups)


def seed_table(results: Sequence[Result], convention: str) -> Table:
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
            values = [_mean([r.score("miou", convention) for r in own if r.scan == scan]) for scan in scans]
            rows.append([network, method, str(seed), *values])
    columns = ("network", "method", "seed", *(f"{scan} mIoU" for scan in scans))
    return Table(f"mIoU of each seed, {convention.replace('_', ' ')}, mean over scenes", columns, rows)


def runs_table(results: Sequence[Result]) -> Table:
    """One row a network and scan, with all that is known of it, pooled: for statistics of one's own."""
    facts = ("network", "base", "method", "scene", "scan", "seed")
    scores = {**SEGMENTATION, **(DEPTH if any(result.depth for result in results) else {}), AGREEMENT: AGREEMENT}
    rows: list[list[Cell]] = []
    for r in results:
        adapted: tuple[Cell, ...] = (math.nan,) * 6  # what a weights file says of itself may be its base model's
        if learning := r.learning:
            labels = (learning.label_accuracy, learning.label_coverage)
            adapted = (r.steps, r.versions, r.refused, learning.seconds, *labels)
        rows.append(
            [
                *(r.network, r.base, r.method, r.scene, r.scan, math.nan if r.seed is None else r.seed),
                *(r.score(name) for name in scores),
                *(r.unseen, *adapted, r.weights),
            ]
        )
    learnt = ("steps", "versions", "refused", "CPU s", "labels right", "labels coverage", "weights")
    return Table("Runs", (*facts, *scores.values(), "unseen mIoU", *learnt), rows)


def names_of(results: Sequence[Result]) -> tuple[str, ...]:
    """Names of the classes that were scored, id 1 first; all results of a table have the same."""
    return next((result.evaluation.names for result in results if result.evaluation), ())


def summed_counts(results: Sequence[Result], network: str, method: str) -> NDArray[np.int64] | None:
    """Confusion counts over all scenes, scans and seeds; None when nothing was scored."""
    counts = [
        result.evaluation.counts
        for result in results
        if (result.network, result.method) == (network, method) and result.evaluation
    ]
    return np.sum(counts, axis=0) if counts else None


def stacked(tables: Mapping[str, Table], heading: str) -> Table:
    """Tables of the same columns below each other, with a first column that names them."""
    first = next(iter(tables.values()))
    rows = [[name, *row] for name, table in tables.items() for row in table.rows]
    return Table(first.title, (heading, *first.columns), rows, [("", 1), *first.groups])


def _table(
    title: str,
    results: Sequence[Result],
    headings: Mapping[str, str],
    convention: str = "pooled",
    published: Mapping[str, Published] | None = None,
) -> Table:
    """One row a scene and method, and a mean over the scenes; rows in which nothing is known are left out.

    Args:
        title: of the table.
        results: to show.
        headings: which scores, by their names in `Result.score`.
        convention: as `Result.score`.
        published: as `segmentation_table`.
    """
    scans = _unique(result.scan for result in results)
    scenes = _unique(result.scene for result in results)
    shown = [*scenes, MEAN] if len(scenes) > 1 else scenes
    paper = (published or {}) if convention == "per_image" else {}
    columns = [(scan, score) for scan in scans for score in headings]
    rows: list[list[Cell]] = []
    for scene in shown:
        averaged = scenes if scene == MEAN else [scene]
        for network, method in _rows(results):
            own = [r for r in results if (r.network, r.method) == (network, method)]
            values = [_average([r for r in own if r.scan == scan], averaged, s, convention) for scan, s in columns]
            rows.append([scene, network, method, *values])
            if scene == shown[-1]:
                published_scores = paper.get(network, {}).get(method, {})
                values = [published_scores.get(scan, {}).get(s, math.nan) for scan, s in columns]
                rows.append(["paper", network, method, *values])
    known = [row for row in rows if any(isinstance(cell, float) and not math.isnan(cell) for cell in row)]
    groups = [("", 3), *((scan, len(headings)) for scan in scans)]
    return Table(title, ("scene", "network", "method", *(headings[score] for _, score in columns)), known, groups)


def _average(results: Sequence[Result], scenes: Sequence[str], score: str, convention: str) -> float:
    """Mean over the scenes of the mean over their seeds; unknown when one of the scenes has none."""
    return _mean([_mean([r.score(score, convention) for r in results if r.scene == scene]) for scene in scenes])


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
