"""Entry of the ``s4net`` command: finds the sub-command, runs it, turns errors into messages."""

import argparse
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.logging import RichHandler

from s4net_core import __version__
from s4net_core.cli.state_options import state_path
from s4net_core.errors import S4NetError
from s4net_core.machine.waiting import spin_briefly

EXIT_ERROR = 2
"""Exit code when the input or the settings are at fault."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Args:
        module: module with ``add_arguments(parser)`` and ``run(args) -> int``; with `ros`, one that ``python -m`` runs.
        help: one line.
        ros: runs in a process of its own, because the core imports no ROS.
    """

    module: str
    help: str
    ros: bool = False


COMMANDS = {
    "adapt": Command("s4net_core.cli.adapt", "adapt a network to a capture, offline"),
    "pretrain": Command("s4net_core.cli.pretrain", "train a base model on a labelled source set"),
    "evaluate": Command("s4net_core.cli.evaluate", "measure networks on captures, against labels where there are some"),
    "compare": Command(
        "s4net_core.cli.compare", "measure S4-Net against its control over several seeds; needs a source set"
    ),
    "label": Command("s4net_core.cli.label", "label a whole capture: class ids, pictures, LabelMe annotations"),
    "map": Command("s4net_core.cli.map", "map a capture: the labels of its views, fused in voxels"),
    "experiment": Command("s4net_core.cli.experiment", "run experiments of the paper and write its tables"),
    "convert": Command(
        "s4net_core.cli.convert", "turn a capture into a ROS 2 bag or a scene folder, or shrink a source set"
    ),
    "pack": Command("s4net_core.cli.pack", "turn a source set into one small file at training size"),
    "register": Command("s4net_core.cli.register", "find the poses of an RGB-D capture that has none"),
    "play": Command("s4net_ros.player", "play a bag as live ROS 2 topics", ros=True),
    "live": Command("s4net_ros.live", "run both nodes on a bag or on a camera, without a ROS install", ros=True),
    "cockpit": Command("s4net_ros.cockpit.command", "show in a browser what running nodes learn", ros=True),
    "bench": Command(
        "s4net_core.cli.bench", "measure the cost of a step, a warp, a neighbour query, a live frame, reading images"
    ),
    "export": Command("s4net_core.cli.export", "write a network as an ONNX graph"),
    "import-model": Command("s4net_core.cli.import_model", "make a base model from a network of the Hugging Face hub"),
    "settings": Command("s4net_core.cli.settings", "print every setting with its help, as YAML"),
    "doctor": Command("s4net_core.cli.doctor", "say what this machine has, and what to do about what is missing"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None = those of this process.

    Returns:
        Exit code: 0, the command's own, 2 for unusable input, 130 after Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    spin_briefly()
    command = COMMANDS[args.command]
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("s4net_core").setLevel(logging.INFO)
    try:
        if command.ros:
            return _run_ros(args.command, command.module, args.arguments)
        return _run(args.command, args.arguments)
    except S4NetError as error:
        if args.debug:
            raise
        print(f"s4net {args.command}: {error}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:  # e.g. a name that is too long, or a disk that fails
        if args.debug:
            raise
        where = "" if error.filename is None else f"{error.filename!s:.200}: "
        print(f"s4net {args.command}: {where}{error.strerror or error}: check the path and the disk", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="s4net",
        description="Semantic segmentation that adapts itself to the place it works in.",
        epilog=f"commands:\n{table}\n\n`s4net COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="options of the command")
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """Parser of the sub-command `name`. A command with `ros` needs rclpy for this."""
    command = COMMANDS[name]
    module = importlib.import_module(command.module)  # late: `s4net doctor` must run where NumPy does not
    parser = argparse.ArgumentParser(prog=f"s4net {name}", description=command.help[0].upper() + command.help[1:] + ".")
    module.add_arguments(parser)
    return parser


def _run(name: str, arguments: Sequence[str]) -> int:
    args = command_parser(name).parse_args(arguments)
    try:
        return int(importlib.import_module(COMMANDS[name].module).run(args))
    except KeyboardInterrupt:
        if "resume" in args and state_path(args).exists():
            print(f"s4net {name}: interrupted; the same line with --resume goes on", file=sys.stderr)
        raise


def _run_ros(name: str, module: str, arguments: Sequence[str]) -> int:
    if importlib.util.find_spec("rclpy") is None:
        raise S4NetError(
            "rclpy is not installed, and this command needs ROS 2: source the setup file of your ROS install, "
            "or run `make build` in a checkout of s4net_ros"
        )
    # Replaces this process, so that signals and the exit code are those of the ROS program itself.
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    sys.exit(main())
