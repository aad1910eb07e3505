"""The launch files against the API of launch and launch_ros (Humble to Kilted), which PyPI does not have.

The stand-ins below take what the real classes take, by the same names, and keep it.
"""

import ast
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s4net_core.config import load_settings
from s4net_core.machine.dds import dds_profile_variable
from s4net_ros.graph import ARGUMENTS, REPLAY_ARGUMENTS, NodeSpec, adaptation_graph, cockpit_spec

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


class ExecutableInPackage(Substitution):
    def __init__(self, executable: Any, package: Any) -> None:
        self.executable, self.package = executable, package

    def perform(self, context: Context) -> str:
        return f"<prefix of {self.package}>/lib/{self.package}/{self.executable}"


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


class ExecuteProcess(Action):
    def __init__(
        self,
        *,
        cmd: Iterable[Any],
        name: Any = None,
        output: str = "log",
        additional_env: dict[Any, Any] | None = None,
        respawn: bool = False,
        respawn_delay: float | None = None,
        on_exit: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cmd, self.output = [substitutions(word) for word in cmd], output
        self.additional_env, self.respawn, self.respawn_delay = additional_env, respawn, respawn_delay


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
        self.ros_arguments = ros_arguments


class LifecycleNode(Node):
    def __init__(self, *, name: Any, namespace: Any, **kwargs: Any) -> None:
        super().__init__(name=name, namespace=namespace, **kwargs)


class ParameterValue:
    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        assert isinstance(value, value_type) if value_type else True
        self.value, self.value_type = value, value_type


MODULES: dict[str, dict[str, Any]] = {
    "launch": {
        "LaunchDescription": LaunchDescription,
    },
    "launch.actions": {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "ExecuteProcess": ExecuteProcess,
        "OpaqueFunction": OpaqueFunction,
    },
    "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
    "launch_ros": {},
    "launch_ros.actions": {"LifecycleNode": LifecycleNode, "Node": Node},
    "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
    "launch_ros.substitutions": {"ExecutableInPackage": ExecutableInPackage},
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
        value = self.context.launch_configurations[argument.name]
        if argument.choices is not None and value not in argument.choices:
            raise RuntimeError(
                f'Argument "{argument.name}" provided value "{value}" is not valid. '
                f"Valid options are: {argument.choices}"
            )

    def all(self, kind: type) -> list[Any]:
        return [action for action in self.actions if type(action) is kind]


def assert_runs(action: Any, spec: NodeSpec) -> None:
    assert (action.package, action.executable) == ("s4net_ros", spec.executable)
    assert (action.name, action.namespace) == (spec.name, spec.namespace)
    assert tuple(action.remappings) == spec.remappings
    assert tuple(action.ros_arguments) == spec.ros_arguments
    for given, expected in zip(action.parameters, spec.parameters, strict=True):
        if isinstance(expected, Path):
            assert Path(given) == expected
        else:
            assert {name: value.value for name, value in given.items()} == expected
            assert all(value.value_type is type(value.value) for value in given.values())


@pytest.mark.parametrize("path", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_a_launch_file_needs_nothing_but_launch(path: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names <= {"launch", "launch_ros"}


@pytest.mark.parametrize("path", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_a_launch_file_is_read_by_a_python_without_libraries(path: Path) -> None:
    script = f"import runpy, sys; runpy.run_path({str(path)!r}); sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd="/", check=True)


def test_adapt_starts_the_graph_and_nothing_else() -> None:
    launched = Launched("adapt.launch.py")
    for action, spec in zip(launched.all(LifecycleNode), adaptation_graph(), strict=True):
        assert_runs(action, spec)
        assert not action.respawn
        assert not action.additional_env
    assert len(launched.actions) == 2


def test_adapt_declares_every_argument_with_its_description() -> None:
    declared = Launched("adapt.launch.py").declared
    assert [a.name for a in declared] == [a.name for a in ARGUMENTS]
    assert all(a.description.startswith(b.help) for a, b in zip(declared, ARGUMENTS, strict=True))
    assert {a.name for a in declared if a.choices} == {"transport", "log_level"}


def test_adapt_hands_its_arguments_to_the_nodes() -> None:
    given = {
        "camera_name": "d435",
        "namespace": "robot1",
        "tf_in_namespace": "true",
        "fixed_frame": "on",
        "checkpoint": "/w.safetensors",
        "transport": "compressed",
        "use_sim_time": "True",
        "log_level": "debug",
        "autostart": "FALSE",
    }
    launched = Launched("adapt.launch.py", **given)
    for action, spec in zip(launched.all(LifecycleNode), adaptation_graph(**given), strict=True):
        assert_runs(action, spec)
        assert action.ros_arguments[:2] == ["--log-level", "debug"]
        assert action.parameters[-1]["autostart"].value is False
        assert ("/tf", "tf") in action.remappings


def test_a_value_that_is_not_among_the_choices_is_refused() -> None:
    with pytest.raises(RuntimeError, match="transport"):
        Launched("adapt.launch.py", transport="jpeg")
    with pytest.raises(ValueError, match="use_sim_time"):
        Launched("adapt.launch.py", use_sim_time="maybe")


def test_nodes_that_die_start_again_when_asked() -> None:
    for node in Launched("adapt.launch.py", respawn="true").all(LifecycleNode):
        assert node.respawn
        assert node.respawn_delay > 0


def test_the_cockpit_starts_when_asked_and_the_bag_does_not_wait_for_it() -> None:
    for file in ("adapt.launch.py", "replay.launch.py"):
        given = {"namespace": "robot1", "cockpit": "true", "fastdds_profile": "none", "state_dir": "/mine"}
        launched = Launched(file, bag=BAG, **given)
        nodes = launched.all(LifecycleNode)
        assert [node.name for node in nodes] == ["segmentation", "adaptation", "cockpit"]
        assert_runs(nodes[-1], cockpit_spec(**given))
        assert nodes[-1].parameters[-1]["use_sim_time"].value is False
    assert not [word for word in played(cockpit="true") if "cockpit" in word]


def test_the_dds_profile_holds_for_our_processes_alone() -> None:
    profile = {dds_profile_variable(): str(ROOT / "config" / "fastdds.xml")}
    for file in ("adapt.launch.py", "replay.launch.py"):
        launched = Launched(file, fastdds_profile="local", rviz="true", bag=BAG)
        assert len(launched.actions) >= 3
        assert all(profile.items() <= action.additional_env.items() for action in launched.actions)


def test_rviz_starts_before_the_nodes_which_would_be_orphans_if_it_were_not_installed() -> None:
    assert not Launched("adapt.launch.py").all(Node)
    launched = Launched("adapt.launch.py", rviz="true", namespace="robot1", fixed_frame="map")
    rviz = launched.actions[0]
    assert type(rviz) is Node
    assert rviz.package == "rviz2"
    assert ("/segmentation/overlay", "/robot1/segmentation/overlay") in rviz.remappings
    assert rviz.arguments[-2:] == ["-f", "map"]
    assert Path(rviz.arguments[1]).is_file()


BAG = __file__
"""A replay looks whether it is there, not what it is."""


def played(**arguments: str) -> list[str]:
    """Words of the process that plays the bag."""
    launched = Launched("replay.launch.py", bag=BAG, **arguments)
    (play,) = launched.all(ExecuteProcess)
    return [perform(launched.context, word) for word in play.cmd]


def test_replay_plays_the_bag_with_a_clock_that_the_nodes_follow() -> None:
    words = played(rate="0.5")
    assert words[words.index("--") + 1 :][:4] == ["ros2", "bag", "play", BAG]
    assert float(words[words.index("--clock") + 1]) > 0
    assert words[words.index("--rate") + 1] == "0.5"
    launched = Launched("replay.launch.py", bag=BAG, checkpoint="/w.safetensors")
    for node in launched.all(LifecycleNode):
        assert node.parameters[-1]["use_sim_time"].value is True
        assert node.parameters[-1]["checkpoint"].value == "/w.safetensors"


@pytest.mark.parametrize(("name", "value"), [("bag", "/no/bag"), ("rate", "fast"), ("delay", "x")])
def test_a_replay_that_cannot_be_played_is_refused_before_the_nodes_load(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"argument {name} is '{value}': "):
        Launched("replay.launch.py", **{"bag": BAG, name: value})


def test_a_replay_keeps_what_it_learns_apart_from_what_the_robot_has_learned() -> None:
    for launched, kept in (
        (Launched("adapt.launch.py"), None),
        (Launched("replay.launch.py", bag=BAG), "~/.ros/s4net_replay"),
        (Launched("replay.launch.py", bag=BAG, state_dir="/mine"), "/mine"),
    ):
        for node in launched.all(LifecycleNode):
            given = node.parameters[-1].get("state_dir")
            assert (given and given.value) == (kept and str(Path(kept).expanduser()))


@pytest.mark.parametrize(("given", "nodes"), [({}, ""), ({"namespace": "robot1"}, "/robot1")])
def test_replay_starts_the_bag_when_both_nodes_are_active(given: dict[str, str], nodes: str) -> None:
    program, *words = played(**given)
    assert program.endswith("/when_active")
    assert words[: words.index("--")] == [f"{nodes}/segmentation", f"{nodes}/adaptation"]


@pytest.mark.parametrize("delay", ["0", "0.0", "2.5"])
@pytest.mark.parametrize("loop", ["false", "True"])
def test_replay_waits_once_and_ros2_bag_never_gets_a_delay_of_0(delay: str, loop: str) -> None:
    words = played(delay=delay, loop=loop)
    own, player = words[: words.index("--")], words[words.index("--") :]
    assert ("--loop" in player) == (loop == "True")
    waits = own if loop == "True" else player  # in a loop ros2 bag would wait in every round
    assert ("--delay" in own + player) == (float(delay) > 0)
    assert float(delay) == 0 or float(waits[waits.index("--delay") + 1]) == 2.5


def test_replay_requires_a_bag_alone_and_describes_its_arguments() -> None:
    file = runpy.run_path(str(LAUNCH / "replay.launch.py"))
    declared = [e for e in file["generate_launch_description"]().entities if isinstance(e, DeclareLaunchArgument)]
    assert [a.name for a in declared][: len(REPLAY_ARGUMENTS)] == [a.name for a in REPLAY_ARGUMENTS]
    assert [a.name for a in declared if a.default_value is None] == ["bag"]  # launch itself asks for it
    assert all(a.description for a in declared)
    assert {a.name for a in ARGUMENTS} - {a.name for a in declared} == {"use_sim_time"}


def test_replay_can_leave_the_dds_profile_out() -> None:
    launched = Launched("replay.launch.py", bag=BAG, fastdds_profile="none")
    assert not any("PROFILES" in name for action in launched.actions for name in action.additional_env)


@pytest.mark.parametrize(("given", "enclave"), [({}, "/replay"), ({"namespace": "robot1"}, "/robot1/replay")])
def test_replay_starts_the_bag_in_its_enclave(given: dict[str, str], enclave: str) -> None:
    (play,) = Launched("replay.launch.py", bag=BAG, **given).all(ExecuteProcess)
    assert play.additional_env["ROS_SECURITY_ENCLAVE_OVERRIDE"] == enclave


def test_without_a_settings_file_the_nodes_have_those_of_the_package() -> None:
    (first, _) = Launched("adapt.launch.py").all(LifecycleNode)
    assert load_settings(first.parameters[0]) == load_settings(ROOT / "config" / "adapt.yaml")
