"""S4-Net against its control on one capture: the experiment that `s4net compare` runs, and its table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.evaluation.tables import Cell, Table, cell_text
from s4net_core.experiments.experiment import Experiment, Method, Scene
from s4net_core.experiments.results import AGREEMENT, Result

BASE, S4NET, CONTROL = "base", "S4-Net", "control (λ = 0)"
"""Rows of the table."""
COLUMNS = ("pixel accuracy", "mIoU", "mIoU per image", "agreement")


def comparison(
    settings: Settings, capture: str, scans: Mapping[str, str], seeds: Sequence[int], *, poses: str = ""
) -> Experiment:
    """S4-Net and its control: the same steps on the same source images, without the loss between views.

    Args:
        settings: with base model and source set.
        capture: path of the capture to adapt to.
        scans: paths of labelled captures to measure on, by name.
        seeds: of the adaptations.
        poses: as of `Scene`.
    """
    scene = Path(capture).resolve().name
    return Experiment(
        title=f"{S4NET} and its control on {scene}",
        table="",
        source=settings.source.path,
        bases={BASE: settings.checkpoint},
        scenes=(Scene(name=scene, capture=capture, scans=dict(scans), poses=poses),),
        # Both are compared after the same number of steps, unless `adaptation.patience` itself ends them.
        settings={**settings.model_dump(exclude_unset=True), "adaptation.offline_patience": 0},
        methods=(
            Method(name=S4NET),
            Method(name=CONTROL, settings={"learner.lambda_geometric": 0.0, "learner.lambda_depth": 0.0}),
        ),
        seeds=tuple(seeds),
    )


def comparison_table(results: Sequence[Result]) -> Table:
    """One row a scan, method and seed, and one with the mean and range of each method.

    Args:
        results: of one scene; those without a seed are of the base model.
    """
    rows: list[list[Cell]] = []
    for scan in dict.fromkeys(result.scan for result in results):
        of_scan = [result for result in results if result.scan == scan]
        for method in dict.fromkeys(result.method for result in of_scan):
            group = [result for result in of_scan if result.method == method]
            rows += [_row(result) for result in group]
            if len(group) > 1:
                rows.append(_mean_and_range(group))
    return Table("Comparison", ("scene", "method", "seed", *COLUMNS, "versions (refused)"), rows)


def _row(result: Result) -> list[Cell]:
    scores = map(cell_text, _scores(result))
    if result.seed is None:
        return [result.scan, BASE, "–", *scores, "–"]
    return [result.scan, result.method, str(result.seed), *scores, f"{result.versions} ({result.refused})"]


def _mean_and_range(group: Sequence[Result]) -> list[Cell]:
    columns = zip(*map(_scores, group), strict=True)
    cells = [
        "–" if any(map(math.isnan, c)) else f"**{statistics.mean(c):.3f}** ({min(c):.3f}–{max(c):.3f})" for c in columns
    ]
    return [group[0].scan, group[0].method, "mean (range)", *cells, ""]


def _scores(result: Result) -> tuple[float, float, float, float]:
    return (
        result.score("pixel_accuracy"),
        result.score("miou"),
        result.score("miou", "per_image"),
        result.score(AGREEMENT),
    )
