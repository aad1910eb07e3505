"""Settings from YAML files, ROS parameters files and ``name=value`` texts.

Whatever its source, a value is given to one setting by its dotted name, and pydantic checks and converts it there: so a
text from the command line needs no parser of its own, and every source has the same errors.
"""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from s4net_core.config.groups import Settings
from s4net_core.config.leaves import leaves
from s4net_core.errors import SettingsError, did_you_mean
from s4net_core.files import read_file

MAX_FILE = 1 << 20
"""Bytes that a settings file may have; all settings with their help have about 20,000."""
ROS_PARAMETERS = "ros__parameters"
NAMES = frozenset(leaf.name for leaf in leaves(Settings()))


def load_settings(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file (only what differs from the defaults) and ``name=value`` overrides.

    Args:
        path: settings file, or a ROS parameters file (``/**: ros__parameters:``), so that launch files and the command
            line share one file; None or empty = the defaults.
        overrides: win over the file; what stands behind the ``=`` is the value as it is, without YAML's quotes.

    Raises:
        SettingsError: unknown name, wrong type, out of range, or a file that cannot be read; names file and setting.
    """
    settings = Settings()
    if path:
        assign(settings, _settings_in(path), f"settings file {path}")
    assign(settings, dict(map(_split, overrides)))
    return settings


def from_values(values: Mapping[str, Any]) -> Settings:
    """Settings from nested mappings or dotted names.

    Raises:
        SettingsError: as `load_settings`.
    """
    return with_values(Settings(), values)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy in which some settings are changed.

    Args:
        settings: to start from.
        values: nested or by dotted name.

    Raises:
        SettingsError: as `load_settings`.
    """
    changed = settings.model_copy(deep=True)
    assign(changed, values)
    return changed


def assign(settings: Settings, values: Mapping[str, Any], origin: str = "settings") -> None:
    """Change some settings where they are.

    Args:
        settings: are changed; when there are errors, all but those with an error.
        values: nested or by dotted name; the last of several values of one setting counts.
        origin: where the values come from, for errors.

    Raises:
        SettingsError: as `load_settings`; lists all errors.
    """
    errors = []
    for name, value in _flat(values):
        if name not in NAMES:
            errors.append(f"{name} = {value!r}: {_unknown(name)}")
            continue
        group, _, key = name.rpartition(".")
        try:
            setattr(attrgetter(group)(settings) if group else settings, key, value)
        except ValidationError as error:
            errors.append(f"{name} = {value!r}: {error.errors()[0]['msg']}")
        settings.model_fields_set.add(group or key)  # else pydantic's `exclude_unset` leaves out the whole group
    if errors:
        raise SettingsError(f"{origin}: " + "; ".join(errors))


def read_yaml(path: str | Path, what: str = "settings file") -> Any:
    """What a YAML file of a user holds.

    Aliases are refused: with them a few lines can stand for billions of values.

    Args:
        path: the file.
        what: what errors call it.

    Raises:
        SettingsError: it is missing, is no regular file, is larger than `MAX_FILE`, or is no YAML.
    """
    try:
        content = read_file(path, MAX_FILE)
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read ({error.strerror}): give the name of a YAML file") from error
    try:
        return yaml.load(content, _WithoutAliases)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: e.g. the 45th of a month
        raise SettingsError(f"{what} {path} is no YAML: {error}") from error


def is_ros_parameters(content: Any) -> bool:
    """Whether what a YAML file holds is a ROS parameters file: ``ros__parameters`` of one or several nodes."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(node, dict) and ROS_PARAMETERS in node for node in content.values())
    )


def _unknown(name: str) -> str:
    if name in Settings.model_fields:
        return "this is a group: give values to its settings, or leave it out"
    return f"there is no such setting, {did_you_mean(name, NAMES) or '`s4net settings` lists all'}"


class _WithoutAliases(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)


def _settings_in(path: str | Path) -> dict[str, Any]:
    content = read_yaml(path)
    parts = [node[ROS_PARAMETERS] for node in content.values()] if is_ros_parameters(content) else [content]
    values: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, dict | None):
            raise SettingsError(f"settings file {path} holds {type(part).__name__}: it must hold names and values")
        values |= {name: value for name, value in _flat(part or {}) if name != "use_sim_time"}
    return values


def _split(override: str) -> tuple[str, str]:
    name, separator, text = override.partition("=")
    if not separator:
        raise SettingsError(f"override '{override}' has no '=': write name=value, e.g. learner.learning_rate=1e-4")
    return name.strip(), text.strip()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
