"""The description of the graph: one home for arguments, parameters and topic names."""

import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from s4net_core.config import Settings, leaves, load_settings
from s4net_core.errors import SettingsError
from s4net_ros.graph import (
    ARGUMENTS,
    REPLAY_ARGUMENTS,
    REPLAY_DEFAULTS,
    NodeSpec,
    adaptation_graph,
    argument_values,
    fastdds_environment,
)
from tools.docs.topics import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


def values_of(spec: NodeSpec) -> dict[str, object]:
    merged: dict[str, object] = {}
    for parameters in spec.parameters:
        if isinstance(parameters, dict):
            merged |= parameters
    return merged


class TestArguments:
    def test_every_argument_has_a_help_text(self) -> None:
        for argument in (*ARGUMENTS, *REPLAY_ARGUMENTS):
            assert len(argument.help) > 20
            assert argument.help.endswith(".")
            assert argument.required or not argument.choices or argument.default in argument.choices

    def test_none_is_empty_because_launch_refuses_an_empty_argument(self) -> None:
        texts = {a.name: "none" for a in ARGUMENTS if not a.choices}
        assert set(texts) >= {"fastdds_profile", "camera_namespace", "checkpoint", "fixed_frame"}
        assert {argument_values(**texts)[name] for name in texts} == {""}

    def test_replay_changes_only_arguments_that_exist(self) -> None:
        assert set(REPLAY_DEFAULTS) <= {a.name for a in ARGUMENTS}

    @pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("FALSE", False), ("tRue", True)])
    def test_booleans_are_read_as_launch_writes_them(self, text: str, value: bool) -> None:
        assert argument_values(use_sim_time=text)["use_sim_time"] is value

    @pytest.mark.parametrize(("name", "text"), [("transport", "jpeg"), ("use_sim_time", "maybe"), ("camera", "front")])
    def test_what_is_not_known_is_refused_by_name(self, name: str, text: str) -> None:
        with pytest.raises(SettingsError, match=name):
            argument_values(**{name: text})


def test_the_node_that_maps_starts_on_request_with_what_the_others_get() -> None:
    assert [spec.name for spec in adaptation_graph()] == ["segmentation", "adaptation"]
    *both, mapping = adaptation_graph(semantic_map="True", namespace="robot1", fixed_frame="map")
    assert [spec.name for spec in both] == ["segmentation", "adaptation"]
    assert mapping.module == "s4net_ros.semantic_map_node"
    assert mapping.topic("semantic_map/grid") == "/robot1/semantic_map/grid"
    assert (mapping.parameters, mapping.remappings) == (both[1].parameters, both[1].remappings)


