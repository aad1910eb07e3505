"""The part of ``s4net evaluate`` that measures several networks on several scenes, in the layout of the paper."""

import argparse
from pathlib import Path

from rich.console import Console

from s4net_core.config import Settings, changed_settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.paper_report import PaperReport, write_paper_report
from s4net_core.evaluation.provenance import Provenance, data_sha256, settings_of
from s4net_core.evaluation.report import to_rich
from s4net_core.evaluation.results import Result
from s4net_core.io.captures.opening import open_capture
from s4net_core.learning.compare import measure_scans
from s4net_core.models.checkpoint import file_sha256, read_info, with_size_of


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("many networks and scenes", "in place of --checkpoint and --capture")
    group.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="METHOD=FILE",
        help="weights file and how it was trained: a row of the table; {scene} in FILE is the scene's name; may "
        "be repeated",
    )
    group.add_argument(
        "--scene",
        action="append",
        default=[],
        metavar="NAME=SCAN1[,SCAN2]",
        help="captures of one place: the one adapted to, and one that was never seen; may be repeated",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for results.md, .csv, .html and .json")


def run_scenes(args: argparse.Namespace, settings: Settings) -> int:
    """Measure every network on every scan, print the tables, and write them.

    Raises:
        SettingsError: an option is missing, has no meaning here, or is not NAME=VALUE.
    """
    unused = [f"--{name}" for name in ("baseline", "report", "json", "csv") if getattr(args, name)]
    if unused:
        raise SettingsError(f"{', '.join(unused)} belongs to --checkpoint and --capture: --out writes all files here")
    networks, scenes = _pairs("--network", args.network), _pairs("--scene", args.scene)
    if not networks or not scenes or args.checkpoint or args.capture:
        raise SettingsError("give --network and --scene, each at least once, or --checkpoint and --capture")
    results: list[Result] = []
    weights: dict[str, str] = {}
    data: dict[str, str] = {}
    for scene, paths in scenes:
        scans = {f"Scan {i}": path for i, path in enumerate(paths.split(","), start=1)}
        data |= {f"{scene}, {scan}": data_sha256(path) for scan, path in scans.items()}
        with_depth = settings.geometry.from_sensor
        captures = {
            scan: open_capture(path, stream=settings.stream, poses=args.poses, with_depth=with_depth)
            for scan, path in scans.items()
        }
        for method, file in networks:
            path = Path(file.replace("{scene}", scene))
            fitting = with_size_of(settings, read_info(path))
            results += measure_scans(path, fitting, captures, method=method, scene=scene)
            weights[f"{method}, {scene}"] = file_sha256(path)
    origin = Provenance(settings_of(settings), changed_settings(settings), weights=weights, data=data)
    report = PaperReport("Evaluation", results, {"Evaluation": origin})
    if args.markdown:
        print(report.markdown())
    else:
        for table in report.main_tables():
            Console().print(to_rich(table))
    if args.out:
        write_paper_report(args.out, report)
    return 0


def _pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for text, (name, _, value) in zip(texts, pairs, strict=True):
        if not name or not value:
            raise SettingsError(f"{option} is '{text}': write NAME=VALUE, as `s4net evaluate --help` shows")
    return [(name, value) for name, _, value in pairs]
