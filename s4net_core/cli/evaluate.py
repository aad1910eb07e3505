"""``s4net evaluate``: measure a network on a capture, against labels where it has some, and beside a baseline."""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.config import Settings
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.evaluation.evaluate import Measurement, measure
from s4net_core.evaluation.report import (
    Cell,
    Report,
    Table,
    class_table,
    score_table,
    to_markdown,
    to_rich,
    write_report,
)
from s4net_core.files import write_atomically
from s4net_core.inference import Segmenter
from s4net_core.io.captures import open_capture
from s4net_core.labels import LABEL_SPACES
from s4net_core.models.checkpoint import CheckpointInfo, read_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", required=True, type=Path, help="weights file to measure")
    parser.add_argument("--baseline", type=Path, help="weights file to compare it with, e.g. the base model")
    parser.add_argument("--capture", required=True, type=Path, help="scene folder, bag, TUM or 7-Scenes folder")
    parser.add_argument("--poses", default="", help="another file of poses of a scene folder, e.g. poses_noisy.txt")
    parser.add_argument("--report", type=Path, help="write an HTML report with pictures")
    parser.add_argument("--json", type=Path, help="write the numbers as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--pictures", type=int, default=6, help="number of pictures in the report (default: 6)")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; the image size is the checkpoint's unless the settings give one."""
    settings = settings_from(args)
    files = {"base": args.baseline, "adapted": args.checkpoint} if args.baseline else {"network": args.checkpoint}
    _take_size(settings, read_info(args.checkpoint))
    segmenters = {name: Segmenter(path, settings.device, settings) for name, path in files.items()}
    capture = open_capture(
        args.capture, stream=settings.stream, poses=args.poses, with_depth=settings.geometry.from_sensor
    )
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("evaluate", total=len(capture))
        measured = measure(
            segmenters,
            capture,
            settings,
            pictures=max(args.pictures, 0) if args.report else 0,
            on_frame=lambda: progress.advance(task),
            on_view=lambda done, total: progress.update(task, description="compare views", completed=done, total=total),
        )
    if not measured.evaluations and not any(found.pixels for found in measured.agreements.values()):
        raise SettingsError(
            f"capture {capture.name} has neither labels nor overlapping views with depth, so nothing can be measured: "
            "use another capture"
        )
    tables = _tables(capture.name, measured)
    for table in tables:
        if args.markdown:
            print(f"{table.title}\n\n{to_markdown(table)}")  # not by rich, which would break long lines
        else:
            console.print(to_rich(table))
    infos = {name: segmenter.info for name, segmenter in segmenters.items()}
    if args.json:
        _write_json(args.json, capture.name, files, infos, measured)
    if args.report:
        notes = [f"{len(capture)} frames, {measured.keyframes} keyframes; left out: {capture.skipped or 'none'}."]
        shown = {f"weights ({name})": f"{path}, version {infos[name].version}" for name, path in files.items()}
        shown |= infos[list(files)[-1]].model.model_dump(include={"architecture", "encoder", "label_space"})
        shown |= {"size": f"{settings.model.width}x{settings.model.height}"}
        title = f"Evaluation on {capture.name}"
        write_report(args.report, Report(title, tables, (), measured.pictures, notes, shown))
        console.print(f"report: {args.report}")
    return 0


def _take_size(settings: Settings, info: CheckpointInfo) -> None:
    for name in ("width", "height"):
        if name not in settings.model.model_fields_set:
            setattr(settings.model, name, getattr(info.model, name))


def _tables(capture: str, measured: Measurement) -> list[Table]:
    agreement: list[list[Cell]] = [
        [name, found.mean, found.pixels, found.pairs] for name, found in measured.agreements.items()
    ]
    tables = [Table("Agreement between views", ("network", "agreement", "pixels", "pairs of views"), agreement)]
    if measured.evaluations:
        scores = score_table(f"Scores on {capture}", measured.evaluations)
        tables = [scores, *tables, class_table("IoU by class", measured.evaluations)]
    return tables


def _write_json(
    path: Path, capture: str, files: Mapping[str, Path], infos: Mapping[str, CheckpointInfo], measured: Measurement
) -> None:
    content: dict[str, Any] = {"capture": capture, "keyframes": measured.keyframes, "networks": {}}
    for name, info in infos.items():
        found = measured.agreements[name]
        entry: dict[str, Any] = {
            "checkpoint": str(files[name]),
            "version": info.version,
            "agreement": None if math.isnan(found.mean) else found.mean,
            "agreement_pixels": found.pixels,
        }
        if name in measured.evaluations:
            evaluation, names = measured.evaluations[name], LABEL_SPACES[info.model.label_space].names
            entry["frames"] = evaluation.frames
            entry["pooled"] = evaluation.pooled.as_dict()
            entry["per_image"] = evaluation.per_image.as_dict()
            entry["class_iou"] = {names[id - 1]: value for id, value in evaluation.class_iou.items()}
        content["networks"][name] = entry
    try:
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise S4NetError(f"{path} cannot be written ({error}): check the folder's rights") from error
