"""Labels that get better on a robot: both nodes on the camera's topics, and on request a third one that maps.

``ros2 launch s4net_ros adapt.launch.py --show-args`` lists the arguments. This file is the one description of the
graph. replay.launch.py reads it, and so does `s4net_ros.graph`, for ``s4net live`` on machines without launch: so
launch is imported only inside the functions that need it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "s4net_ros"
CONFIG = Path(__file__).absolute().parents[1] / "config"
FROM_SETTINGS = "from_settings"
"""Value of `transport` that leaves the choice to the settings file."""
NONE = "none"
"""Stands for an empty argument: launch refuses ``name:=``."""
BASE_MODELS = ("auto", "demo")
"""Values of `checkpoint` that are no files."""
TRUE_FALSE = ("true", "false")
RESPAWN_S = 2.0
"""Seconds before a node that has died starts again."""
ROS_PARAMETERS = "ros__parameters"
MAX_SETTINGS = 1 << 20
"""Characters of a settings file that are looked at; the nodes refuse a larger file."""
SHOWN_IN_RVIZ = (
    *("segmentation/overlay", "segmentation/mask", "segmentation/points"),
    *("adaptation/keyframes", "semantic_map/points", "semantic_map/grid"),
)
"""Topics of config/adapt.rviz, which has absolute names."""


class Argument(NamedTuple):
    """One argument of the launch files and of ``s4net live``, which writes it ``--with-dashes``.

    Empty means that it is not given; `none` means the same. `choices` are the allowed texts, empty = any. An argument
    that is `required` has no default.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False


ARGUMENTS = (
    Argument("camera_name", "camera", "Name of the camera: topics are /<camera_namespace>/<camera_name>/color/..."),
    Argument("camera_namespace", "camera", "Namespace of the camera driver; / = none: /<camera_name>/color/..."),
    Argument("namespace", "", "Namespace of the nodes and of all that they publish."),
    Argument("tf_in_namespace", "false", "Listen to tf and tf_static in the namespace, as nav2 does.", TRUE_FALSE),
    Argument("fixed_frame", "", "Frame in which the camera is tracked, e.g. odom; empty = from the settings file."),
    Argument(
        "checkpoint",
        "",
        "Weights file of the base model, 'auto' = a public model for real rooms, 'demo' = one for the demo's rendered "
        "rooms; empty = from the settings file, which has auto by default.",
    ),
    Argument(
        "source_set",
        "",
        "Labelled source set, a folder or a pack; empty = from the settings file, which has none by default.",
    ),
    Argument(
        "transport",
        FROM_SETTINGS,
        "Transport of both images: raw, or compressed colour with compressedDepth.",
        (FROM_SETTINGS, "raw", "compressed"),
    ),
    Argument(
        "settings_file",
        "",
        "File of settings that shall not have their defaults, plain or as ROS parameters; empty = config/adapt.yaml.",
    ),
    Argument("use_sim_time", "false", "Follow /clock instead of the wall clock.", TRUE_FALSE),
    Argument("autostart", "true", "Configure and activate the nodes; false = a lifecycle manager does.", TRUE_FALSE),
    Argument("respawn", "false", "Start a node again after it has died.", TRUE_FALSE),
    Argument("log_level", "info", "Least severe messages in the log.", ("debug", "info", "warn", "error", "fatal")),
    Argument("semantic_map", "false", "Start the node that fuses the labels in a semantic map.", TRUE_FALSE),
    Argument("rviz", "false", "Start RViz with config/adapt.rviz.", TRUE_FALSE),
    Argument("cockpit", "false", "Serve the cockpit, a page for browsers of this computer (cockpit.port).", TRUE_FALSE),
    Argument("state_dir", "", "Folder for weights and keyframes of this robot; empty = from the settings file."),
    Argument(
        "fastdds_profile",
        "",
        "Fast DDS profile for the nodes: empty = leave the environment as it is, 'local' = config/fastdds.xml "
        "(large shared memory, this machine only), or a file.",
    ),
)
"""Every argument, in the order in which help shows them."""


