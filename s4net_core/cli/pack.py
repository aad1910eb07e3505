"""``s4net pack``: write a source set as one file at training size, small enough for a robot."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.progress import Progress

from s4net_core.cli.options import add_labels_option, add_settings_options, labels_from, settings_from
from s4net_core.errors import SourceSetError
from s4net_core.io.source_sets import Split

if TYPE_CHECKING:
    from s4net_core.io.source_sets.source_set import SourceSet

SUFFIX = ".s4pack"
EPILOG = f"""examples:
  s4net pack SUNRGBD sunrgbd{SUFFIX}                                   # 480x360, both parts of the split, exact
  s4net pack SUNRGBD sunrgbd{SUFFIX} --split train --quality 95         # a quarter of the size
  s4net pack nyu_depth_v2_labeled.mat nyu{SUFFIX} --set model.width=320 --set model.height=240

Then: s4net adapt CAPTURE OUT --source sunrgbd{SUFFIX}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="labelled source set of any format")
    parser.add_argument("output", type=Path, help=f"file to write, e.g. source{SUFFIX}")
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        default="all",
        help="part of the official split, if the source set has one (%(default)s)",
    )
    parser.add_argument(
        "--quality", type=int, default=0, metavar="0..100", help="JPEG quality; 0 = PNG, lossless (%(default)s)"
    )
    parser.add_argument("--no-depth", action="store_true", help="leave depth out")
    add_labels_option(parser)
    parser.add_argument("--force", action="store_true", help="replace OUTPUT")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Pack at `model.width` x `model.height`."""
    model = settings_from(args).model.sized()
    _check(args)
    from s4net_core.io.source_sets.pack_writer import write_pack

    parts = _parts(args)
    console = Console()
    start = time.monotonic()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("pack", total=sum(map(len, parts.values())))
        info = write_pack(
            args.output,
            parts,
            *model.size,
            quality=args.quality,
            source=str(args.source),
            on_image=lambda: progress.advance(task),
        )
    counts = ", ".join(
        f"{count} images" + ("" if name == "all" else f" to {name} on") for name, count in info.parts.items()
    )
    color = f"JPEG {info.quality}" if info.quality else "PNG"
    console.print(
        f"{args.output}: {counts}, {info.width}x{info.height}, {color}, {'with' if info.depth else 'no'} depth, "
        f"{args.output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _parts(args: argparse.Namespace) -> "dict[str, SourceSet]":
    """Parts of the official split to pack; the only key is "all" where the source set has no split."""
    from s4net_core.io.source_sets.opening import official_parts, open_source_set

    official = official_parts(args.source)
    splits: tuple[Split, ...] = (args.split,) if official and args.split != "all" else official or ("all",)
    labels = labels_from(args)
    return {
        split: open_source_set(args.source, split=split, with_depth=not args.no_depth, map_labels=labels)
        for split in splits
    }


def _check(args: argparse.Namespace) -> None:
    """Refuse an unusable quality, and an output that would overwrite data.

    Raises:
        SourceSetError: the quality is out of range, or the output is the source set, a folder, or exists.
    """
    if not 0 <= args.quality <= 100:
        raise SourceSetError(f"--quality {args.quality} is not from 0 (PNG) to 100")
    if args.output.exists() and args.output.resolve() == args.source.resolve():
        raise SourceSetError(f"{args.output} is the source set itself: give another file")
    if args.output.is_dir() or (args.output.exists() and not args.force):
        raise SourceSetError(f"{args.output} exists already: give another file, or --force to replace a file")
