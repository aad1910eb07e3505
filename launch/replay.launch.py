"""A recorded bag instead of a camera: ``ros2 bag play`` publishes topics and /clock, and both nodes follow its time.

``ros2 launch s4net_ros replay.launch.py bag:=FOLDER checkpoint:=WEIGHTS source_set:=FOLDER``
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from s4net_ros.graph import ARGUMENTS, PACKAGE, REPLAY_ARGUMENTS, REPLAY_DEFAULTS, bag_play_command

FIXED = {"use_sim_time": "true"}
"""Arguments of adapt.launch.py that a replay sets itself."""


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments of the bag and of adapt.launch.py, and include the latter."""
    shared = [argument for argument in ARGUMENTS if argument.name not in FIXED]
    settings = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "adapt.yaml"])
    defaults = {**REPLAY_DEFAULTS, "settings_file": settings}
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=None if argument.required else defaults.get(argument.name, argument.default),
            description=argument.help,
            choices=list(argument.choices) or None,
        )
        for argument in (*REPLAY_ARGUMENTS, *shared)
    ]
    adapt = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "adapt.launch.py"])),
        launch_arguments=[(argument.name, LaunchConfiguration(argument.name)) for argument in shared]
        + list(FIXED.items()),
    )
    return LaunchDescription([*declared, adapt, OpaqueFunction(function=_play)])


def _play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in REPLAY_ARGUMENTS}
    return [ExecuteProcess(cmd=bag_play_command(values), output="screen")]
