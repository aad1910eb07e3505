"""``s4net convert``: turn a capture into a rosbag2 recording or a scene folder, or shrink a source set."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console

from s4net_core.cli.options import (
    add_labels_option,
    add_poses_option,
    add_quality_option,
    add_settings_options,
    labels_from,
    positive,
    settings_from,
)
from s4net_core.cli.output import add_force_option, complete_folder, left_out, say_left_out, say_written, tracked
from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError, SettingsError
from s4net_core.frames import Frame, decoded
from s4net_core.io.source_sets import Split

if TYPE_CHECKING:
    from s4net_core.io.source_sets.source_set import LabelledImage

EPILOG = """examples:
  s4net convert rgbd_dataset_freiburg1_xyz fr1_xyz                   # a bag for `s4net play` or `ros2 bag play`
  s4net convert recording.mcap room --format scene                   # plain images
  s4net convert room small --format scene --size 320x240 --stride 2  # every second frame, smaller
  s4net convert scans/scene0000_00 flat --format scene --stride 10   # a scan of ScanNet, every tenth frame
  s4net convert room second --format scene --frames 300:             # all but the first 300 frames
  s4net convert recording.bag room --poses slam.txt                  # a RealSense recording with poses from a file
  s4net convert source small --format source-set --size 160x120      # labelled images
  s4net convert scans source --format source-set --labels nyu40      # ScanNet's class ids to SUN RGB-D 37
  s4net convert SUNRGBD source --format source-set --split test      # SUN RGB-D, as published, to plain images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="capture of any format, or labelled source set")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument(
        "--format",
        choices=("rosbag2", "scene", "source-set"),
        default="rosbag2",
        help="what to write; a bag has no labels (%(default)s)",
    )
    parser.add_argument("--size", type=_size, metavar="WxH", help="resize to this many pixels, e.g. 320x240")
    parser.add_argument("--stride", type=positive, default=1, metavar="N", help="take every n-th frame (%(default)s)")
    parser.add_argument(
        "--frames",
        type=_frames,
        metavar="START:STOP[:STEP]",
        help="take these frames alone, counted from 0, STOP left out: `:300` for the first 300, `300:` for the rest",
    )
    parser.add_argument(
        "--rate", type=_rate, metavar="HZ", help="replace the stamps by evenly spaced ones at this rate"
    )
    parser.add_argument("--no-depth", action="store_true", help="leave depth out")
    add_labels_option(parser)
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        default="train",
        help="part of the official split, if the source set has one (%(default)s)",
    )
    add_poses_option(parser)
    add_quality_option(parser)
    bag = parser.add_argument_group("rosbag2")
    bag.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="storage plugin (%(default)s)")
    bag.add_argument("--color", choices=("raw", "jpeg"), default="raw", help="transport of colour (%(default)s)")
    bag.add_argument(
        "--depth",
        choices=("raw", "32FC1", "compressedDepth"),
        default="raw",
        help="encoding of depth: raw = 16UC1, millimetres; 32FC1 = metres; compressedDepth = PNG (%(default)s)",
    )
    add_force_option(parser)
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert into a folder beside the output and put it in place when it is complete."""
    console, stream = Console(), settings_from(args).stream
    if args.frames and args.stride > 1:
        raise SettingsError("--frames and --stride both leave frames out: write the stride as --frames START:STOP:STEP")
    with complete_folder(args.source, args.output, force=args.force) as folder:
        if args.format == "source-set":
            message = _convert_source_set(args, folder, console)
        else:
            message = _convert_capture(args, stream, folder, console)
    say_written(args.output, message, console)
    return 0


def _convert_capture(args: argparse.Namespace, stream: StreamSettings, output: Path, console: Console) -> str:
    from s4net_core.io.bags.writer import write_bag
    from s4net_core.io.captures.indexed import no_frames
    from s4net_core.io.captures.opening import open_capture
    from s4net_core.io.captures.scene_folder import write_scene_folder

    capture = open_capture(
        args.source,
        stream=stream,
        poses=args.poses,
        map_labels=labels_from(args),
        stride=args.stride,
        with_depth=not args.no_depth,
    )
    chosen = args.frames or slice(None)
    views = islice(capture.views(), chosen.start, chosen.stop, chosen.step)
    total = len(range(len(capture))[chosen]) or None
    labelled = 0

    def counted() -> Iterator[Frame]:
        nonlocal labelled
        count = 0
        for frame in decoded(tracked(views, "converting", console, total)):
            count += 1
            labelled += frame.label is not None
            yield frame
        if not count and capture.skipped:
            raise no_frames(args.source, capture.skipped, capture.details)
        if not count and args.frames:
            raise CaptureError(f"--frames leaves no frame of {args.source}: begin earlier, and end after the beginning")

    frames = _prepared(counted(), args)
    if args.format == "scene":
        count = write_scene_folder(output, frames, quality=args.quality)
    else:
        count = write_bag(
            output,
            frames,
            color=args.color,
            depth=args.depth,
            storage=args.storage,
            fixed_frame=stream.fixed_frame,
            quality=args.quality,
        )
    say_left_out(capture.skipped, capture.details, console)
    dropped = labelled if args.format == "rosbag2" else 0
    without = (
        f"; a bag has no place for labels, which {dropped} of them have: --format scene keeps them" if dropped else ""
    )
    return f"{count} frames{without}{left_out(capture.skipped)}"


def _convert_source_set(args: argparse.Namespace, output: Path, console: Console) -> str:
    from s4net_core.io.source_sets.files import write_source_set
    from s4net_core.io.source_sets.opening import open_source_set

    source = open_source_set(args.source, split=args.split, with_depth=not args.no_depth, map_labels=labels_from(args))
    positions = range(0, len(source), args.stride)[args.frames or slice(None)]
    if args.frames and not positions:
        raise CaptureError(f"--frames leaves none of the {len(source)} images of {args.source}: begin earlier")
    images = (_resized(source[position], args.size) for position in tracked(positions, "converting", console))
    return f"{write_source_set(output, images, quality=args.quality, label_space=source.label_space)} labelled images"


def _resized(image: "LabelledImage", size: tuple[int, int] | None) -> "LabelledImage":
    return image.resized(*size) if size else image


def _prepared(frames: Iterable[Frame], args: argparse.Namespace) -> Iterator[Frame]:
    """Frames as they are written: resized, restamped, with or without depth."""
    from s4net_core.geometry.camera import rescale_frame

    first = None
    for index, frame in enumerate(frames):
        first = frame.stamp if first is None else first
        if args.size:
            frame = rescale_frame(frame, *args.size)
        if args.rate:
            frame = replace(frame, stamp=first + round(index * 1e9 / args.rate))
        yield replace(frame, depth=None) if args.no_depth else frame


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return positive(width), positive(height)


def _frames(text: str) -> slice:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(part.isdecimal() or not part for part in parts) or parts[2:] == ["0"]:
        raise argparse.ArgumentTypeError(f"'{text}' is not START:STOP or START:STOP:STEP, counted from 0 forwards")
    return slice(*(min(int(part), sys.maxsize) if part else None for part in parts))


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a rate above 0, up to 1000000 Hz")
    return value
