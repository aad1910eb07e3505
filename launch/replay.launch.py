"""A recorded bag instead of a camera: ``ros2 bag play`` publishes topics and /clock, and both nodes follow its time.

``ros2 launch s4net_ros replay.launch.py bag:=FOLDER checkpoint:=WEIGHTS source_set:=FOLDER``

The bag starts when both nodes are active.
"""

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

adapt = SimpleNamespace(**runpy.run_path(str(Path(__file__).absolute().with_name("adapt.launch.py"))))
"""What adapt.launch.py defines."""

ARGUMENTS = (
    adapt.Argument("bag", "", "Recorded bag: a folder with metadata.yaml.", required=True),
    adapt.Argument("rate", "1.0", "Speed of the replay, 1.0 = as recorded."),
    adapt.Argument("loop", "false", "Start again at the end of the bag.", adapt.TRUE_FALSE),
    adapt.Argument("delay", "1.0", "Seconds before the bag starts, after both nodes have become active."),
)
"""Arguments beside those of adapt.launch.py."""
DEFAULTS = {"fastdds_profile": "local", "state_dir": "~/.ros/s4net_replay"}
"""Defaults that differ in a replay: all runs on one machine, and a bag must not mix with what a robot has learned."""
FIXED = {"use_sim_time": "true"}
"""Arguments of adapt.launch.py that a replay sets itself."""
SHARED = tuple(
    argument._replace(default=DEFAULTS.get(argument.name, argument.default))
    for argument in adapt.ARGUMENTS
    if argument.name not in FIXED
)
CLOCK_HZ = 100


def generate_launch_description() -> Any:
    """Declare the arguments; the processes are made once their values are known."""
    from launch import LaunchDescription
    from launch.actions import OpaqueFunction

    return LaunchDescription([*adapt.declarations(ARGUMENTS + SHARED), OpaqueFunction(function=_start)])


def _start(context: Any) -> list[Any]:
    from launch.actions import ExecuteProcess
    from launch_ros.substitutions import ExecutableInPackage

    values = adapt.values_of({**adapt.performed(context, SHARED), **FIXED})
    replay = checked(adapt.values_of(adapt.performed(context, ARGUMENTS), ARGUMENTS))
    program = ExecutableInPackage(executable="when_active", package=adapt.PACKAGE)
    enclave = {"ROS_SECURITY_ENCLAVE_OVERRIDE": adapt.enclave(values["namespace"], "replay")}
    player = ExecuteProcess(
        cmd=[program, *player_arguments(values, replay)],
        additional_env={**adapt.environment(values), **enclave},
        output="screen",
    )
    return [*adapt.actions(values), player]


def checked(replay: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of `ARGUMENTS`, if the player can use them.

    Raises:
        ValueError: there is no such bag, or a number is none; `ros2 bag play` would say so when the nodes have loaded.
    """
    bag = Path(replay["bag"]).expanduser()
    if not bag.exists():
        raise ValueError(f"argument bag is '{replay['bag']}': there is no such file or folder")
    for name in ("rate", "delay"):
        try:
            float(replay[name])
        except ValueError:
            raise ValueError(f"argument {name} is '{replay[name]}': it must be a number") from None
    return {**replay, "bag": str(bag)}


def player_arguments(values: Mapping[str, Any], replay: Mapping[str, Any]) -> list[str]:
    """Arguments of `when_active`: the nodes that it waits for, and the command that it then becomes."""
    names = ["/" + "/".join(filter(None, (node["namespace"], node["name"]))) for node in adapt.nodes(values)]
    # ros2 bag waits for its --delay in every round of a loop, and refuses 0. --clock takes a number: the bag is first.
    play = ["ros2", "bag", "play", replay["bag"], "--clock", str(CLOCK_HZ), "--rate", replay["rate"]]
    play += ["--disable-keyboard-controls", *(["--loop"] if replay["loop"] else [])]
    delay = float(replay["delay"])
    if delay > 0 and not replay["loop"]:
        play += ["--delay", str(delay)]  # its publishers exist by then, so that the first messages are not lost
    wait = ["--delay", str(delay)] if delay > 0 and replay["loop"] else []
    return [*wait, *names, "--", *play]
