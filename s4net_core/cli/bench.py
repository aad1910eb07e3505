"""``s4net bench``: measure the cost of each part against a comparison in the same run."""

import argparse
import os
import sys
from pathlib import Path

from s4net_core.bench.geometry import bench_neighbours, bench_warp
from s4net_core.bench.ingest import bench_ingest
from s4net_core.bench.mapping import bench_map
from s4net_core.bench.source import bench_source
from s4net_core.bench.step import bench_step
from s4net_core.bench.table import CASES, print_rows
from s4net_core.cli.options import (
    add_learning_options,
    learning_settings_from,
    overrides_from,
    positive,
    settings_from,
)
from s4net_core.models.predict import pick_device

DEMO = Path(__file__).resolve().parents[2] / "demo"
ROS_CASES = {"live": "s4net_ros.replay.bench", "stream": "s4net_ros.replay.bench_stream"}
"""Modules that measure with nodes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    cases = "; ".join(f"{name}: {text}" for name, text in CASES.items())
    parser.add_argument("case", choices=CASES, help=cases)
    parser.add_argument(
        "--capture", type=Path, default=DEMO / "capture", help="capture for the case `step` (default: the demo's)"
    )
    parser.add_argument("--repeats", type=positive, default=20, help="how often each part is measured (%(default)s)")
    add_learning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure one case and print its table."""
    if args.case in ("warp", "neighbours"):
        device = str(pick_device(settings_from(args).device))
        rows = bench_warp(repeats=args.repeats, device=device) if args.case == "warp" else bench_neighbours()
    elif args.case == "ingest":
        rows = bench_ingest(repeats=args.repeats)
    elif args.case == "map":
        rows = bench_map(repeats=args.repeats)
    else:
        if args.settings is None:
            args.settings = DEMO / "demo.yaml"
            args.checkpoint = args.checkpoint or DEMO / "weights" / "base.safetensors"
            args.source = args.source or DEMO / "source"
        settings = learning_settings_from(args)
        if args.case in ROS_CASES:  # in a process of its own, because the core imports no ROS
            module = [sys.executable, "-m", ROS_CASES[args.case]]
            os.execv(sys.executable, [*module, str(args.settings), str(args.repeats), *overrides_from(args)])
        if args.case == "source":
            rows = bench_source(settings, repeats=args.repeats)
        else:
            rows = bench_step(settings, args.capture, steps=args.repeats)
    print_rows(CASES[args.case], rows)
    return 0
