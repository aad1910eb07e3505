"""Before and after a live run: the base weights and the last hand-over, on a scene that has labels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from s4net_core.config import Settings
from s4net_core.evaluation.evaluate import Measurement, measure_networks
from s4net_core.evaluation.page import HtmlPage, write_page
from s4net_core.evaluation.pictures import Curve, save_picture
from s4net_core.evaluation.summary import summary_numbers, summary_tables
from s4net_core.evaluation.tables import Table, to_rich
from s4net_core.experiments.provenance import changed_of
from s4net_core.io.captures.opening import open_views
from s4net_core.labels import SUNRGBD37
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.checkpoint import read_info
from s4net_core.models.segmenter import Segmenter
from s4net_ros.replay.monitor import Record
from s4net_ros.replay.report import MEASURED

BASE, ADAPTED = "base", "adapted"
PICTURES = 4
REPORT, PICTURE = "report.html", "before_after.png"


def measure_before_after(settings: Settings, record: Record, scene: Path, console: Console) -> Measurement:
    """Measure the base model and, if there is one, the version handed over last.

    Raises:
        CaptureError: the scene is missing or in an unknown format.
        CheckpointError: a weights file is gone or damaged.
    """
    base = base_model_file(settings.checkpoint, settings.model)
    info = read_info(base)
    settings = settings.sized(info.model)
    capture = open_views(scene, settings, labels=info.label_space)
    weights: dict[str, str | Path] = {BASE: base}
    if record.updates and record.updates[-1].version:
        weights[ADAPTED] = record.updates[-1].path
    segmenters = {name: Segmenter(path, settings.device, settings) for name, path in weights.items()}
    pictures = PICTURES if ADAPTED in weights else 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating on {capture.name}", total=len(capture))
        return measure_networks(
            segmenters, capture, settings, pictures=pictures, on_frame=lambda: progress.advance(task)
        )


def numbers(compared: Measurement) -> dict[str, Any]:
    """Name of the scene and scores of each network, for JSON."""
    return {"scene": compared.capture, **summary_numbers(compared)}


def show(compared: Measurement, console: Console) -> None:
    """Print the tables, except the long one of all classes."""
    for table in summary_tables(compared, classes=False):
        console.print(to_rich(table))


def write_pages(
    out: Path, settings: Settings, record: Record, rows: Sequence[tuple[str, str]], compared: Measurement | None
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
    tables = [Table("Run", ("what", "value"), rows)]
    pictures = compared.pictures if compared else ()
    if compared:
        tables = [*summary_tables(compared), *tables]
    title = f"Before and after adaptation: {compared.capture}" if compared else "Live run"
    space = compared.label_space if compared else SUNRGBD37
    page = HtmlPage(title, tables, _curves(record), pictures, settings=changed_of(settings), label_space=space)
    write_page(out / REPORT, page)
    if not pictures:
        return [out / REPORT]
    save_picture(out / PICTURE, pictures, space)
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
