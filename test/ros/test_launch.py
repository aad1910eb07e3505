"""The launch files against the API of launch and launch_ros (Humble to Kilted), which PyPI does not have.

The stand-ins below take what the real classes take, by the same names, and keep it.
"""

import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s4net_core.machine.dds import dds_profile_variable
from s4net_ros.graph import ARGUMENTS, REPLAY_ARGUMENTS, GraphArguments, NodeSpec, adaptation_graph, rviz_spec

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"


class Context:
    def __init__(self, configurations: dict[str, str]) -> None:
        self.launch_configurations = configurations


class Substitution:
    def perform(self, context: Context) -> str:
        raise NotImplementedError


class TextSubstitution(Substitution):
    def __init__(self, *, text: str) -> None:
        self.text = text

    def perform(self, context: Context) -> str:
        return self.text


def substitutions(value: Any) -> list[Substitution]:
    """As launch.utilities.normalize_to_list_of_substitutions: texts, substitutions, or lists of them; nothing else."""
    if isinstance(value, str):
        return [TextSubstitution(text=value)]
    if isinstance(value, Substitution):
        return [value]
    if isinstance(value, Iterable):
        return [part for item in value for part in substitutions(item)]
    raise TypeError(f"{value!r} is neither a text nor a substitution")


def perform(context: Context, value: Any) -> str:
    return "".join(part.perform(context) for part in substitutions(value))


class LaunchConfiguration(Substitution):
    def __init__(self, variable_name: Any, *, default: Any = None) -> None:
        self.name = variable_name

    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.name]


class PathJoinSubstitution(Substitution):
    def __init__(self, substitutions: Iterable[Any]) -> None:
        self.parts = list(substitutions)

    def perform(self, context: Context) -> str:
        return str(Path(*(perform(context, part) for part in self.parts)))


class FindPackageShare(Substitution):
    def __init__(self, package: Any) -> None:
        assert package == "s4net_ros"

    def perform(self, context: Context) -> str:
        return str(ROOT)


class LaunchDescription:
    def __init__(self, initial_entities: Iterable[Any] | None = None, *, deprecated_reason: str | None = None) -> None:
        self.entities = list(initial_entities or [])


class Action:
    def __init__(self, *, condition: Any = None) -> None:
        self.condition = condition


