"""``s4net cockpit``: the cockpit beside nodes that run already, however they were started."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from s4net_core.config import load_settings
from s4net_core.config.options import add_settings_file_options
from s4net_core.errors import S4NetError
from s4net_core.files import share_file
from s4net_ros.graph import ARGUMENTS, cockpit_spec, fastdds_environment
from s4net_ros.replay.plan import with_overrides

USED = ("camera_name", "camera_namespace", "namespace", "log_level", "fastdds_profile")
"""Arguments of the launch files that say where the nodes and the camera's topics are."""
EPILOG = "Its own settings are the group cockpit, e.g. --set cockpit.port=8651; all others are asked of the nodes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EPILOG
    add_settings_file_options(parser, "config/adapt.yaml")
    group = parser.add_argument_group("graph", "as of the launch files")
    for argument in ARGUMENTS:
        if argument.name in USED:
            flag, choices = f"--{argument.name.replace('_', '-')}", argument.choices or None
            group.add_argument(flag, default=argument.default, choices=choices, help=argument.help)


def ros_arguments(args: argparse.Namespace) -> list[str]:
    """What rclpy reads: name, namespace, parameters and remappings of the cockpit's node.

    Raises:
        SettingsError: a setting or an argument cannot be used.
    """
    given: dict[str, Any] = {name: getattr(args, name) for name in USED}
    file = args.settings or share_file("config", "adapt.yaml")
    load_settings(file, args.overrides)  # what cannot be read is told before ROS starts
    words = with_overrides(cockpit_spec(**given, settings_file=str(file)), args.overrides).command()
    return words[words.index("--ros-args") :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: serve until SIGINT or SIGTERM. Exit code 1: port in use; 2: options that do not fit."""
    parser = argparse.ArgumentParser(prog="s4net cockpit", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        words = ros_arguments(args)
        os.environ.update(fastdds_environment(fastdds_profile=args.fastdds_profile))
    except S4NetError as error:
        print(f"s4net cockpit: {error}", file=sys.stderr)
        return 2
    from s4net_ros import cockpit_node  # rclpy reads the environment

    return cockpit_node.main(words)


if __name__ == "__main__":
    sys.exit(main())
