"""The graph of nodes as the launch files describe it, for what runs without launch: ``s4net live``, the reference.

The launch files hold arguments, parameters and remappings; this module reads them and turns a node into a command line.
"""

import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        package, executable: what ``ros2 run`` starts.
        module: Python module that is the same program, for machines without a ROS install; empty = not Python.
        name, namespace: of the node; an empty namespace is the root.
        parameters: files (Path) and values by name, later ones win.
        remappings: (from, to).
        publishes: relative topic -> message type, for monitors and for checking RViz's configuration.
        arguments: arguments of the program itself.
        ros_arguments: arguments for ROS, e.g. the log level.
    """

    package: str
    executable: str
    module: str
    name: str
    namespace: str = ""
    parameters: tuple[Path | dict[str, ParameterValue], ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    publishes: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    ros_arguments: tuple[str, ...] = ()

    @classmethod
    def from_launch(cls, node: Mapping[str, Any]) -> "NodeSpec":
        """From the keyword arguments of launch_ros's ``Node``."""
        own = node["package"] == PACKAGE
        return cls(
            package=node["package"],
            executable=node["executable"],
            module=f"{PACKAGE}.{node['executable']}" if own else "",
            name=node["name"],
            namespace=node["namespace"],
            parameters=tuple(Path(part) if isinstance(part, str) else part for part in node["parameters"]),
            remappings=tuple(node["remappings"]),
            publishes=_PUBLISHED.get(node["name"], {}),
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


def camera_remappings() -> dict[str, str]:
    """The nodes' inputs -> topics of realsense2_camera 4.x with its default name, all transports."""
    return dict(_adapt.camera_remappings(argument_values()))


def _checked(function: Any, values: Mapping[str, Any]) -> Any:
    """The launch files raise ValueError, because they know no errors of ours."""
    try:
        return function(values)
    except ValueError as error:
        raise SettingsError(str(error)) from error


INPUT_TOPICS: Mapping[str, str] = {
    "color/image_raw": "sensor_msgs/msg/Image",
    "color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "color/camera_info": "sensor_msgs/msg/CameraInfo",
    "depth/image_raw": "sensor_msgs/msg/Image",
    "depth/image_raw/compressedDepth": "sensor_msgs/msg/CompressedImage",
}

SEGMENTATION_TOPICS: Mapping[str, str] = {
    "segmentation/mask": "sensor_msgs/msg/Image",
    "segmentation/mask/compressed": "sensor_msgs/msg/CompressedImage",
    "segmentation/confidence": "sensor_msgs/msg/Image",
    "segmentation/overlay": "sensor_msgs/msg/Image",
    "segmentation/overlay/compressed": "sensor_msgs/msg/CompressedImage",
    "segmentation/camera_info": "sensor_msgs/msg/CameraInfo",
    "segmentation/label_info": "vision_msgs/msg/LabelInfo",
    "segmentation/points": "sensor_msgs/msg/PointCloud2",
}

ADAPTATION_TOPICS: Mapping[str, str] = {
    "model_update": "s4net_ros/msg/ModelUpdate",
    "adaptation/status": "s4net_ros/msg/AdaptationStatus",
    "adaptation/keyframes": "visualization_msgs/msg/MarkerArray",
}

MAP_TOPICS: Mapping[str, str] = {
    "semantic_map/points": "sensor_msgs/msg/PointCloud2",
    "semantic_map/grid": "nav_msgs/msg/OccupancyGrid",
}

TOPIC_HELP: Mapping[str, str] = {
    "color/image_raw": "What is labelled: rgb8, bgr8, rgba8, bgra8 or mono8, and what cv_bridge turns into rgb8.",
    "color/image_raw/compressed": "The same as JPEG or PNG; `stream.color_transport` chooses one of the two.",
    "color/camera_info": "Calibration of the colour camera, distortion included.",
    "depth/image_raw": "Depth aligned to colour: 16UC1 in millimetres or 32FC1 in metres; 0, NaN and infinity = none.",
    "depth/image_raw/compressedDepth": "The same as PNG; `stream.depth_transport` chooses one of the two.",
    "segmentation/mask": "mono8: class ids, 255 = unlabelled; stamp and frame of the colour image.",
    "segmentation/mask/compressed": "The same as PNG.",
    "segmentation/confidence": "mono8: probability of the label, 255 = certain; 32FC1 with 0..1 by a setting.",
    "segmentation/overlay": "rgb8: colour with the labels painted over it, for people.",
    "segmentation/overlay/compressed": "The same as JPEG.",
    "segmentation/camera_info": "Calibration that belongs to the images above.",
    "segmentation/label_info": "Names of the class ids, and the smallest probability of a label; latched.",
    "segmentation/points": "Points in the order of the mask's pixels: x, y, z in metres (NaN = no depth), rgb, label.",
    "model_update": "New weights, as the name of a file; latched; the nodes that label listen.",
    "adaptation/status": "Once a second: losses, agreement, versions, dropped and rejected frames by reason.",
    "adaptation/keyframes": "Keyframes, red to green by agreement with others; red lines join contradictions; latched.",
    "semantic_map/points": "Voxels: x, y, z in metres, mean rgb, label, confidence (share of the votes); latched.",
    "semantic_map/grid": "The map from above: 100 where a class blocks, 0 = free, -1 = unknown; latched.",
}
"""One line about every topic that the nodes read or write."""

SERVICES: Mapping[str, tuple[str, str]] = {
    "~/pause": ("std_srvs/srv/SetBool", "true = stop learning, false = go on; labels keep coming."),
    "~/reset": ("std_srvs/srv/Trigger", "Back to the base model; all keyframes are forgotten."),
    "~/rollback": ("std_srvs/srv/Trigger", "Back to the version before."),
    "~/save_model": ("s4net_ros/srv/SaveModel", "Write the weights in use to a file."),
}
"""Services of the adaptation node: type, and one line about each."""
MAP_SERVICES: Mapping[str, tuple[str, str]] = {
    "~/save": ("s4net_ros/srv/MapFile", "Write the map to a file."),
    "~/load": ("s4net_ros/srv/MapFile", "Put a saved map in the place of this one; its votes stay."),
    "~/find": (
        "s4net_ros/srv/FindObjects",
        "Places of a class: boxes around 8 or more voxels that touch, the largest first.",
    ),
}
"""Services of the node semantic_map."""


def _parameter_text(value: ParameterValue) -> str:
    """YAML of one value; strings are quoted, so that a frame called '1' or 'on' stays a string."""
    return str(yaml.safe_dump(value, default_style="'" if isinstance(value, str) else None, width=1 << 30)).split("\n")[
        0
    ]


def _launch_file(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(share_file("launch", name))))


_adapt, _replay = _launch_file("adapt.launch.py"), _launch_file("replay.launch.py")
_PUBLISHED = {"segmentation": SEGMENTATION_TOPICS, "adaptation": ADAPTATION_TOPICS, "semantic_map": MAP_TOPICS}
ARGUMENTS = _adapt.ARGUMENTS
"""Arguments of adapt.launch.py, each with name, default, help, choices and required."""
FROM_SETTINGS: str = _adapt.FROM_SETTINGS
"""Value of `transport` that leaves the choice to the settings file."""
REPLAY_ARGUMENTS = _replay.ARGUMENTS
"""Arguments of replay.launch.py beside `ARGUMENTS`."""
REPLAY_DEFAULTS: Mapping[str, str] = _replay.DEFAULTS
"""Defaults of `ARGUMENTS` that differ in a replay."""
