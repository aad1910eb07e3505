"""``s4net evaluate``: measure a network on a capture, against labels where it has some, and beside a baseline."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from s4net_core.cli.evaluate_scenes import add_scene_arguments, run_scenes
from s4net_core.cli.options import add_poses_option, add_settings_options, settings_from
from s4net_core.cli.output import progress_bar
from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.confusion import confusion_png
from s4net_core.evaluation.evaluate import Measurement, measure
from s4net_core.evaluation.paper_tables import CONVENTIONS, DEPTH
from s4net_core.evaluation.provenance import Provenance, changed_settings, data_sha256, settings_of
from s4net_core.evaluation.report import (
    Cell,
    Report,
    Table,
    class_table,
    score_table,
    to_csv,
    to_markdown,
    to_rich,
    write_report,
)
from s4net_core.files import write_result
from s4net_core.frames import FrameSource
from s4net_core.io.captures.opening import open_capture
from s4net_core.labels import LABEL_SPACES
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, read_info, with_size_of
from s4net_core.models.segmenter import Segmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", type=Path, help="weights file to measure")
    parser.add_argument("--baseline", type=Path, help="weights file to compare it with, e.g. the base model")
    parser.add_argument("--capture", type=Path, help="capture of any format, e.g. a scene folder or a bag")
    add_poses_option(parser)
    parser.add_argument("--report", type=Path, help="write an HTML report with pictures")
    parser.add_argument("--json", type=Path, help="write the numbers as JSON")
    parser.add_argument("--csv", type=Path, help="write the scores as CSV")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--pictures", type=int, default=6, help="number of pictures in the report (default: 6)")
    add_scene_arguments(parser)
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; the image size is the checkpoint's unless the settings give one."""
    settings = settings_from(args)
    if args.network or args.scene:
        return run_scenes(args, settings)
    if not args.checkpoint or not args.capture:
        raise SettingsError("give --checkpoint and --capture, or --network and --scene")
    if args.out:
        raise SettingsError("--out belongs to --network and --scene: give --report, --json or --csv FILE")
    files = {"base": args.baseline, "adapted": args.checkpoint} if args.baseline else {"network": args.checkpoint}
    settings = with_size_of(settings, read_info(args.checkpoint))
    segmenters = {name: Segmenter(path, settings.device, settings) for name, path in files.items()}
    capture = open_capture(
        args.capture, stream=settings.stream, poses=args.poses, with_depth=settings.geometry.from_sensor
    )
    console = Console()
    measured = _measured(segmenters, capture, settings, max(args.pictures, 0) if args.report else 0, console)
    tables = _tables(capture.name, measured)
    for table in tables:
        if args.markdown:
            print(f"{table.title}\n\n{to_markdown(table)}")  # not by rich, which would break long lines
        else:
            console.print(to_rich(table))
    infos = {name: segmenter.info for name, segmenter in segmenters.items()}
    origin = Provenance(
        settings_of(settings),
        changed_settings(settings),
        weights={name: file_sha256(path) for name, path in files.items()},
        data={capture.name: data_sha256(args.capture)},
    )
    if args.json:
        content = _numbers(capture.name, files, infos, measured) | {"provenance": origin.as_dict()}
        write_result(args.json, json.dumps(content, indent=2) + "\n")
    if args.csv:
        write_result(args.csv, to_csv(tables[0], [tables[0].title, *origin.lines()]))
    if args.report:
        shown: dict[str, object] = {
            f"file ({name})": f"{p}, version {infos[name].version}" for name, p in files.items()
        }
        shown |= infos[list(files)[-1]].model.model_dump(include={"architecture", "encoder", "label_space"})
        shown |= {"size": f"{settings.model.width}x{settings.model.height}", **origin.shown()}
        write_report(args.report, _report(capture, measured, tables, shown))
        console.print(f"report: {args.report}")
    return 0


def _measured(
    segmenters: Mapping[str, Segmenter], capture: FrameSource, settings: Settings, pictures: int, console: Console
) -> Measurement:
    """Everything that can be measured on the capture, under a progress bar.

    Raises:
        SettingsError: nothing can.
    """
    with progress_bar(console) as progress:
        task = progress.add_task("evaluate", total=len(capture) or None)
        measured = measure(
            segmenters,
            capture,
            settings,
            pictures=pictures,
            on_frame=lambda: progress.advance(task),
            on_view=lambda done, total: progress.update(task, description="compare views", completed=done, total=total),
        )
    if not (measured.evaluations or measured.depths or any(found.pixels for found in measured.agreements.values())):
        raise SettingsError(
            f"capture {capture.name} has neither labels nor overlapping views with depth, so nothing can be measured: "
            "use another capture"
        )
    return measured


def _report(
    capture: FrameSource, measured: Measurement, tables: Sequence[Table], shown: Mapping[str, object]
) -> Report:
    """The page; `shown` is what led to the numbers."""
    notes = [f"{len(capture)} frames, {measured.keyframes} keyframes; left out: {capture.skipped or 'none'}."]
    figures = [
        (f"Confusion: {name}", confusion_png(f"{name} on {capture.name}", found.counts))
        for name, found in measured.evaluations.items()
    ]
    return Report(f"Evaluation on {capture.name}", tables, (), measured.pictures, notes, shown, figures=figures)


def _tables(capture: str, measured: Measurement) -> list[Table]:
    agreement: list[list[Cell]] = [
        [name, found.mean, found.pixels, found.pairs] for name, found in measured.agreements.items()
    ]
    tables = [Table("Agreement between views", ("network", "agreement", "pixels", "pairs of views"), agreement)]
    if measured.evaluations:
        scores = score_table(f"Scores on {capture}", measured.evaluations)
        tables = [scores, *tables, class_table("IoU by class", measured.evaluations)]
    if measured.depths:
        depth: list[list[Cell]] = [
            [name, convention.replace("_", " "), *getattr(found, convention).as_dict().values(), found.frames]
            for convention in CONVENTIONS
            for name, found in measured.depths.items()
        ]
        tables.append(Table("Depth", ("network", "errors", *DEPTH.values(), "frames"), depth))
    return tables


def _numbers(
    capture: str, files: Mapping[str, Path], infos: Mapping[str, CheckpointInfo], measured: Measurement
) -> dict[str, Any]:
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
        if name in measured.depths:
            entry["depth"] = asdict(measured.depths[name])
        content["networks"][name] = entry
    return content