def values_of(given: Mapping[str, str], arguments: tuple[Argument, ...] = ARGUMENTS) -> dict[str, Any]:
    """A value for each argument, from texts; booleans in any case.

    Raises:
        ValueError: an unknown name, or a text that is not among an argument's choices.
    """
    values: dict[str, Any] = {argument.name: argument.default for argument in arguments}
    if unknown := set(given) - set(values):
        raise ValueError(f"argument {min(unknown)} is unknown: use one of {', '.join(values)}")
    values.update(given)
    for argument in arguments:
        text = values[argument.name]
        if argument.choices == TRUE_FALSE:
            text = text.lower()
        elif text == NONE:
            text = ""
        if argument.choices and text not in argument.choices:
            raise ValueError(f"argument {argument.name} is '{text}': it must be one of {', '.join(argument.choices)}")
        values[argument.name] = text == "true" if argument.choices == TRUE_FALSE else text
    return values


def nodes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes, semantic_map only if it is wanted, as keyword arguments of launch_ros's ``LifecycleNode``.

    Raises:
        ValueError: the settings file or the Fast DDS profile cannot be read.
    """
    wanted = ("segmentation", "adaptation", *(["semantic_map"] if values["semantic_map"] else []))
    return [_node(values, name) for name in wanted]


def cockpit(values: Mapping[str, Any]) -> dict[str, Any]:
    """The cockpit, as `nodes`; it needs no time, and a simulated one would wake it a hundred times a second."""
    return _node({**values, "use_sim_time": False}, "cockpit")


def _node(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        "package": PACKAGE,
        "executable": f"{name}_node",
        "name": name,
        "namespace": values["namespace"].strip("/"),
        "parameters": [_settings(values["settings_file"]), _overrides(values)],
        "remappings": [*camera_remappings(values), *_tf_remappings(values)],
        "ros_arguments": ["--log-level", values["log_level"], "--enclave", enclave(values["namespace"], name)],
        "additional_env": environment(values),
        "respawn": values["respawn"],
        "respawn_delay": RESPAWN_S,
    }


def rviz(values: Mapping[str, Any]) -> dict[str, Any]:
    """RViz on the outputs, as keyword arguments of launch_ros's ``Node``."""
    namespace = values["namespace"].strip("/")
    frame = ["-f", values["fixed_frame"]] if values["fixed_frame"] else []
    moved = [(f"/{topic}", f"/{namespace}/{topic}") for topic in SHOWN_IN_RVIZ] if namespace else []
    return {
        "package": "rviz2",
        "executable": "rviz2",
        "name": "rviz2",
        "namespace": namespace,
        "parameters": [{"use_sim_time": values["use_sim_time"]}],
        "remappings": [*moved, *_tf_remappings(values)],
        "arguments": ["-d", str(CONFIG / "adapt.rviz"), *frame],
        "additional_env": environment(values),
    }


