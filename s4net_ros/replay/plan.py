"""Plan of a live run, from its command line: settings, nodes, player, environment, and when to stop."""

import argparse
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s4net_core.config import Settings, assign, leaves, load_settings
from s4net_core.config.options import add_settings_file_options
from s4net_core.errors import CaptureError
from s4net_core.io.bags.storage import Bag
from s4net_ros.graph import (
    ARGUMENTS,
    FROM_SETTINGS,
    REPLAY_DEFAULTS,
    NodeSpec,
    adaptation_graph,
    argument_values,
    cockpit_spec,
    fastdds_environment,
)
from s4net_ros.parameters import NOT_SETTINGS
from s4net_ros.replay.monitor import Record

START_TIMEOUT = 120.0
"""Seconds that the nodes get to load their networks."""
PLAYER_SUMMARY = "player.json"
"""What the player writes, in the folder of the run."""
LEFT_OUT = ("use_sim_time", "rviz", "semantic_map", "settings_file", "autostart", "respawn")
"""Arguments of the launch files that `live` sets itself, or names differently."""


@dataclass(frozen=True)
class Limits:
    """When to stop; 0 = no such limit. The end of learning stops a bag too, and a camera if it has any limit.

    Args:
        seconds: time after the first frame.
        versions: weights handed over.
        steps: learner steps.
        bag: whether a bag is played, and no camera runs.
    """

    seconds: float = 0.0
    versions: int = 0
    steps: int = 0
    bag: bool = False

    @property
    def learning(self) -> bool:
        """Whether the progress of learning ends the run."""
        return bool(self.versions or self.steps)

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.learning or self.seconds)

    def reached(self, record: Record, seconds: float) -> str:
        """Which limit was reached, in words; empty = go on."""
        status = record.status
        if self.versions and record.handovers >= self.versions:
            return f"{record.handovers} versions handed over"
        if status and self.steps and status.step >= self.steps:
            return f"{status.step} steps"
        if status and status.state == "finished" and (self.bag or self.any):
            return f"learning finished after {status.step} steps"
        return f"{seconds:.0f} seconds" if self.seconds and seconds >= self.seconds else ""

    def missed(self, record: Record) -> str:
        """Which limit the run did not reach, in words; empty = none was missed."""
        step = record.status.step if record.status else 0
        if self.versions > record.handovers:
            return f"only {record.handovers} of {self.versions} versions were handed over"
        return f"only {step} of {self.steps} steps were made" if self.steps > step else ""


@dataclass(frozen=True)
class Plan:
    """Everything that one run starts.

    Args:
        settings: of both nodes, as this process reads them.
        specs: the nodes.
        color_topic, depth_topic: the images that the nodes listen to; no depth topic when it is predicted.
        player: command of the player; empty = there is no bag.
        environment: variables added for every process.
        threads: variables added for the nodes.
        limits: when to stop.
        out: folder for all results.
        cockpit: the node that serves the cockpit, and its address; None = there is none.
        wait_for_browser: begin when a browser shows the cockpit.
    """

    settings: Settings
    specs: list[NodeSpec]
    color_topic: str
    depth_topic: str
    player: list[str]
    environment: Mapping[str, str]
    threads: Mapping[str, str]
    limits: Limits
    out: Path
    cockpit: tuple[NodeSpec, str] | None = None
    wait_for_browser: bool = False


