"""Before and after of a live run: the base weights and those handed over last, on a scene that has labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from s4net_core.config import Settings
from s4net_core.evaluation.evaluate import Measurement, measure
from s4net_core.evaluation.pictures import Curve, save_picture
from s4net_core.evaluation.provenance import changed_settings
from s4net_core.evaluation.report import Cell, Report, Table, class_table, score_table, to_rich, write_report
from s4net_core.io.captures.opening import open_capture
from s4net_core.models.segmenter import Segmenter
from s4net_ros.replay.monitor import Record

BASE, ADAPTED = "base", "adapted"
PICTURES = 4
REPORT, PICTURE = "report.html", "before_after.png"


@dataclass(frozen=True)
class Comparison:
    """Base and adapted weights on the same frames.

    Args:
        scene: name of the capture.
        measured: scores where it has labels, agreement and pictures, by network, `BASE` first.
    """

    scene: str
    measured: Measurement

    def tables(self) -> list[Table]:
        """Scores, and IoU by class; without labels the agreement between views alone."""
        measured = self.measured
        rows: list[list[Cell]] = [[name, found.mean, found.pixels] for name, found in measured.agreements.items()]
        agreement = Table(f"Agreement between views of {self.scene}", ("network", "agreement", "pixels"), rows)
        if not measured.evaluations:
            return [agreement]
        scores = score_table(f"Scores on {self.scene}, {BASE} = before, {ADAPTED} = after", measured.evaluations)
        compared = [agreement] if any(found.pixels for found in measured.agreements.values()) else []
        return [scores, *compared, class_table("IoU by class", measured.evaluations)]

    def as_dict(self) -> dict[str, Any]:
        """Scores by network and convention, for JSON."""
        networks: dict[str, Any] = {}
        for name, found in self.measured.agreements.items():
            networks[name] = {"agreement": None if math.isnan(found.mean) else found.mean}
            if evaluation := self.measured.evaluations.get(name):
                networks[name]["pooled"] = evaluation.pooled.as_dict()
                networks[name]["per_image"] = evaluation.per_image.as_dict()
                networks[name]["frames"] = evaluation.frames
        return {"scene": self.scene, **networks}


def show(comparison: Comparison, console: Console) -> None:
    """Print the tables, but for the long one of all classes."""
    for table in comparison.tables()[:-1] or comparison.tables():
        console.print(to_rich(table))


def compare(settings: Settings, record: Record, scene: Path, console: Console) -> Comparison:
    """Measure the base model and, if there is one, the version handed over last.

    Raises:
        CaptureError: the scene is missing or in an unknown format.
        CheckpointError: a weights file is gone or damaged.
    """
    capture = open_capture(scene, stream=settings.stream, with_depth=settings.geometry.from_sensor)
    weights = {BASE: settings.checkpoint}
    if record.updates and record.updates[-1].version:
        weights[ADAPTED] = record.updates[-1].path
    segmenters = {name: Segmenter(path, settings.device, settings) for name, path in weights.items()}
    pictures = PICTURES if ADAPTED in weights else 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating on {capture.name}", total=len(capture))
        measured = measure(segmenters, capture, settings, pictures=pictures, on_frame=lambda: progress.advance(task))
    return Comparison(capture.name, measured)


def write_pages(
    out: Path, settings: Settings, record: Record, numbers: Sequence[tuple[str, str]], comparison: Comparison | None
) -> list[Path]:
    """Write ``report.html``, and ``before_after.png`` where there is something to compare; returns their paths.

    Args:
        out: folder.
        settings: what differs from the defaults is listed.
        record: for the curves.
        numbers: name and value of everything that the run's own table shows.
        comparison: scores and pictures, or None.

    Raises:
        S4NetError: a file cannot be written.
    """
    tables = [Table("Run", ("what", "value"), numbers)]
    pictures = comparison.measured.pictures if comparison else ()
    if comparison:
        tables = [*comparison.tables(), *tables]
    title = f"Before and after adaptation: {comparison.scene}" if comparison else "Live run"
    report = Report(title, tables, _curves(record), pictures, settings=changed_settings(settings))
    write_report(out / REPORT, report)
    if not pictures:
        return [out / REPORT]
    save_picture(out / PICTURE, pictures)
    return [out / REPORT, out / PICTURE]


def _curves(record: Record) -> list[Curve]:
    """Losses over steps, agreement and hold-out score over hand-overs."""
    points = {point.step: point for point in record.history if point.step}
    measured = {(p.handovers, p.refused): p for p in record.history if p.handovers or p.refused}

    def series(chosen: Mapping[Any, Any], name: str) -> tuple[list[float], list[float]]:
        return [p.step for p in chosen.values()], [getattr(p, name) for p in chosen.values()]

    curves = []
    if points:
        losses = {"source": "loss_source", "geometric": "loss_geometric", "total": "loss"}
        lines = {title: series(points, name) for title, name in losses.items()}
        curves.append(Curve("Loss", lines, y_label="nats a pixel", smooth=5))
    if measured:
        for title, name in (("Agreement between views", "agreement"), ("Source hold-out mIoU", "source_miou")):
            lines = {"base": series(measured, f"base_{name}"), "learner": series(measured, name)}
            curves.append(Curve(title, lines))
    return curves
