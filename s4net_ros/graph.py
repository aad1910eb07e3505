"""The graph of nodes as the launch files describe it, for what runs without launch: ``s4net live``, the reference.

The launch files hold arguments, parameters and remappings; this module reads them and turns a node into a command line.
"""

import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from s4net_core.errors import SettingsError
from s4net_core.files import PACKAGE, share_file

ParameterValue = bool | int | float | str


@dataclass(frozen=True)
class NodeSpec:
    """One node.

    Args:
        executable: what ``ros2 run`` starts.
        module: Python module that is the same program, for machines without a ROS install; empty = not Python.
        name, namespace: of the node; an empty namespace is the root.
        parameters: files (Path) and values by name, later ones win.
        remappings: (from, to).
        arguments: arguments of the program itself.
        ros_arguments: arguments for ROS, e.g. the log level.
    """

    executable: str
    module: str
    name: str
    namespace: str = ""
    parameters: tuple[Path | dict[str, ParameterValue], ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    ros_arguments: tuple[str, ...] = ()

    @classmethod
    def from_launch(cls, node: Mapping[str, Any]) -> "NodeSpec":
        """From the keyword arguments of launch_ros's ``Node``."""
        own = node["package"] == PACKAGE
        return cls(
            executable=node["executable"],
            module=f"{PACKAGE}.{node['executable']}" if own else "",
            name=node["name"],
            namespace=node["namespace"],
            parameters=tuple(Path(part) if isinstance(part, str) else part for part in node["parameters"]),
            remappings=tuple(node["remappings"]),
            arguments=tuple(node.get("arguments", ())),
            ros_arguments=tuple(node.get("ros_arguments", ())),
        )

    def command(self, python: str = sys.executable) -> list[str]:
        """Argument list that starts the node as a process of its own, without a launch system."""
        program = [python, "-m", self.module] if self.module else [self.executable]
        words = [*program, *self.arguments, "--ros-args", *self.ros_arguments, "-r", f"__node:={self.name}"]
        if self.namespace.strip("/"):
            words += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        for parameter in self.parameters:
            if isinstance(parameter, Path):
                words += ["--params-file", str(parameter)]
            else:
                for name, value in parameter.items():
                    words += ["-p", f"{name}:={_parameter_text(value)}"]
        for source, target in self.remappings:
            words += ["-r", f"{source}:={target}"]
        return words

    def topic(self, relative: str) -> str:
        """Absolute name of a topic of this node, remappings applied."""
        name = dict(self.remappings).get(relative, relative)
        return name if name.startswith("/") else "/" + "/".join(filter(None, (self.namespace.strip("/"), name)))


def adaptation_graph(**given: str | bool) -> list[NodeSpec]:
    """The segmentation node, the adaptation node and, with ``semantic_map=True``, the node that maps.

    Args:
        given: launch arguments by name; the others have their defaults.

    Raises:
        SettingsError: an argument is unknown or not among its choices, or names a file that cannot be read.
    """
    return [NodeSpec.from_launch(node) for node in _checked(_adapt.nodes, argument_values(**given))]


def cockpit_spec(**given: str | bool) -> NodeSpec:
    """The cockpit; arguments and errors as `adaptation_graph`."""
    return NodeSpec.from_launch(_checked(_adapt.cockpit, argument_values(**given)))


def argument_values(**given: str | bool) -> dict[str, Any]:
    """A value for every launch argument: booleans as such, `none` as empty.

    Raises:
        SettingsError: an argument is unknown or not among its choices.
    """
    return _checked(_adapt.values_of, {name: str(value) for name, value in given.items()})


def fastdds_environment(**given: str | bool) -> dict[str, str]:
    """Environment variables that give the nodes their `fastdds_profile`; set them before a process imports rclpy.

    Raises:
        SettingsError: there is no such profile.
    """
    return _checked(_adapt.environment, argument_values(**given))


def _checked(function: Any, values: Mapping[str, Any]) -> Any:
    """The launch files raise ValueError, because they know no errors of ours."""
    try:
        return function(values)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _parameter_text(value: ParameterValue) -> str:
    """YAML of one value; strings are quoted, so that a frame called '1' or 'on' stays a string."""
    return str(yaml.safe_dump(value, default_style="'" if isinstance(value, str) else None, width=1 << 30)).split("\n")[
        0
    ]


def _launch_file(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(share_file("launch", name))))


_adapt, _replay = _launch_file("adapt.launch.py"), _launch_file("replay.launch.py")
ARGUMENTS = _adapt.ARGUMENTS
"""Arguments of adapt.launch.py, each with name, default, help, choices and required."""
FROM_SETTINGS: str = _adapt.FROM_SETTINGS
"""Value of `transport` that leaves the choice to the settings file."""
REPLAY_ARGUMENTS = _replay.ARGUMENTS
"""Arguments of replay.launch.py beside `ARGUMENTS`."""
REPLAY_DEFAULTS: Mapping[str, str] = _replay.DEFAULTS
"""Defaults of `ARGUMENTS` that differ in a replay."""
