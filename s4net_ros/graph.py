"""The one description of the graph of nodes, for the launch files and ``s4net live``.

Nothing here needs ROS: launch turns a `NodeSpec` into an action, other programs run `NodeSpec.command`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from s4net_core.config import changed_settings, is_ros_parameters, load_settings, read_yaml
from s4net_core.errors import SettingsError
from s4net_core.machine.dds import dds_profile_variable

PACKAGE = "s4net_ros"
FROM_SETTINGS = "from_settings"
"""Value of `transport` that leaves the choice to the settings file."""

ParameterValue = bool | int | float | str


@dataclass(frozen=True)
class Argument:
    """One argument of the launch files and of ``s4net live``.

    Args:
        name: launch argument; the command line writes it ``--with-dashes``.
        default: text; empty = not given, so that the settings file decides.
        help: one line.
        choices: allowed texts; empty = any.
        required: whether there is no default.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False


_BOOL = ("true", "false")

ARGUMENTS: tuple[Argument, ...] = (
    Argument("camera_name", "camera", "Name of the camera: topics are /<camera_namespace>/<camera_name>/color/..."),
    Argument("camera_namespace", "camera", "Namespace of the camera driver; empty = /<camera_name>/color/..."),
    Argument("namespace", "", "Namespace of the two nodes and of all that they publish."),
    Argument("fixed_frame", "", "Frame in which the camera is tracked, e.g. odom; empty = from the settings file."),
    Argument("checkpoint", "", "Weights file of the base model; empty = from the settings file."),
    Argument("source_set", "", "Labelled source set, a folder or a pack; empty = from the settings file."),
    Argument(
        "transport",
        FROM_SETTINGS,
        "Transport of both images: raw, or compressed colour with compressedDepth.",
        (FROM_SETTINGS, "raw", "compressed"),
    ),
    Argument("settings_file", "", "Settings of both nodes, plain or as ROS parameters; empty = config/adapt.yaml."),
    Argument("use_sim_time", "false", "Follow /clock instead of the wall clock.", _BOOL),
    Argument("rviz", "false", "Start RViz with config/adapt.rviz.", _BOOL),
    Argument("state_dir", "", "Folder for weights and keyframes of this robot; empty = from the settings file."),
    Argument(
        "fastdds_profile",
        "",
        "Fast DDS profile for the nodes: empty = leave the environment as it is, 'local' = config/fastdds.xml "
        "(large shared memory, this machine only), or a file.",
    ),
)
"""Every argument, in the order in which help shows them."""

REPLAY_ARGUMENTS: tuple[Argument, ...] = (
    Argument("bag", "", "Recorded bag: a folder with metadata.yaml.", required=True),
    Argument("rate", "1.0", "Speed of the replay, 1.0 = as recorded."),
    Argument("loop", "false", "Start again at the end of the bag.", _BOOL),
    Argument("delay", "8.0", "Seconds before the bag starts, while the nodes load their networks."),
)
"""Arguments of replay.launch.py beside `ARGUMENTS`."""

REPLAY_DEFAULTS: Mapping[str, str] = {"fastdds_profile": "local"}
"""Defaults of `ARGUMENTS` that differ in a replay: everything runs on one machine."""

CLOCK_RATE = 100
"""Hz at which a replay publishes /clock."""