class TestParameters:
    def test_without_arguments_only_the_settings_file_decides(self) -> None:
        for spec in adaptation_graph():
            assert spec.parameters == (CONFIG / "adapt.yaml", {"use_sim_time": False, "autostart": True})

    def test_given_arguments_come_after_the_file_and_so_win(self, tmp_path: Path) -> None:
        graph = adaptation_graph(
            fixed_frame="map",
            checkpoint=str(tmp_path / "w.safetensors"),
            source_set=str(tmp_path),
            state_dir="~/state",
            transport="compressed",
            use_sim_time=True,
            autostart=False,
        )
        for spec in graph:
            assert isinstance(spec.parameters[0], Path)
            assert spec.parameters[-1] == {
                "use_sim_time": True,
                "autostart": False,
                "stream.fixed_frame": "map",
                "checkpoint": str(tmp_path / "w.safetensors"),
                "source.path": str(tmp_path),
                "state_dir": str(Path.home() / "state"),
                "stream.color_transport": "compressed",
                "stream.depth_transport": "compressedDepth",
            }

    def test_every_parameter_is_a_setting_of_the_same_type(self) -> None:
        known = {leaf.name: leaf.type for leaf in leaves(Settings())}
        graph = adaptation_graph(fixed_frame="a", checkpoint="b", source_set="c", state_dir="d", transport="raw")
        for name, value in values_of(graph[0]).items():
            assert name in ("use_sim_time", "autostart") or known[name] is type(value)

    def test_relative_paths_mean_the_folder_of_the_caller(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        values = values_of(adaptation_graph(checkpoint="w.safetensors")[0])
        assert values["checkpoint"] == str(tmp_path / "w.safetensors")

    @pytest.mark.parametrize("name", ["auto", "demo"])
    def test_base_models_that_are_no_files_stay_as_they_are(self, name: str) -> None:
        assert values_of(adaptation_graph(checkpoint=name)[0])["checkpoint"] == name

    def test_a_plain_settings_file_is_read_by_the_nodes_and_a_ros_parameters_file_by_ros(self, tmp_path: Path) -> None:
        plain, parameters = tmp_path / "plain.yaml", tmp_path / "parameters.yaml"
        plain.write_text("seed: 7\n")
        parameters.write_text("/**:\n  ros__parameters: {seed: 7}\n")
        assert adaptation_graph(settings_file=str(plain))[0].parameters[0] == {"settings_file": str(plain)}
        assert adaptation_graph(settings_file=str(parameters))[0].parameters[0] == parameters

    def test_a_file_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        for name in ("nowhere.yaml", "pipe.yaml"):
            with pytest.raises(SettingsError, match=rf"{name} is not a file: give the name of a YAML file"):
                adaptation_graph(settings_file=str(tmp_path / name))

    def test_of_a_huge_settings_file_only_the_beginning_is_looked_at(self, tmp_path: Path) -> None:
        huge = tmp_path / "huge.yaml"
        huge.touch()
        os.truncate(huge, 1 << 40)
        assert adaptation_graph(settings_file=str(huge))[0].parameters[0] == {"settings_file": str(huge)}
        with pytest.raises(SettingsError, match=r"huge\.yaml cannot be read .*at most 1048576 are read"):
            load_settings(huge)


class TestTopics:
    @pytest.mark.parametrize(
        ("namespace", "name", "camera"),
        [
            ("camera", "camera", "/camera/camera"),
            ("", "camera", "/camera"),
            ("/robot1/front", "d435", "/robot1/front/d435"),
        ],
    )
    def test_inputs_are_the_realsense_topics(self, namespace: str, name: str, camera: str) -> None:
        for spec in adaptation_graph(camera_namespace=namespace, camera_name=name):
            assert spec.topic("color/image_raw") == f"{camera}/color/image_raw"
            assert spec.topic("color/image_raw/compressed") == f"{camera}/color/image_raw/compressed"
            assert spec.topic("color/camera_info") == f"{camera}/color/camera_info"
            assert spec.topic("depth/image_raw") == f"{camera}/aligned_depth_to_color/image_raw"

    def test_a_namespace_moves_outputs_but_not_the_camera(self) -> None:
        for spec in adaptation_graph(namespace="/robot1/"):
            for topic in PUBLISHED[spec.name]:
                assert spec.topic(topic) == f"/robot1/{topic}"
            assert spec.topic("color/image_raw").startswith("/camera/")

    @pytest.mark.parametrize(("given", "tf"), [(False, "/tf"), (True, "/robot1/tf")])
    def test_transforms_are_those_of_the_namespace_when_asked(self, given: bool, tf: str) -> None:
        for spec in adaptation_graph(namespace="robot1", tf_in_namespace=given):
            assert spec.topic("/tf") == tf
            assert spec.topic("/tf_static") == f"{tf}_static"

    def test_both_nodes_name_the_topic_between_them_alike(self) -> None:
        labels, learner = adaptation_graph(namespace="robot1")
        assert labels.topic("model_update") == learner.topic("model_update") == "/robot1/model_update"


class TestCommand:
    def test_is_what_rcl_reads(self) -> None:
        spec = NodeSpec(
            executable="e",
            module="some.module",
            name="n",
            namespace="robot1",
            parameters=(Path("/a.yaml"), {"rate": 1e-5, "on": True, "count": 3, "frame": "it's 1"}),
            remappings=(("in", "/out"),),
            ros_arguments=("--log-level", "debug"),
        )
        words = spec.command(python="py")
        assert words[:3] == ["py", "-m", "some.module"]
        assert words[3:] == [
            *("--ros-args", "--log-level", "debug"),
            *("-r", "__node:=n", "-r", "__ns:=/robot1", "--params-file", "/a.yaml"),
            *("-p", "rate:=1.0e-05", "-p", "on:=true", "-p", "count:=3", "-p", "frame:='it''s 1'", "-r", "in:=/out"),
        ]

    def test_parameters_reach_a_node_with_their_types(self, ros) -> None:  # type: ignore[no-untyped-def]
        values = {"rate": 1e-5, "whole": 2.0, "on": True, "count": 3, "frame": "on", "number": "1", "empty": ""}
        spec = NodeSpec("e", "m", name="n", parameters=(values,))
        words = spec.command()
        node = ros.node(
            cli_args=words[words.index("--ros-args") :], automatically_declare_parameters_from_overrides=True
        )
        assert {name: node.get_parameter(name).value for name in values} == values
        assert node.get_name() == "n"


class TestConfigFiles:
    def test_settings_file_is_read_by_ros_and_by_the_command_line_alike(self, ros) -> None:  # type: ignore[no-untyped-def]
        settings = load_settings(CONFIG / "adapt.yaml")
        given = ["--ros-args", "--params-file", str(CONFIG / "adapt.yaml")]
        node = ros.node(cli_args=given, automatically_declare_parameters_from_overrides=True)
        values = {leaf.name: leaf.value for leaf in leaves(settings)}
        names = [name for name in values if node.has_parameter(name)]
        assert len(names) >= 3
        assert {name: node.get_parameter(name).value for name in names} == {name: values[name] for name in names}
        assert all(type(node.get_parameter(name).value) is type(values[name]) for name in names)

    def test_settings_file_holds_defaults_so_that_no_other_file_needs_to_repeat_them(self) -> None:
        assert load_settings(CONFIG / "adapt.yaml") == Settings()

    def test_rviz_shows_topics_of_the_graph(self) -> None:
        rviz = yaml.safe_load((CONFIG / "adapt.rviz").read_text())["Visualization Manager"]
        shown = {d["Topic"]["Value"] for d in rviz["Displays"] if "Topic" in d}
        nodes = adaptation_graph(semantic_map=True)
        types = {node.topic(topic): kind for node in nodes for topic, kind in PUBLISHED[node.name].items()}
        assert shown <= set(types)
        assert {types[topic] for topic in shown} == {
            "sensor_msgs/msg/Image",
            "sensor_msgs/msg/PointCloud2",
            "nav_msgs/msg/OccupancyGrid",
            "visualization_msgs/msg/MarkerArray",
        }
        assert rviz["Global Options"]["Fixed Frame"] == load_settings(CONFIG / "adapt.yaml").stream.fixed_frame
        assert {"/segmentation/overlay", "/segmentation/mask"} <= shown
        assert "rviz_default_plugins/TF" in {d["Class"] for d in rviz["Displays"]}

    def test_the_page_gives_nav2s_manager_the_nodes_and_switches_its_bond_off(self) -> None:
        """The nodes send no heartbeat; nav2_lifecycle_manager wants none with a `bond_timeout` of 0."""
        page = (ROOT / "docs" / "robot.md").read_text()
        (command,) = re.findall(r"ros2 run nav2_lifecycle_manager .*?```", page, re.DOTALL)
        values = dict(re.findall(r"""-p "?(\w+):=(\[.*?\]|[^\s"]+)""", command))
        assert float(values["bond_timeout"]) == 0
        assert values["autostart"] == "true"
        assert yaml.safe_load(values["node_names"]) == [node.name for node in adaptation_graph()]

    def test_dds_profile_stays_on_this_machine_and_has_room_for_images(self) -> None:
        root = ElementTree.parse(CONFIG / "fastdds.xml").getroot()
        text = {re.sub(r"\{.*\}", "", element.tag): (element.text or "").strip() for element in root.iter()}
        assert int(text["segment_size"]) == 32 * 2**20
        assert int(text["maxMessageSize"]) == 8 * 2**20
        assert text["address"] == "127.0.0.1"
        assert text["useBuiltinTransports"] == "false"

    def test_dds_profile_is_an_absolute_file_or_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert fastdds_environment() == {}
        for distribution, variable in (("jazzy", "FASTRTPS"), ("humble", "FASTRTPS"), ("kilted", "FASTDDS")):
            monkeypatch.setenv("ROS_DISTRO", distribution)
            expected = {f"{variable}_DEFAULT_PROFILES_FILE": str(CONFIG / "fastdds.xml")}
            assert fastdds_environment(fastdds_profile="local") == expected
        with pytest.raises(SettingsError, match=r"missing\.xml"):
            fastdds_environment(fastdds_profile=str(tmp_path / "missing.xml"))
