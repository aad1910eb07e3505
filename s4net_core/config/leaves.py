"""Settings one by one, for what knows no groups: ROS parameters, commented YAML, lists of what was changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from s4net_core.config.groups import Settings


@dataclass(frozen=True)
class Leaf:
    """One setting, flattened: what a ROS parameter or an option needs to know.

    Args:
        name: dotted name.
        type: ``bool``, ``int``, ``float`` or ``str``.
        value: current value.
        help: one line, with the unit where there is one.
        unit: unit alone.
        minimum, maximum: inclusive range, or None.
        choices: allowed strings; empty = any.
        live: may change while a node runs.
    """

    name: str
    type: type
    value: Any
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    live: bool


def leaves(settings: Settings) -> Iterator[Leaf]:
    """Every setting in the order of the file."""
    yield from _leaves(settings, "")


def _leaves(group: BaseModel, prefix: str) -> Iterator[Leaf]:
    for key, field in type(group).model_fields.items():
        value = getattr(group, key)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{key}.")
            continue
        limits = {k: getattr(m, k) for m in field.metadata for k in ("ge", "gt", "le", "lt") if hasattr(m, k)}
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = str(extra.get("unit", ""))
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if get_origin(field.annotation) in (Union, UnionType):
            raise TypeError(f"setting {prefix}{key}: ROS parameters have one type each")
        yield Leaf(
            name=prefix + key,
            type=type(value),
            value=value,
            help=f"{field.description} [{unit}]" if unit else str(field.description),
            unit=unit,
            minimum=limits.get("ge", limits.get("gt")),
            maximum=limits.get("le", limits.get("lt")),
            choices=choices,
            live=bool(extra.get("live", False)),
        )


def changed_settings(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults, by dotted name."""
    defaults = {leaf.name: leaf.value for leaf in leaves(Settings())}
    return {leaf.name: leaf.value for leaf in leaves(settings) if leaf.value != defaults[leaf.name]}


def to_yaml(settings: Settings) -> str:
    """All settings as YAML, each with its help as a comment; `load_settings` reads it back."""
    lines: list[str] = []
    group = ""
    for leaf in leaves(settings):
        prefix, _, key = leaf.name.rpartition(".")
        if prefix != group:
            lines.append(f"{prefix}:")
            group = prefix
        indent = "  " if prefix else ""
        value = yaml.safe_dump(leaf.value, default_flow_style=True).removesuffix("...\n").strip()
        choices = f" One of: {', '.join(leaf.choices)}." if leaf.choices else ""
        lines += [f"{indent}# {leaf.help}{choices}", f"{indent}{key}: {value}"]
    return "\n".join(lines) + "\n"
