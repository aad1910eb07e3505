"""Labels that get better on a robot: both nodes on the camera's topics.

``ros2 launch s4net_ros adapt.launch.py --show-args`` lists the arguments. `s4net_ros.graph` describes the nodes.
"""

from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from s4net_ros.graph import (
    ARGUMENTS,
    PACKAGE,
    GraphArguments,
    NodeSpec,
    adaptation_graph,
    fastdds_environment,
    rviz_spec,
)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, which ``--show-args`` lists; `_start` makes the nodes once their values are known."""
    settings = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "adapt.yaml"])
    arguments = [
        DeclareLaunchArgument(
            argument.name,
            default_value=settings if argument.name == "settings_file" else argument.default,
            description=argument.help,
            choices=list(argument.choices) or None,
        )
        for argument in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    arguments = GraphArguments.from_strings(
        {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    )
    environment = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment(arguments).items()]
    nodes = [_node(spec) for spec in adaptation_graph(arguments)]
    return environment + nodes + ([_node(rviz_spec(arguments))] if arguments.rviz else [])


def _node(spec: NodeSpec) -> LaunchDescriptionEntity:
    action = LifecycleNode if spec.lifecycle else Node
    return action(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[_parameters(parameters) for parameters in spec.parameters],
        remappings=list(spec.remappings),
        arguments=list(spec.arguments),
        output="screen",
    )


def _parameters(parameters: Path | dict[str, Any]) -> Any:
    """A file as its path; values with their types, because launch reads a bare string as YAML."""
    if isinstance(parameters, Path):
        return parameters
    return {name: ParameterValue(value, value_type=type(value)) for name, value in parameters.items()}
