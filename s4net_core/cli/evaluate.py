"""``s4net evaluate``: measure networks on one capture, against its labels if any, or on many scenes as in the paper."""

import argparse
from pathlib import Path

from rich.console import Console

from s4net_core.cli.options import add_poses_option, add_settings_options, settings_from
from s4net_core.cli.output import progress_bar, say_left_out
from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.tables import to_markdown, to_rich
from s4net_core.files import check_writable, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", help="weights file to measure, or auto or demo")
    parser.add_argument("--baseline", help="weights file to compare it with, e.g. the base model, or auto or demo")
    parser.add_argument("--capture", type=Path, help="capture of any format, e.g. a scene folder or a bag")
    add_poses_option(parser)
    parser.add_argument("--report", type=Path, help="write an HTML report with pictures")
    parser.add_argument("--json", type=Path, help="write the numbers as JSON")
    parser.add_argument("--csv", type=Path, help="write the scores as CSV")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--pictures", type=int, default=6, help="number of pictures in the report (default: 6)")
    group = parser.add_argument_group("many networks and scenes", "in place of --checkpoint and --capture")
    group.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="METHOD=FILE",
        help="a row of the table: the training method and its weights file, or auto or demo; {scene} in FILE stands "
        "for the scene's name; may be repeated",
    )
    group.add_argument(
        "--scene",
        action="append",
        default=[],
        metavar="NAME=SCAN1[,SCAN2]",
        help="captures of one place: the one adapted to, then others that were not; may be repeated",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for results.md, .csv, .html and .json")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; the image size is the checkpoint's unless the settings give one."""
    settings = settings_from(args)
    if args.network or args.scene:
        _evaluate_scenes(args, settings)
    else:
        _evaluate_capture(args, settings)
    return 0


def _evaluate_scenes(args: argparse.Namespace, settings: Settings) -> None:
    """Every network on every scan, in the layout of the paper."""
    unused = [f"--{name}" for name in ("baseline", "report", "json", "csv") if getattr(args, name)]
    if unused:
        raise SettingsError(f"{', '.join(unused)} cannot go with --network and --scene: --out DIR writes all files")
    networks, scenes = _pairs("--network", args.network), _pairs("--scene", args.scene)
    if not networks or not scenes or args.checkpoint or args.capture:
        raise SettingsError("give --network and --scene, each at least once, or --checkpoint and --capture")
    scans = {
        scene: {f"Scan {number}": path for number, path in enumerate(paths.split(","), start=1)}
        for scene, paths in scenes.items()
    }
    from s4net_core.experiments.evaluate_scenes import evaluate_scenes
    from s4net_core.experiments.report import write_experiment_report

    if args.out:
        check_writable(args.out / "results.md")
    report = evaluate_scenes(networks, scans, settings, poses=args.poses)
    if args.markdown:
        print(report.markdown())
    else:
        for table in report.main_tables():
            Console().print(to_rich(table))
    if args.out:
        write_experiment_report(args.out, report)


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise SettingsError(f"{option} is '{text}': write NAME=VALUE, as `s4net evaluate --help` shows")
        if name in pairs:
            raise SettingsError(f"{option} names '{name}' twice: give each a name of its own")
        pairs[name] = value
    return pairs


def _evaluate_capture(args: argparse.Namespace, settings: Settings) -> None:
    """One network, or two beside each other, on one capture."""
    if not args.checkpoint or not args.capture:
        raise SettingsError("give --checkpoint and --capture, or --network and --scene")
    if args.out:
        raise SettingsError("--out belongs to --network and --scene: give --report, --json or --csv FILE")
    check_writable(args.report, args.json, args.csv)
    from s4net_core.evaluation.page import write_page
    from s4net_core.evaluation.summary import summary_tables
    from s4net_core.experiments.evaluate_capture import evaluate_capture
    from s4net_core.io.captures.opening import open_views
    from s4net_core.models.base_model_file import base_model_file
    from s4net_core.models.checkpoint import read_info

    named = {"base": args.baseline, "adapted": args.checkpoint} if args.baseline else {"network": args.checkpoint}
    files = {name: base_model_file(checkpoint, settings.model) for name, checkpoint in named.items()}
    space = read_info(list(files.values())[-1]).label_space
    capture = open_views(args.capture, settings, poses=args.poses, labels=space)
    console = Console()
    with progress_bar(console) as progress:
        task = progress.add_task("evaluate", total=len(capture) or None)
        found = evaluate_capture(
            files,
            capture,
            args.capture,
            settings,
            pictures=max(args.pictures, 0) if args.report else 0,
            on_frame=lambda: progress.advance(task),
            on_view=lambda done, total: progress.update(task, description="compare views", completed=done, total=total),
        )
    for table in summary_tables(found.measured):
        if args.markdown:
            print(f"{table.title}\n\n{to_markdown(table)}")  # not by rich, which would break long lines
        else:
            console.print(to_rich(table))
    say_left_out(capture.skipped, capture.details, Console(stderr=True))
    if args.json:
        write_result(args.json, found.json())
    if args.csv:
        write_result(args.csv, found.csv())
    if args.report:
        write_page(args.report, found.page())
        console.print(f"report: {args.report}")
