"""``s4net register``: poses for a capture that has none."""

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from s4net_core.cli.options import add_quality_option, add_settings_options, positive, settings_from
from s4net_core.cli.output import add_force_option, complete_folder, left_out, progress_bar, say_written, tracked
from s4net_core.config import Settings
from s4net_core.errors import CaptureError
from s4net_core.io.captures.trajectory import UNKNOWN_POSES, write_tum_poses

if TYPE_CHECKING:
    from s4net_core.frames import Capture
    from s4net_core.io.captures.trajectory import Poses
    from s4net_core.registration.register import Registration

EPILOG = """Image features give a first alignment of two views, and Open3D's RGB-D odometry refines it. Views are also
tied to earlier views of the same place. A pose graph then fits all ties. Views that cannot be tied to the rest
are left out and counted.

examples:
  s4net register recording.mcap room                     # a scene folder with poses, for s4net adapt
  s4net register recording.mcap poses.txt                # the poses alone: s4net adapt ... --poses poses.txt
  s4net register recording.mcap room --stride 3          # every third image: faster; a few cm between images are fine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("capture", type=Path, help="RGB-D capture of any format; its own poses are not used")
    parser.add_argument("output", type=Path, help="scene folder to write, or NAME.txt for the poses alone (TUM text)")
    parser.add_argument("--stride", type=positive, default=1, metavar="N", help="take every n-th image (%(default)s)")
    parser.add_argument("--frames", type=positive, metavar="N", help="take only the first n images, to try settings")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare with the capture's own poses: absolute trajectory error after the best rigid fit",
    )
    add_quality_option(parser)
    add_force_option(parser)
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Register, write the result, and print how well the views fit."""
    settings, console = settings_from(args), Console()
    if args.output.suffix == ".txt":
        if args.output.exists() and not args.force:
            raise CaptureError(f"{args.output} exists already: give another file, or --force to replace it")
        true = _own_poses(args, settings)
        capture, found = _register(args, settings, console)
        write_tum_poses(args.output, found.poses)
        message = f"{_summary(found, true)}{left_out(capture.skipped)}"
        console.print(f"{args.output}: {message}", highlight=False, soft_wrap=True)
        return 0
    from s4net_core.io.captures.scene_folder import write_scene_folder

    with complete_folder(args.capture, args.output, force=args.force) as folder:
        true = _own_poses(args, settings)
        _, found = _register(args, settings, console)
        capture = _opened(args, settings, found)
        frames = islice(tracked(capture, "writing", console), args.frames)
        write_scene_folder(folder, frames, quality=args.quality)
        message = f"{_summary(found, true)}{left_out(capture.skipped)}"
    say_written(args.output, message, console)
    return 0


def _opened(args: argparse.Namespace, settings: Settings, poses: "str | Poses" = "") -> "Capture":
    from s4net_core.io.captures.opening import open_capture

    return open_capture(args.capture, stream=settings.stream, poses=poses, stride=args.stride)


def _own_poses(args: argparse.Namespace, settings: Settings) -> dict[int, NDArray[np.float64]]:
    """T_world_camera by stamp for ``--check``, else nothing; read before the work, which may take minutes."""
    if not args.check:
        return {}
    _opened(args, settings, UNKNOWN_POSES)  # so that what follows fails because of the poses
    try:
        views = islice(_opened(args, settings).views(), args.frames)
        return {view.stamp: view.T_world_camera for view in views}
    except CaptureError as error:
        raise CaptureError(
            f"--check compares with known poses, and {args.capture} has none that can be read: leave it out ({error})"
        ) from error


def _register(args: argparse.Namespace, settings: Settings, console: Console) -> "tuple[Capture, Registration]":
    from s4net_core.registration.register import register

    capture = _opened(args, settings, UNKNOWN_POSES)
    count = min(len(capture), args.frames or len(capture))
    with progress_bar(console) as progress:
        task = progress.add_task("register", total=count or None)
        found = register(islice(capture, args.frames), settings, on_frame=lambda: progress.advance(task))
    return capture, found


def _summary(found: "Registration", true: dict[int, NDArray[np.float64]]) -> str:
    summary = (
        f"{len(found.poses)} of {found.frames} images registered ({len(found.poses) / found.frames:.0%}), "
        f"{found.keyframes} keyframes, {found.loops} loops closed, {found.pruned} dropped; "
        f"fitness {found.fitness:.3f}, inlier RMSE {found.rmse * 1000:.1f} mm"
    )
    if true:
        from s4net_core.registration.register import trajectory_error

        summary += f", trajectory error {trajectory_error(found.poses, true) * 1000:.1f} mm"
    return summary
