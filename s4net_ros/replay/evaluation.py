"""Before and after a live run: the base weights and the last hand-over, on a scene that has labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from s4net_core.config import Settings
from s4net_core.evaluation.page import HtmlPage, write_page
from s4net_core.evaluation.pictures import Curve, save_picture
from s4net_core.evaluation.summary import summary_tables
from s4net_core.evaluation.tables import Table, to_rich
from s4net_core.experiments.evaluate_capture import CaptureEvaluation, evaluate_capture
from s4net_core.experiments.provenance import Provenance
from s4net_core.io.captures.opening import open_views
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.checkpoint import read_info
from s4net_ros.replay.monitor import Record
from s4net_ros.replay.report import MEASURED

BASE, ADAPTED = "base", "adapted"
PICTURES = 4
REPORT, PICTURE = "report.html", "before_after.png"


def measure_before_after(settings: Settings, record: Record, scene: Path, console: Console) -> CaptureEvaluation:
    """Measure the base model and, if there is one, the version handed over last.

    Raises:
        CaptureError: the scene is missing or in an unknown format.
        CheckpointError: a weights file is gone or damaged.
        SettingsError: nothing can be measured on the scene.
    """
    files = {BASE: base_model_file(settings.checkpoint, settings.model)}
    capture = open_views(scene, settings, labels=read_info(files[BASE]).label_space)
    if record.updates and record.updates[-1].version:
        files[ADAPTED] = Path(record.updates[-1].path)
    pictures = PICTURES if ADAPTED in files else 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating on {capture.name}", total=len(capture))
        return evaluate_capture(
            files, capture, scene, settings, pictures=pictures, on_frame=lambda: progress.advance(task)
        )


def show(compared: CaptureEvaluation, console: Console) -> None:
    """Print the tables, except the long one of all classes."""
    for table in summary_tables(compared.measured, classes=False):
        console.print(to_rich(table))


def write_pages(
    out: Path, settings: Settings, record: Record, rows: Sequence[tuple[str, str]], compared: CaptureEvaluation | None
) -> list[Path]:
    """Write ``report.html``, and ``before_after.png`` where there is something to compare; returns their paths.

    Args:
        out: folder.
        settings: the page lists those that differ from the defaults.
        record: for the curves.
        rows: name and value of each line in the table of the run.
        compared: scores and pictures, or None.

    Raises:
        S4NetError: a file cannot be written.
    """
    if compared:
        page = replace(compared.page(), title=f"Before and after adaptation: {compared.measured.capture}")
    else:
        page = HtmlPage("Live run", settings=Provenance.of(settings, weights={}, data={}).shown())
    tables = [*page.tables, Table("Run", ("what", "value"), rows)]
    write_page(out / REPORT, replace(page, tables=tables, curves=_curves(record)))
    if not page.pictures:
        (out / PICTURE).unlink(missing_ok=True)  # an earlier run's would pass for this one's
        return [out / REPORT]
    save_picture(out / PICTURE, page.pictures, page.label_space)
    return [out / REPORT, out / PICTURE]


def _curves(record: Record) -> list[Curve]:
    """Losses over steps, agreement and hold-out score over hand-overs."""
    points = {point.step: point for point in record.history.points if point.step}
    measured = {(p.handovers, p.refused): p for p in record.history.points if p.handovers or p.refused}

    def series(chosen: Mapping[Any, Any], name: str) -> tuple[list[float], list[float]]:
        return [p.step for p in chosen.values()], [getattr(p, name) for p in chosen.values()]

    curves = []
    if points:
        losses = {"source": "loss_source", "geometric": "loss_geometric", "total": "loss"}
        lines = {title: series(points, name) for title, name in losses.items()}
        curves.append(Curve("Loss", lines, y_label="nats a pixel", smooth=5))
    if measured:
        for name, title in MEASURED.items():
            if any(math.isfinite(getattr(point, name)) for point in measured.values()):
                lines = {"base": series(measured, f"base_{name}"), "learner": series(measured, name)}
                curves.append(Curve(title[0].upper() + title[1:], lines))
    return curves