def make_plan(args: argparse.Namespace) -> Plan:
    """Make the plan from the command line; starts nothing.

    Raises:
        SettingsError: unknown settings, or values out of range.
        CaptureError: the bag is missing, or lacks the camera's topics.
    """
    arguments, overrides = _graph_arguments(args), list(args.overrides)
    graph = adaptation_graph(**arguments)
    if args.bag and arguments["transport"] == FROM_SETTINGS:
        overrides[:0] = _bag_transports(args.bag, graph[0])  # first, so that what is given by hand wins
    specs = [with_overrides(spec, overrides) for spec in graph]
    settings = _settings(specs[0])
    limits = Limits(args.seconds, args.versions, args.steps, bag=args.bag is not None)
    color, depth = _input_topics(specs[0], settings)
    player = []
    if args.bag:
        _check_topics(args.bag, color, depth)
        waiting = ["--wait-for", f"{color}:{len(specs)}", *([f"{depth}:1"] if depth else [])]
        waiting += ["--wait-timeout", str(2 * START_TIMEOUT)]
        player = [sys.executable, "-m", "s4net_ros.player", str(args.bag), "--start-paused", *waiting]
        player += ["--rate", str(args.rate), "--json", str(args.out / PLAYER_SUMMARY)]
        player += ["--loop"] if (limits.any if args.loop is None else args.loop) else []
        player += ["--ros-args", "--enclave", "/player"]
    return Plan(
        settings=settings,
        specs=specs,
        color_topic=color,
        depth_topic=depth,
        player=player,
        environment=_environment(arguments, local=args.bag is not None),
        threads=_threads(len(specs)),
        limits=limits,
        out=args.out,
        cockpit=_cockpit(arguments, settings, overrides) if arguments["cockpit"] else None,
        wait_for_browser=args.wait_for_browser,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; arguments of the launch files become options too."""
    parser.add_argument("bag", type=Path, nargs="?", help="rosbag2 recording to play; none = a running camera")
    add_settings_file_options(parser, "config/adapt.yaml")
    parser.add_argument("--out", type=Path, default=Path("s4net_live"), help="folder for all results (%(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay (%(default)s)")
    parser.add_argument(
        "--loop", action=argparse.BooleanOptionalAction, help="play again at the end; default: with one of the limits"
    )
    limits = parser.add_argument_group("limits", "without one: the end of the bag or of learning; Ctrl-C for a camera")
    limits.add_argument("--seconds", type=float, default=0.0, metavar="S", help="stop this long after the first frame")
    limits.add_argument("--versions", type=int, default=0, metavar="N", help="stop after N versions were handed over")
    limits.add_argument("--steps", type=int, default=0, metavar="N", help="stop after N steps of the learner")
    parser.add_argument(
        "--evaluate", type=Path, metavar="SCENE", help="labelled capture on which base and adapted weights are compared"
    )
    parser.add_argument(
        "--wait-for-browser", action="store_true", help="serve the cockpit, and begin when a browser shows it"
    )
    graph = parser.add_argument_group("graph", "as of the launch files")
    for argument in ARGUMENTS:
        if argument.name not in LEFT_OUT:
            flag, choices = f"--{argument.name.replace('_', '-')}", argument.choices or None
            graph.add_argument(flag, default=argument.default, choices=choices, help=argument.help)


def _graph_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the launch arguments; a replay has the defaults of the replay launch file."""
    given = {a.name: str(getattr(args, a.name)) for a in ARGUMENTS if a.name not in LEFT_OUT}
    if args.settings:
        given["settings_file"] = str(args.settings)
    if args.wait_for_browser:
        given["cockpit"] = "true"
    given["state_dir"] = given["state_dir"] or str(args.out / "state")
    if args.bag:
        given |= {name: value for name, value in REPLAY_DEFAULTS.items() if not given[name]}
        given["use_sim_time"] = "true"
    return argument_values(**given)


def _cockpit(arguments: Mapping[str, Any], settings: Settings, overrides: Sequence[str]) -> tuple[NodeSpec, str]:
    """The cockpit's node and address. It is there for people: where its port is in use, it takes another one."""
    from s4net_ros.cockpit.server import address_of, free_port

    own = settings.cockpit.model_copy(update={"port": free_port(settings.cockpit)})
    spec = cockpit_spec(**arguments)
    return with_overrides(spec, [*overrides, f"cockpit.port={own.port}"]), address_of(own)


def _settings(spec: NodeSpec) -> Settings:
    """The settings of a node: its file, and what its other parameters change."""
    file, *parameters = spec.parameters
    settings = load_settings(file if isinstance(file, Path) else str(file["settings_file"]))
    given = {name: value for part in parameters if isinstance(part, dict) for name, value in part.items()}
    assign(settings, {name: value for name, value in given.items() if name not in NOT_SETTINGS})
    return settings


def with_overrides(spec: NodeSpec, overrides: Sequence[str]) -> NodeSpec:
    """The same node with settings given as NAME=VALUE, which win over its own."""
    given = {text.partition("=")[0].strip() for text in overrides}
    values = {leaf.name: leaf.value for leaf in leaves(load_settings(None, overrides)) if leaf.name in given}
    return replace(spec, parameters=(*spec.parameters, values)) if values else spec


def _bag_transports(bag: Path, segmentation: NodeSpec) -> list[str]:
    """Settings for the transports in which the bag holds colour and depth."""
    topics = _topics(bag)
    streams = {"color": "compressed", "depth": "compressedDepth"}
    raw = {stream: segmentation.topic(f"{stream}/image_raw") for stream in streams}
    return [f"stream.{stream}_transport={'raw' if raw[stream] in topics else streams[stream]}" for stream in streams]


def _check_topics(bag: Path, *wanted: str) -> None:
    """Raise CaptureError where the bag lacks a topic that the nodes listen to; an empty name is none."""
    topics = _topics(bag)
    if missing := [topic for topic in wanted if topic and topic not in topics]:
        raise CaptureError(
            f"bag {bag} has no {' and no '.join(missing)}: name its camera with --camera-name and --camera-namespace, "
            f"and how it packs images with --transport; it has {', '.join(topics)}"
        )


def _topics(bag: Path) -> Collection[str]:
    with Bag(bag) as opened:
        return opened.topics


def _input_topics(spec: NodeSpec, settings: Settings) -> tuple[str, str]:
    stream = settings.stream
    packed = "" if stream.color_transport == "raw" else f"/{stream.color_transport}"
    packed_depth = "" if stream.depth_transport == "raw" else f"/{stream.depth_transport}"
    depth = spec.topic("depth/image_raw") + packed_depth if settings.geometry.from_sensor else ""
    return spec.topic("color/image_raw") + packed, depth


def _environment(arguments: Mapping[str, Any], *, local: bool) -> dict[str, str]:
    """Variables for every process: DDS profile and, with a bag, loopback only unless the environment says otherwise."""
    environment = fastdds_environment(**arguments)
    if local:
        for name, value in (("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"), ("ROS_LOCALHOST_ONLY", "1")):
            environment[name] = os.environ.get(name, value)
    return environment


def _threads(processes: int) -> Mapping[str, str]:
    """Share the cores between the nodes: two networks that both use all cores slow each other down."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))}