@dataclass(frozen=True)
class GraphArguments:
    """Values of `ARGUMENTS`, typed."""

    camera_name: str = "camera"
    camera_namespace: str = "camera"
    namespace: str = ""
    fixed_frame: str = ""
    checkpoint: str = ""
    source_set: str = ""
    transport: str = FROM_SETTINGS
    settings_file: str = ""
    use_sim_time: bool = False
    rviz: bool = False
    state_dir: str = ""
    fastdds_profile: str = ""

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "GraphArguments":
        """From launch configurations or command-line texts; names that are missing keep their default.

        Raises:
            SettingsError: an unknown name, or a text that is not among an argument's choices.
        """
        known = {argument.name: argument for argument in ARGUMENTS}
        typed: dict[str, Any] = {}
        for name, text in values.items():
            argument = known.get(name)
            if argument is None:
                raise SettingsError(f"argument {name} is unknown: use one of {', '.join(known)}")
            text = text.lower() if argument.choices == _BOOL else text
            if argument.choices and text not in argument.choices:
                raise SettingsError(f"argument {name} is '{text}': it must be one of {', '.join(argument.choices)}")
            typed[name] = text == "true" if argument.choices == _BOOL else text
        return cls(**typed)


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
        lifecycle: whether it is a lifecycle node (it configures and activates itself, parameter ``autostart``).
        arguments: arguments of the program itself.
    """

    package: str
    executable: str
    module: str
    name: str
    namespace: str = ""
    parameters: tuple[Path | dict[str, ParameterValue], ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    publishes: Mapping[str, str] = field(default_factory=dict)
    lifecycle: bool = True
    arguments: tuple[str, ...] = ()

    def command(self, python: str = sys.executable) -> list[str]:
        """Argument list that starts the node as a process of its own, without a launch system."""
        program = [python, "-m", self.module] if self.module else [self.executable]
        words = [*program, *self.arguments, "--ros-args", "-r", f"__node:={self.name}"]
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


def adaptation_graph(arguments: GraphArguments) -> list[NodeSpec]:
    """The segmentation node and the adaptation node.

    Raises:
        SettingsError: the settings file cannot be read.
    """
    parameters = (_settings_parameters(arguments.settings_file), _overrides(arguments))
    return [
        NodeSpec(
            package=PACKAGE,
            executable=f"{name}_node",
            module=f"s4net_ros.{name}_node",
            name=name,
            namespace=arguments.namespace.strip("/"),
            parameters=parameters,
            remappings=camera_remappings(arguments),
            publishes=topics,
        )
        for name, topics in (("segmentation", SEGMENTATION_TOPICS), ("adaptation", ADAPTATION_TOPICS))
    ]


INPUT_TOPICS: Mapping[str, str] = {
    "color/image_raw": "sensor_msgs/msg/Image",
    "color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "color/camera_info": "sensor_msgs/msg/CameraInfo",
    "depth/image_raw": "sensor_msgs/msg/Image",
    "depth/image_raw/compressedDepth": "sensor_msgs/msg/CompressedImage",
}

SEGMENTATION_TOPICS: Mapping[str, str] = {
    "segmentation/mask": "sensor_msgs/msg/Image",
    "segmentation/confidence": "sensor_msgs/msg/Image",
    "segmentation/overlay": "sensor_msgs/msg/Image",
    "segmentation/camera_info": "sensor_msgs/msg/CameraInfo",
    "segmentation/label_info": "s4net_ros/msg/LabelInfo",
    "segmentation/points": "sensor_msgs/msg/PointCloud2",
}

ADAPTATION_TOPICS: Mapping[str, str] = {
    "model_update": "s4net_ros/msg/ModelUpdate",
    "adaptation/status": "s4net_ros/msg/AdaptationStatus",
    "adaptation/keyframes": "visualization_msgs/msg/MarkerArray",
}

TOPIC_HELP: Mapping[str, str] = {
    "color/image_raw": "What is labelled: rgb8, bgr8, rgba8, bgra8 or mono8, and what cv_bridge turns into rgb8.",
    "color/image_raw/compressed": "The same as JPEG or PNG; `stream.color_transport` chooses one of the two.",
    "color/camera_info": "Calibration of the colour camera, distortion included.",
    "depth/image_raw": "Depth aligned to colour: 16UC1 in millimetres or 32FC1 in metres; 0, NaN and infinity = none.",
    "depth/image_raw/compressedDepth": "The same as PNG; `stream.depth_transport` chooses one of the two.",
    "segmentation/mask": "mono8: class ids, 255 = unlabelled; stamp and frame of the colour image.",
    "segmentation/confidence": "32FC1: probability of the label, 0..1.",
    "segmentation/overlay": "rgb8: colour with the labels painted over it, for people.",
    "segmentation/camera_info": "Calibration that belongs to the three images above.",
    "segmentation/label_info": "Names and colours of the class ids; latched.",
    "segmentation/points": "Labelled points: x, y, z in metres, rgb, label.",
    "model_update": "New weights, as the name of a file; latched; the segmentation node listens.",
    "adaptation/status": "Once a second: losses, agreement, versions, dropped and rejected frames by reason.",
    "adaptation/keyframes": "Keyframes, their path, and in red those that contradict each other; latched.",
}
"""One line about every topic that the nodes read or write."""

SERVICES: Mapping[str, tuple[str, str]] = {
    "~/pause": ("std_srvs/srv/SetBool", "true = stop learning, false = go on; labels keep coming."),
    "~/reset": ("std_srvs/srv/Trigger", "Back to the base model; all keyframes are forgotten."),
    "~/rollback": ("std_srvs/srv/Trigger", "Back to the version before."),
    "~/save_model": ("s4net_ros/srv/SaveModel", "Write the weights in use to a file."),
}
"""Services of the adaptation node: type, and one line about each."""


def rviz_spec(arguments: GraphArguments) -> NodeSpec:
    """RViz on the outputs. Its configuration has topics of the root; remappings put them into the namespace."""
    namespace = arguments.namespace.strip("/")
    topics = (*SEGMENTATION_TOPICS, *ADAPTATION_TOPICS) if namespace else ()
    frame = ("-f", arguments.fixed_frame) if arguments.fixed_frame else ()
    return NodeSpec(
        package="rviz2",
        executable="rviz2",
        module="",
        name="rviz2",
        parameters=({"use_sim_time": arguments.use_sim_time},),
        remappings=tuple((f"/{topic}", f"/{namespace}/{topic}") for topic in topics),
        lifecycle=False,
        arguments=("-d", str(share_file("config", "adapt.rviz")), *frame),
    )


def bag_play_command(values: Mapping[str, str]) -> list[str]:
    """``ros2 bag play`` for the values of `REPLAY_ARGUMENTS`. ``--clock`` takes a number, so the bag is first."""
    words = ["ros2", "bag", "play", values["bag"], "--clock", str(CLOCK_RATE), "--rate", values["rate"]]
    words += ["--delay", values["delay"], "--disable-keyboard-controls"]
    return [*words, "--loop"] if values["loop"] == "true" else words


def camera_remappings(arguments: GraphArguments) -> tuple[tuple[str, str], ...]:
    """The nodes' inputs -> topics of realsense2_camera 4.x, all transports."""
    camera = "/" + "/".join(filter(None, (arguments.camera_namespace.strip("/"), arguments.camera_name.strip("/"))))
    color, depth = f"{camera}/color", f"{camera}/aligned_depth_to_color"
    return (
        ("color/image_raw", f"{color}/image_raw"),
        ("color/image_raw/compressed", f"{color}/image_raw/compressed"),
        ("color/camera_info", f"{color}/camera_info"),
        ("depth/image_raw", f"{depth}/image_raw"),
        ("depth/image_raw/compressedDepth", f"{depth}/image_raw/compressedDepth"),
        ("depth/camera_info", f"{depth}/camera_info"),
    )