def camera_remappings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The nodes' inputs -> topics of realsense2_camera 4.x, all transports."""
    names = (values["camera_namespace"].strip("/"), values["camera_name"].strip("/"))
    camera = "/" + "/".join(filter(None, names))
    color, depth = f"{camera}/color", f"{camera}/aligned_depth_to_color"
    return [
        ("color/image_raw", f"{color}/image_raw"),
        ("color/image_raw/compressed", f"{color}/image_raw/compressed"),
        ("color/camera_info", f"{color}/camera_info"),
        ("depth/image_raw", f"{depth}/image_raw"),
        ("depth/image_raw/compressedDepth", f"{depth}/image_raw/compressedDepth"),
    ]


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables that give a process its `fastdds_profile`.

    Raises:
        ValueError: there is no such file.
    """
    profile = values["fastdds_profile"]
    if not profile:
        return {}
    path = str(CONFIG / "fastdds.xml") if profile == "local" else _absolute(profile)
    if not os.path.isfile(path):
        raise ValueError(f"fastdds_profile {path} is not a file: give a Fast DDS XML profile, or 'local'")
    old = os.environ.get("ROS_DISTRO", "") in ("humble", "iron", "jazzy")  # Fast DDS 3 warns of the old name
    return {"FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE": path}


def enclave(namespace: str, name: str) -> str:
    """Where SROS 2 finds a node's keys: as the node's full name. Without ROS_SECURITY_ENABLE it means nothing."""
    return "/" + "/".join(filter(None, (namespace.strip("/"), name)))


def _tf_remappings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("/tf", "tf"), ("/tf_static", "tf_static")] if values["tf_in_namespace"] else []


def _settings(settings_file: str) -> str | dict[str, Any]:
    """ROS reads a ROS parameters file itself; the nodes read a plain settings file."""
    path = _absolute(settings_file) if settings_file else str(CONFIG / "adapt.yaml")
    if not os.path.isfile(path):  # to read a pipe could take forever
        raise ValueError(f"settings_file {path} is not a file: give the name of a YAML file")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_SETTINGS).splitlines()
    except OSError as error:
        raise ValueError(f"settings_file {path} cannot be read: {error}") from error
    is_ros_parameters = any(line.strip().startswith(f"{ROS_PARAMETERS}:") for line in lines)
    return path if is_ros_parameters else {"settings_file": path}


def _overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    checkpoint = values["checkpoint"]
    given = {
        "stream.fixed_frame": values["fixed_frame"],
        "checkpoint": checkpoint if checkpoint in BASE_MODELS else _absolute(checkpoint),
        "source.path": _absolute(values["source_set"]),
        "state_dir": _absolute(values["state_dir"]),
    }
    if values["transport"] != FROM_SETTINGS:
        given["stream.color_transport"] = values["transport"]
        given["stream.depth_transport"] = "compressedDepth" if values["transport"] == "compressed" else "raw"
    flags = {name: values[name] for name in ("use_sim_time", "autostart")}
    return {**flags, **{name: text for name, text in given.items() if text}}


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def generate_launch_description() -> Any:
    """Declare the arguments, which ``--show-args`` lists; the nodes are made once their values are known."""
    from launch import LaunchDescription
    from launch.actions import OpaqueFunction

    start = OpaqueFunction(function=lambda context: actions(values_of(performed(context, ARGUMENTS))))
    return LaunchDescription([*declarations(ARGUMENTS), start])


def declarations(arguments: tuple[Argument, ...]) -> list[Any]:
    """The arguments as launch declares them. Booleans have no choices there, because launch compares case as well."""
    from launch.actions import DeclareLaunchArgument

    return [
        DeclareLaunchArgument(
            argument.name,
            default_value=None if argument.required else argument.default,
            description=argument.help + (" true or false." if argument.choices == TRUE_FALSE else ""),
            choices=None if argument.choices in ((), TRUE_FALSE) else list(argument.choices),
        )
        for argument in arguments
    ]


def performed(context: Any, arguments: tuple[Argument, ...]) -> dict[str, str]:
    """The texts that were given for the arguments, or their defaults."""
    from launch.substitutions import LaunchConfiguration

    return {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments}


def actions(values: Mapping[str, Any]) -> list[Any]:
    """Everything that is started. RViz first: where it is not installed, launch ends before there are nodes."""
    from launch_ros.actions import LifecycleNode, Node

    started = [Node(**_typed(rviz(values)))] if values["rviz"] else []
    described = [*nodes(values), *([cockpit(values)] if values["cockpit"] else [])]
    return [*started, *(LifecycleNode(**_typed(node)) for node in described)]


def _typed(node: dict[str, Any]) -> dict[str, Any]:
    """Parameter values with their types, because launch reads a bare string as YAML."""
    from launch_ros.parameter_descriptions import ParameterValue

    typed = [
        part
        if isinstance(part, str)
        else {name: ParameterValue(value, value_type=type(value)) for name, value in part.items()}
        for part in node["parameters"]
    ]
    return {**node, "parameters": typed, "output": "screen"}