class DeclareLaunchArgument(Action):
    def __init__(
        self,
        name: str,
        *,
        default_value: Any = None,
        description: str | None = None,
        choices: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        assert choices is None or choices, "launch refuses an empty list of choices"
        assert choices is None or default_value in choices
        self.name, self.description, self.choices = name, description, choices
        self.default_value = None if default_value is None else substitutions(default_value)


class OpaqueFunction(Action):
    def __init__(
        self, *, function: Callable[..., Any], args: Any = None, kwargs: dict[str, Any] | None = None, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.function = function


class SetEnvironmentVariable(Action):
    def __init__(self, name: Any, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = substitutions(name), substitutions(value)


class IncludeLaunchDescription(Action):
    def __init__(self, launch_description_source: Any, *, launch_arguments: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = launch_description_source
        self.launch_arguments = [(name, substitutions(value)) for name, value in launch_arguments or ()]


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path: Any) -> None:
        self.path = substitutions(launch_file_path)


class ExecuteProcess(Action):
    def __init__(
        self, *, cmd: Iterable[Any], name: Any = None, output: str = "log", on_exit: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cmd, self.output = [substitutions(word) for word in cmd], output


class Node(ExecuteProcess):
    def __init__(
        self,
        *,
        executable: Any,
        package: Any = None,
        name: Any = None,
        namespace: Any = None,
        exec_name: Any = None,
        parameters: list[Any] | None = None,
        remappings: Any = None,
        ros_arguments: Any = None,
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cmd=[executable, *(arguments or [])], **kwargs)
        assert isinstance(parameters, list), "launch_ros refuses anything but a list"
        self.package, self.executable, self.name, self.namespace = package, executable, name, namespace
        self.parameters, self.remappings, self.arguments = parameters, remappings, arguments


class LifecycleNode(Node):
    def __init__(self, *, name: Any, namespace: Any, **kwargs: Any) -> None:
        super().__init__(name=name, namespace=namespace, **kwargs)


class ParameterValue:
    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        assert isinstance(value, value_type) if value_type else True
        self.value, self.value_type = value, value_type


MODULES: dict[str, dict[str, Any]] = {
    "launch": {
        "LaunchContext": Context,
        "LaunchDescription": LaunchDescription,
        "LaunchDescriptionEntity": Action,
    },
    "launch.actions": {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "ExecuteProcess": ExecuteProcess,
        "IncludeLaunchDescription": IncludeLaunchDescription,
        "OpaqueFunction": OpaqueFunction,
        "SetEnvironmentVariable": SetEnvironmentVariable,
    },
    "launch.launch_description_sources": {"PythonLaunchDescriptionSource": PythonLaunchDescriptionSource},
    "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration, "PathJoinSubstitution": PathJoinSubstitution},
    "launch_ros": {},
    "launch_ros.actions": {"LifecycleNode": LifecycleNode, "Node": Node},
    "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
    "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
}


@pytest.fixture(autouse=True)
def _launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in MODULES.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


class Launched:
    """What ``ros2 launch`` would do with a file and arguments."""

    def __init__(self, file: str, **arguments: str) -> None:
        description = runpy.run_path(str(LAUNCH / file))["generate_launch_description"]()
        self.declared: list[DeclareLaunchArgument] = []
        self.actions: list[Any] = []
        self.context = Context(dict(arguments))
        for entity in description.entities:
            if isinstance(entity, DeclareLaunchArgument):
                self._declare(entity)
            elif isinstance(entity, OpaqueFunction):
                self.actions += entity.function(self.context)
            else:
                self.actions.append(entity)

    def _declare(self, argument: DeclareLaunchArgument) -> None:
        self.declared.append(argument)
        if argument.name not in self.context.launch_configurations:
            assert argument.default_value is not None, f"{argument.name} is required"
            self.context.launch_configurations[argument.name] = perform(self.context, argument.default_value)

    def all(self, kind: type) -> list[Any]:
        return [action for action in self.actions if type(action) is kind]

    @property
    def environment(self) -> dict[str, str]:
        actions = self.all(SetEnvironmentVariable)
        return {perform(self.context, a.name): perform(self.context, a.value) for a in actions}


def assert_runs(action: Any, spec: NodeSpec) -> None:
    assert (action.package, action.executable) == (spec.package, spec.executable)
    assert (action.name, action.namespace) == (spec.name, spec.namespace)
    assert tuple(action.remappings) == spec.remappings
    assert tuple(action.arguments) == spec.arguments
    for given, expected in zip(action.parameters, spec.parameters, strict=True):
        if isinstance(expected, Path):
            assert Path(given) == expected
        else:
            assert {name: value.value for name, value in given.items()} == expected
            assert all(value.value_type is type(value.value) for value in given.values())


def test_adapt_starts_the_graph_and_nothing_else() -> None:
    launched = Launched("adapt.launch.py")
    for action, spec in zip(launched.all(LifecycleNode), adaptation_graph(GraphArguments()), strict=True):
        assert_runs(action, spec)
    assert len(launched.actions) == 2


def test_adapt_declares_every_argument_with_its_description() -> None:
    declared = Launched("adapt.launch.py").declared
    assert [(a.name, a.description) for a in declared] == [(a.name, a.help) for a in ARGUMENTS]
    assert all(tuple(a.choices or ()) == b.choices for a, b in zip(declared, ARGUMENTS, strict=True))


def test_adapt_hands_its_arguments_to_the_nodes() -> None:
    given = {
        "camera_name": "d435",
        "namespace": "robot1",
        "fixed_frame": "on",
        "checkpoint": "/w.safetensors",
        "transport": "compressed",
        "use_sim_time": "true",
        "fastdds_profile": "local",
    }
    launched = Launched("adapt.launch.py", **given)
    specs = adaptation_graph(GraphArguments.from_strings(given))
    for action, spec in zip(launched.all(LifecycleNode), specs, strict=True):
        assert_runs(action, spec)
    assert launched.environment == {dds_profile_variable(): str(ROOT / "config" / "fastdds.xml")}
    assert type(launched.actions[0]) is SetEnvironmentVariable  # before the processes that need it


def test_adapt_starts_rviz_only_when_asked() -> None:
    assert not Launched("adapt.launch.py").all(Node)
    (rviz,) = Launched("adapt.launch.py", rviz="true").all(Node)
    assert_runs(rviz, rviz_spec(GraphArguments(rviz=True)))


def test_replay_plays_the_bag_with_a_clock_that_the_nodes_follow() -> None:
    launched = Launched("replay.launch.py", bag="/bags/one", loop="true", rate="0.5", checkpoint="/w.safetensors")
    (play,) = launched.all(ExecuteProcess)
    words = [perform(launched.context, word) for word in play.cmd]
    assert words[:4] == ["ros2", "bag", "play", "/bags/one"]
    assert float(words[words.index("--clock") + 1]) > 0
    assert words[words.index("--rate") + 1] == "0.5"
    assert "--loop" in words
    (include,) = launched.all(IncludeLaunchDescription)
    assert perform(launched.context, include.source.path) == str(LAUNCH / "adapt.launch.py")
    given = {name: perform(launched.context, value) for name, value in include.launch_arguments}
    assert set(given) == {a.name for a in ARGUMENTS}
    assert given["use_sim_time"] == "true"
    assert given["checkpoint"] == "/w.safetensors"
    adapt = Launched("adapt.launch.py", **given)
    assert all(node.parameters[-1]["use_sim_time"].value is True for node in adapt.all(LifecycleNode))
    assert adapt.environment


def test_replay_requires_a_bag_alone_and_describes_its_arguments() -> None:
    file = runpy.run_path(str(LAUNCH / "replay.launch.py"))
    declared = [e for e in file["generate_launch_description"]().entities if isinstance(e, DeclareLaunchArgument)]
    assert [a.name for a in declared][: len(REPLAY_ARGUMENTS)] == [a.name for a in REPLAY_ARGUMENTS]
    assert [a.name for a in declared if a.default_value is None] == ["bag"]  # launch itself asks for it
    assert all(a.description for a in declared)
    assert "use_sim_time" not in [a.name for a in declared]


def test_replay_without_loop_ends_with_the_bag() -> None:
    launched = Launched("replay.launch.py", bag="/bags/one")
    (play,) = launched.all(ExecuteProcess)
    assert "--loop" not in [perform(launched.context, word) for word in play.cmd]
