"""``s4net settings``: every setting with its help, as a YAML file that ``--settings`` reads."""

import argparse

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.config import to_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the settings that the given options lead to."""
    print(to_yaml(settings_from(args)), end="")
    return 0
