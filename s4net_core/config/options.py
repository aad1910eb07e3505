"""Options of programs that read settings."""

import argparse
from pathlib import Path


def add_settings_file_options(parser: "argparse._ActionsContainer", file: str = "") -> None:
    """Add ``--settings`` and ``--set`` alone.

    Args:
        parser: or a group of one.
        file: which settings are read without the option, for the help; empty = the defaults.
    """
    default = f" (default: {file})" if file else ""
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"YAML file, or a ROS parameters file{default}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="one setting, e.g. learner.learning_rate=1e-4; may be repeated; wins over the file",
    )
