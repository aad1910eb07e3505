"""``s4net convert``: any capture to a rosbag2 recording or a scene folder, and source sets to smaller ones."""

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, get_args

from rich.console import Console
from rich.progress import track

from s4net_core.cli.options import add_labels_option, add_settings_options, labels_from, settings_from
from s4net_core.errors import CaptureError
from s4net_core.frames import Frame, FrameSource
from s4net_core.geometry.camera import rescale_frame
from s4net_core.io.bag_storage import is_bag
from s4net_core.io.captures import open_capture
from s4net_core.io.rosbag_writer import write_bag
from s4net_core.io.scene_folder import write_scene_folder
from s4net_core.io.source_set import LabelledImage, write_source_set
from s4net_core.io.source_sets import Split, open_source_set

Item = TypeVar("Item", covariant=True)

EPILOG = """examples:
  s4net convert rgbd_dataset_freiburg1_xyz fr1_xyz                   # a bag that `s4net play` and `ros2 bag play` play
  s4net convert recording.mcap room --format scene                   # plain images
  s4net convert room small --format scene --size 320x240 --stride 2  # every second frame, smaller
  s4net convert source small --format source-set --size 160x120      # labelled images
  s4net convert scans source --format source-set --labels nyu40      # ids of ScanNet to those used here
  s4net convert SUNRGBD source --format source-set --split test      # SUN RGB-D, as published, to plain images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="scene folder, bag, TUM or 7-Scenes folder, or labelled source set")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument(
        "--format", choices=("rosbag2", "scene", "source-set"), default="rosbag2", help="what to write (%(default)s)"
    )
    parser.add_argument("--size", type=_size, metavar="WxH", help="resize to this many pixels, e.g. 320x240")
    parser.add_argument("--stride", type=_positive, default=1, metavar="N", help="take every n-th frame (%(default)s)")
    parser.add_argument("--rate", type=_rate, metavar="HZ", help="give the frames new stamps, evenly at this rate")
    parser.add_argument("--no-depth", action="store_true", help="leave depth out")
    add_labels_option(parser)
    parser.add_argument(
        "--split", choices=get_args(Split), default="train", help="part of a source set that has parts (%(default)s)"
    )
    parser.add_argument("--poses", default="", metavar="FILE", help="poses of a scene folder, e.g. poses_noisy.txt")
    parser.add_argument(
        "--quality", type=_quality, default=90, metavar="1..100", help="of JPEG; 100 in a scene folder = PNG"
    )
    bag = parser.add_argument_group("rosbag2")
    bag.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="storage plugin (%(default)s)")
    bag.add_argument("--color", choices=("raw", "jpeg"), default="raw", help="transport of colour (%(default)s)")
    bag.add_argument(
        "--depth", choices=("raw", "compressedDepth"), default="raw", help="transport of depth (%(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace OUTPUT where it is a capture or source set")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert into a folder beside the output and put it in place when it is complete."""
    _check_paths(args.source, args.output, args.force)
    console = Console()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent, prefix=".convert-") as folder:
        finished = Path(folder) / args.output.name  # a bag names its files after its folder
        convert = _convert_source_set if args.format == "source-set" else _convert_capture
        message = convert(args, finished, console)
        if args.output.exists():
            shutil.rmtree(args.output)
        finished.replace(args.output)
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    console.print(f"{args.output}: {message}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    return 0


def _check_paths(source: Path, output: Path, force: bool) -> None:
    """Refuse whatever would lose data.

    Raises:
        CaptureError: saying what to do instead.
    """
    if source.exists() and (output.resolve() == source.resolve() or output.resolve() in source.resolve().parents):
        raise CaptureError(f"output {output} holds the source {source}: give another folder")
    if not output.exists():
        return
    if not force:
        raise CaptureError(f"{output} exists already: give another folder, or --force to replace it")
    if not output.is_dir() or not (is_bag(output) or (output / "color").is_dir() or not any(output.iterdir())):
        raise CaptureError(f"{output} is neither a capture nor a source set, so --force does not remove it")


def _convert_capture(args: argparse.Namespace, output: Path, console: Console) -> str:
    stream = settings_from(args).stream
    capture = open_capture(args.source, stream=stream, poses=args.poses, map_labels=labels_from(args))
    frames = _prepared(_tracked(capture, console), args)
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
    return f"{count} frames{_left_out(capture)}"


def _convert_source_set(args: argparse.Namespace, output: Path, console: Console) -> str:
    source = open_source_set(args.source, split=args.split, with_depth=not args.no_depth, map_labels=labels_from(args))
    positions = range(0, len(source), args.stride)
    images = (_resized(source[position], args.size) for position in _tracked(positions, console))
    return f"{write_source_set(output, images, quality=args.quality)} labelled images"


def _resized(image: LabelledImage, size: tuple[int, int] | None) -> LabelledImage:
    return image.resized(*size) if size else image


def _prepared(frames: Iterable[Frame], args: argparse.Namespace) -> Iterator[Frame]:
    """Frames as they are written: every n-th, resized, restamped, with or without depth."""
    first = None
    for index, frame in enumerate(islice(frames, 0, None, args.stride)):
        first = frame.stamp if first is None else first
        if args.size:
            frame = rescale_frame(frame, *args.size)
        if args.rate:
            frame = replace(frame, stamp=first + round(index * 1e9 / args.rate))
        yield replace(frame, depth=None) if args.no_depth else frame


def _left_out(capture: FrameSource) -> str:
    if not capture.skipped:
        return ""
    return " (left out: " + ", ".join(f"{count} {reason}" for reason, count in capture.skipped.items()) + ")"


class _Countable(Protocol[Item]):
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Item]: ...


def _tracked(items: _Countable[Item], console: Console) -> Iterable[Item]:
    return track(items, "converting", total=len(items) or None, console=console, disable=not console.is_terminal)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return _positive(width), _positive(height)


def _positive(text: str) -> int:
    return _number(text, 1, 10**6)


def _quality(text: str) -> int:
    return _number(text, 1, 100)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not above 0")
    return value


def _number(text: str, lowest: int, highest: int) -> int:
    value = int(text) if text.isdecimal() else 0
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} to {highest}")
    return value
