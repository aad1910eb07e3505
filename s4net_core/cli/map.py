"""``s4net map``: the semantic map of a capture."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from s4net_core.cli.options import add_poses_option, add_settings_options, positive, settings_from
from s4net_core.cli.output import left_out, tracked
from s4net_core.config import Settings
from s4net_core.errors import CaptureError
from s4net_core.files import check_map_name, check_writable
from s4net_core.frames import Capture
from s4net_core.labels import LabelSpace

if TYPE_CHECKING:
    from s4net_core.mapping.offline import MapScore

EPILOG = """OUTPUT.npz holds all votes and is what the node semantic_map loads; OUTPUT.ply is a point cloud with colour,
label (class id) and confidence, in binary PLY, e.g. for Open3D or CloudCompare.

examples:
  s4net map room.mcap room.npz --checkpoint adapted.safetensors
  s4net map room room.ply --checkpoint adapted.safetensors --set map.voxel_size=0.03
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("capture", type=Path, help="capture of any format, with poses and depth")
    parser.add_argument("output", type=Path, help="file to write, .npz or .ply; one that is there is replaced")
    parser.add_argument(
        "--checkpoint", required=True, help="weights file, e.g. one that s4net adapt wrote; or auto or demo"
    )
    add_poses_option(parser)
    parser.add_argument(
        "--stride", type=positive, default=1, metavar="N", help="look at every n-th frame (%(default)s)"
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Map, write, and compare with the labels of the capture if it has some."""
    check_map_name(args.output)
    check_writable(args.output)
    settings = settings_from(args)
    from s4net_core.mapping.map_file import check_replaceable
    from s4net_core.mapping.offline import map_of, score_map
    from s4net_core.models.base_model_file import base_model_file
    from s4net_core.models.segmenter import Segmenter

    check_replaceable(args.output)
    segmenter = Segmenter(base_model_file(args.checkpoint, settings.model), settings.device, settings)
    labels = segmenter.info.label_space
    console = Console()
    capture = _open(args, settings, labels, console)
    start = time.perf_counter()
    views = tracked(capture.views(), "mapping", console, len(capture))
    found = map_of(views, segmenter)
    seconds = time.perf_counter() - start
    found.save(args.output)
    text = f"{len(found)} voxels of {found.keyframes} keyframes in {seconds:.1f} s{left_out(capture.skipped)}"
    console.print(f"{args.output}: {text}, {args.output.stat().st_size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    if found.refused:
        console.print(
            f"{found.refused} times a voxel was left out: raise map.max_voxels or map.voxel_size", style="red"
        )
    score = score_map(found, tracked(capture, "comparing", console), segmenter)
    if score is not None:
        _say(score, console)
    return 0


def _open(args: argparse.Namespace, settings: Settings, space: LabelSpace, console: Console) -> Capture:
    """The capture, with its labels unless they are of other classes: a map can be made without them."""
    from s4net_core.io.captures.opening import open_views

    try:
        return open_views(args.capture, settings, labels=space, poses=args.poses, stride=args.stride)
    except CaptureError as error:
        capture = open_views(args.capture, settings, poses=args.poses, stride=args.stride)
        console.print(f"the map is not compared with labels: {error}", style="yellow", highlight=False, soft_wrap=True)
        return capture


def _say(score: "MapScore", console: Console) -> None:
    console.print(
        f"pixel accuracy on {score.frames} labelled frames: {score.frame:.1%} of single frames, {score.map:.1%} of the "
        f"map read back into them (it answers for {score.answered:.1%} of the pixels; for the others the frame's label "
        "stands in)",
        highlight=False,
        soft_wrap=True,
    )
