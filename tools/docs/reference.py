"""Generates the reference pages of the documentation from the code, so that the two cannot differ.

Each function ending in `_page` returns the Markdown of one page. `PAGES` maps the path of a page to its function.
"""

import argparse
import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from s4net_core.cli.main import COMMANDS, command_parser
from s4net_core.config import Leaf, Settings, leaves
from s4net_core.evaluation.tables import Table, to_markdown
from s4net_core.labels import LABEL_SPACES
from s4net_ros.graph import ARGUMENTS, REPLAY_ARGUMENTS, REPLAY_DEFAULTS, adaptation_graph
from tools.docs.topics import INPUT_TOPICS, MAP_SERVICES, PUBLISHED, SERVICES, TOPIC_HELP

ROOT = Path(__file__).resolve().parents[2]
HELP_COLUMNS = "100"
"""Width of the help of commands, characters."""
SETTINGS_PAGE = "reference/settings.md"

SETTINGS_INTRODUCTION = """# Settings

A setting has the same name in YAML files, in `--set NAME=VALUE` on the command line, and as a ROS parameter.
`s4net settings` prints this list as YAML, and `ros2 param describe` shows one setting of a running node. Settings
marked *live* may change while the node that uses them runs (`ros2 param set`). All others are read once, at start-up.
Values outside their range are refused, and so is 0 where only a positive value makes sense.

```
s4net adapt CAPTURE OUT --settings mine.yaml --set learner.neighbours=8
ros2 run s4net_ros adaptation_node --ros-args --params-file mine.yaml -p learner.neighbours:=8
```

A settings file names only what differs from the defaults. `s4net` and the launch files read both forms below;
`ros2 run` reads only the second:

```yaml
learner:
  neighbours: 8
```

```yaml
/**:
  ros__parameters:
    learner:
      neighbours: 8
```"""


def settings_page() -> str:
    """Every setting with its meaning, default and range."""
    text = [SETTINGS_INTRODUCTION]
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves(Settings()):
        groups.setdefault(leaf.name.rpartition(".")[0], []).append(leaf)
    for group, members in groups.items():
        kind = Settings.model_fields[group].annotation if group else Settings
        text += [f"## {f'`{group}`' if group else 'Without a group'}", str(getattr(kind, "__doc__", ""))]
        text.append(table(("setting", "default", "values", "what it is"), map(_setting_row, members)))
    return page(text)


def _setting_row(leaf: Leaf) -> tuple[str, ...]:
    default = f'`"{leaf.value}"`' if leaf.value == "" else f"`{_value(leaf.value)}`"
    help = plain(leaf.help.removesuffix(f" [{leaf.unit}]")) + (" *(live)*" if leaf.live else "")
    return f"`{leaf.name}`{{ #{leaf.name} }}", f"{default} {leaf.unit}".strip(), _values(leaf), help


def _values(leaf: Leaf) -> str:
    if leaf.choices:
        return ", ".join(f"`{choice}`" for choice in leaf.choices)
    if leaf.type is bool:
        return "`true`, `false`"
    if leaf.type is str:
        return "text"
    low, high = (None if limit is None else _value(limit) for limit in (leaf.minimum, leaf.maximum))
    number = "whole number" if leaf.type is int else "number"
    if low is None or high is None:
        return number if low is None and high is None else f"from {low}" if high is None else f"up to {high}"
    return f"{low} – {high}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def commands_page() -> str:
    """The help of every sub-command of ``s4net``."""
    text = ["# The `s4net` command", "The output of `--help` for each command."]
    text.append(table(("command", "what it does"), ((f"[`s4net {n}`](#{n})", c.help) for n, c in COMMANDS.items())))
    for name in COMMANDS:
        text += [f"## `s4net {name}` {{ #{name} }}", f"```text\n{help_of(command_parser(name))}\n```"]
    return page(text)


def help_of(parser: argparse.ArgumentParser) -> str:
    """The text that ``--help`` prints, the same on every terminal."""
    with mock.patch.dict(os.environ, {"COLUMNS": HELP_COLUMNS, "NO_COLOR": "1"}):
        return parser.format_help().strip()


