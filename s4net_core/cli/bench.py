"""``s4net bench``: measure the cost of each part against a comparison in the same run."""

import argparse
import os
import sys
from pathlib import Path

from s4net_core.bench.table import CASES, print_rows
from s4net_core.cli.options import (
    add_learning_options,
    learning_settings_from,
    overrides_from,
    positive,
    settings_from,
)
from s4net_core.errors import SettingsError
from s4net_core.files import share_file

ROS_CASES = {
    "live": "s4net_ros.replay.bench",
    "live --learning": "s4net_ros.replay.bench_learning",
    "start": "s4net_ros.replay.bench_start",
    "soak": "s4net_ros.replay.bench_soak",
    "stream": "s4net_ros.replay.bench_stream",
}
"""Modules that measure with nodes; their arguments are the settings file, a number, the capture, and overrides."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    cases = "; ".join(f"{name}: {text}" for name, text in CASES.items())
    parser.add_argument("case", choices=CASES, help=cases)
    parser.add_argument(
        "--capture",
        type=Path,
        help="capture for `step`, `soak` and `live --learning` (default: the demo's)",
    )
    parser.add_argument(
        "--learning", action="store_true", help="case `live`: the labels while the network learns, beside those without"
    )
    parser.add_argument("--repeats", type=positive, default=20, help="how often each part is measured (%(default)s)")
    parser.add_argument("--minutes", type=positive, default=15, help="how long the case `soak` takes (%(default)s)")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure one case and print its table.

    Raises:
        SettingsError: an option belongs to another case, or a setting cannot be used.
    """
    if args.learning and args.case != "live":
        raise SettingsError(f"--learning belongs to the case live, not to {args.case}")
    if args.case in ("warp", "neighbours"):
        settings = settings_from(args)
        from s4net_core.bench.geometry import bench_neighbours, bench_warp
        from s4net_core.models.predict import pick_device

        device = str(pick_device(settings.device))
        rows = bench_warp(repeats=args.repeats, device=device) if args.case == "warp" else bench_neighbours()
    elif args.case == "ingest":
        settings_from(args)  # its limits hold for the whole process
        from s4net_core.bench.ingest import bench_ingest

        rows = bench_ingest(repeats=args.repeats)
    elif args.case == "map":
        settings_from(args)
        from s4net_core.bench.mapping import bench_map

        rows = bench_map(repeats=args.repeats)
    else:
        if args.settings is None:
            args.settings = share_file("demo", "demo.yaml")
            args.checkpoint = args.checkpoint or share_file("demo", "weights", "base.safetensors")
            args.source = args.source or share_file("demo", "source")
        settings, capture = learning_settings_from(args), args.capture or share_file("demo", "capture")
        case = args.case + " --learning" * args.learning
        if case in ROS_CASES:  # in a process of its own, because the core imports no ROS
            number = args.minutes if case == "soak" else args.repeats
            given = [str(args.settings), str(number), str(capture), *overrides_from(args)]
            os.execv(sys.executable, [sys.executable, "-m", ROS_CASES[case], *given])
        if args.case == "source":
            from s4net_core.bench.source import bench_source

            rows = bench_source(settings, repeats=args.repeats)
        else:
            from s4net_core.bench.step import bench_step

            rows = bench_step(settings, capture, steps=args.repeats)
    print_rows(CASES[args.case], rows)
    return 0