def fastdds_environment(arguments: GraphArguments) -> dict[str, str]:
    """Environment variables that give the nodes their `fastdds_profile`; set them before a process imports rclpy."""
    if not arguments.fastdds_profile:
        return {}
    local = arguments.fastdds_profile == "local"
    path = share_file("config", "fastdds.xml") if local else Path(arguments.fastdds_profile).expanduser().absolute()
    if not path.is_file():
        raise SettingsError(f"fastdds_profile {path} is not a file: give a Fast DDS XML profile, or 'local'")
    return {dds_profile_variable(): str(path)}


def share_file(*parts: str) -> Path:
    """A file that the package installs beside its code (``config``, ``launch``), in a checkout or in a prefix.

    Raises:
        SettingsError: the file is not found; the text names the places searched.
    """
    places = [Path(__file__).absolute().parents[1], *_share_folders()]
    for place in places:
        path = place.joinpath(*parts)
        if path.is_file():
            return path
    searched = ", ".join(str(place) for place in places)
    raise SettingsError(f"{'/'.join(parts)} of {PACKAGE} is in none of {searched}: build and install the package again")


def _share_folders() -> Sequence[Path]:
    folders = [Path(sys.prefix) / "share" / PACKAGE]
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return folders
    try:
        return [Path(get_package_share_directory(PACKAGE)), *folders]
    except (PackageNotFoundError, LookupError, OSError):  # OSError: AMENT_PREFIX_PATH is not set
        return folders


def _settings_parameters(settings_file: str) -> Path | dict[str, ParameterValue]:
    """A ROS parameters file as it is; a plain settings file as the values that differ from the defaults."""
    path = Path(settings_file).expanduser().absolute() if settings_file else share_file("config", "adapt.yaml")
    return path if is_ros_parameters(read_yaml(path)) else changed_settings(load_settings(path))


def _overrides(arguments: GraphArguments) -> dict[str, ParameterValue]:
    given = {
        "stream.fixed_frame": arguments.fixed_frame,
        "checkpoint": _absolute(arguments.checkpoint),
        "source.path": _absolute(arguments.source_set),
        "state_dir": _absolute(arguments.state_dir),
    }
    values: dict[str, ParameterValue] = {"use_sim_time": arguments.use_sim_time}
    values.update({name: text for name, text in given.items() if text})
    if arguments.transport != FROM_SETTINGS:
        values["stream.color_transport"] = arguments.transport
        values["stream.depth_transport"] = "compressedDepth" if arguments.transport == "compressed" else "raw"
    return values


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _parameter_text(value: ParameterValue) -> str:
    """YAML of one value; strings are quoted, so that a frame called '1' or 'on' stays a string."""
    return str(yaml.safe_dump(value, default_style="'" if isinstance(value, str) else None, width=1 << 30)).split("\n")[
        0
    ]