def ros_page() -> str:
    """Topics, services, launch arguments and message definitions."""
    remapped = dict(adaptation_graph()[0].remappings)
    inputs = [
        (f"`{name}`", _type(kind), TOPIC_HELP[name], f"`{remapped[name]}`") for name, kind in INPUT_TOPICS.items()
    ]
    text = [
        "# Topics, services, messages",
        "All names but `/diagnostics` are relative: namespaces and remappings work.",
        "## What the nodes read",
        "The last column is the topic to which the launch files map it by default, a topic of realsense2_camera 4.x. "
        "The segmentation node reads depth only while somebody listens to `segmentation/points`. With "
        "`geometry.depth` = predicted the adaptation node reads no depth.",
        table(("topic", "type", "", "remapped to"), inputs),
        "The nodes adaptation and semantic_map also listen to `/tf` and `/tf_static`; all to `/clock` with "
        "`use_sim_time`.",
    ]
    for node, topics in PUBLISHED.items():
        rows = [(f"`{name}`", _type(kind), TOPIC_HELP[name]) for name, kind in topics.items()]
        text += [f"## What the node `{node}` publishes", table(("topic", "type", ""), rows)]
    text += [
        "Images without a subscriber are neither computed nor published. All nodes also publish `/diagnostics` "
        "(diagnostic_msgs/msg/DiagnosticArray): rates, latencies, and why no data arrives.",
        "## Services of the node `adaptation`",
        _services_table(SERVICES),
        "## Services of the node `semantic_map`",
        _services_table(MAP_SERVICES),
        "## Launch arguments",
        "`adapt.launch.py` takes them as `name:=value`, and `s4net live` most of them as `--with-dashes`.",
        table(("argument", "default", "what it is"), map(_argument_row, ARGUMENTS)),
        "`replay.launch.py` has these in addition, and follows the time of the bag:",
        table(("argument", "default", "what it is"), map(_argument_row, REPLAY_ARGUMENTS)),
        f"Other defaults in a replay: {', '.join(f'`{name}:={value}`' for name, value in REPLAY_DEFAULTS.items())}.",
        "## Parameters",
        "Every [setting](settings.md) is a parameter of all nodes. All also have `autostart`: with `true` (default) "
        "a node configures and activates itself; with `false` a lifecycle manager does.",
    ]
    for folder in ("msg", "srv"):
        for path in sorted((ROOT / folder).iterdir()):
            name = f"s4net_ros/{folder}/{path.stem}"
            text += [f"## `{name}` {{ #{path.stem} }}", f"```text\n{path.read_text().strip()}\n```"]
    return page(text)


def _services_table(services: Mapping[str, tuple[str, str]]) -> str:
    rows = ((f"`{name}`", _type(kind), help) for name, (kind, help) in services.items())
    return table(("service", "type", ""), rows)


def _type(name: str) -> str:
    own = name.startswith("s4net_ros/")
    return f"[{name}](#{name.rpartition('/')[2]})" if own else name


def _argument_row(argument: Any) -> tuple[str, ...]:
    default = "required" if argument.required else f"`{argument.default}`" if argument.default else "empty"
    choices = f" One of: {', '.join(argument.choices)}." if argument.choices else ""
    return f"`{argument.name}`", default, plain(argument.help + choices)


def classes_page() -> str:
    """Ids, names and colours of the classes."""
    text = [
        "# Classes",
        "The values of label images. 0 is unlabelled in the files of this project, and 255 in the published masks.",
    ]
    for space in LABEL_SPACES.values():
        named = enumerate(zip(space.names, space.colors, strict=True), start=1)
        rows = [(str(id), name, _swatch(color), "{}, {}, {}".format(*color)) for id, (name, color) in named]
        text += [f"## `{space.name}`", table(("id", "name", "", "red, green, blue"), rows)]
    return page(text)


def _swatch(color: tuple[int, int, int]) -> str:
    return f'<span style="background: rgb{color}; padding: 0 1.5em"></span>'


PAGES: Mapping[str, Callable[[], str]] = {
    SETTINGS_PAGE: settings_page,
    "reference/commands.md": commands_page,
    "reference/ros.md": ros_page,
    "reference/classes.md": classes_page,
}
"""Generated pages by their path in the documentation."""


def plain(text: str) -> str:
    """The text with HTML's special characters escaped."""
    return html.escape(text, quote=False)


def page(blocks: Iterable[str]) -> str:
    """Join blocks of Markdown with an empty line between them."""
    return "\n\n".join(blocks) + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return to_markdown(Table("", headings, list(rows))).strip()
