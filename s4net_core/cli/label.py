"""``s4net label``: automatic labels for a whole capture."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from s4net_core.cli.options import add_poses_option, add_quality_option, add_settings_options, positive, settings_from
from s4net_core.cli.output import add_force_option, complete_folder, left_out, say_written, tracked
from s4net_core.config import Settings
from s4net_core.frames import Frame
from s4net_core.io.captures import EXTRAS

EPILOG = """OUTPUT is a scene folder: color/, depth/, poses, label/N.png (class ids, 0 = unlabelled), and beside them
label_color/N.png, overlay/N.jpg and labelme/N.json, where the network's labels can be corrected by hand:
  labelme OUTPUT/color --output OUTPUT/labelme
Wherever the folder is read, labelme/ wins over label/.

examples:
  s4net label room.mcap labelled --checkpoint adapted.safetensors
  s4net label room labelled --checkpoint adapted.safetensors --min-confidence 0.6 --write overlay
  s4net label room todo --checkpoint adapted.safetensors --stride 50 --tolerance 1.5   # a start for annotating by hand
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "capture",
        type=Path,
        help="capture of any format, with poses: they are written beside the labels; its own labels are not used",
    )
    parser.add_argument("output", type=Path, help="scene folder to write")
    parser.add_argument(
        "--checkpoint", required=True, help="weights file, e.g. one that s4net adapt wrote; or auto or demo"
    )
    add_poses_option(parser)
    parser.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="leave pixels below this probability unlabelled; short for --set segmentation.min_confidence=P",
    )
    parser.add_argument("--stride", type=positive, default=1, metavar="N", help="label every n-th frame (%(default)s)")
    parser.add_argument(
        "--write",
        nargs="*",
        choices=EXTRAS,
        default=list(EXTRAS),
        metavar="WHAT",
        help=f"what to write beside label/: {', '.join(EXTRAS)}, or nothing (default: all)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="PX",
        help="how far LabelMe's polygons may deviate from the labels; more = fewer corners to edit (%(default)s)",
    )
    add_quality_option(parser)
    add_force_option(parser)
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Label into a folder beside the output and put it in place when it is complete."""
    if args.min_confidence is not None:
        args.overrides.append(f"segmentation.min_confidence={args.min_confidence}")
    settings, console = settings_from(args), Console()
    with complete_folder(args.capture, args.output, force=args.force) as folder:
        message = _label(args, settings, folder, console)
    say_written(args.output, message, console)
    return 0


def _label(args: argparse.Namespace, settings: Settings, folder: Path, console: Console) -> str:
    from s4net_core.io.captures.labelled_scene import write_labelled_scene
    from s4net_core.io.captures.opening import open_views
    from s4net_core.models.base_model_file import base_model_file
    from s4net_core.models.segmenter import Segmenter

    segmenter = Segmenter(base_model_file(args.checkpoint, settings.model), settings.device, settings)
    capture = open_views(args.capture, settings, poses=args.poses, stride=args.stride)
    frames, shares = tracked(capture, "labelling", console), _Shares()
    count = write_labelled_scene(
        folder,
        shares.watched(replace(frame, label=segmenter.segment(frame.color).label) for frame in frames),
        segmenter.info.label_space,
        args.write,
        alpha=settings.segmentation.overlay_alpha,
        tolerance=args.tolerance,
        quality=args.quality,
    )
    return f"{count} frames{left_out(capture.skipped)}, {shares.labelled:.1%} of the pixels labelled"


class _Shares:
    """Counts the labelled pixels of all frames."""

    def __init__(self) -> None:
        self._labelled = self._pixels = 0

    @property
    def labelled(self) -> float:
        """Share of the pixels that are labelled, 0..1."""
        return self._labelled / max(self._pixels, 1)

    def watched(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames unchanged and count their labelled pixels."""
        for frame in frames:
            if frame.label is not None:
                self._labelled += np.count_nonzero(frame.label)
                self._pixels += frame.label.size
            yield frame
