"""The layout for Foxglove: as its application loads it, and about topics, fields and services that are there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from s4net_core.config import load_settings
from s4net_ros.graph import adaptation_graph
from s4net_ros.msg import AdaptationStatus
from tools.docs.topics import PUBLISHED, SERVICES

CONFIG = Path(__file__).resolve().parents[2] / "config"
TITLE = "foxglovePanelTitle"
PANELS = {
    "3D": {"cameraState", "followMode", "followTf", "layers", "topics"},
    "Image": {"imageMode"},
    "Plot": {
        *("paths", "showLegend", "legendDisplay", "showPlotValuesInLegend", "showXAxisLabels", "showYAxisLabels"),
        *("isSynced", "xAxisVal", "followingViewWidth"),
    },
    "StateTransitions": {"isSynced", "paths"},
    "RawMessages": {
        *("topicPath", "diffEnabled", "diffMethod", "diffTopicPath", "showFullMessageForDiff", "expansion"),
    },
    "DiagnosticSummary": {"topicToRender", "minLevel", "pinnedIds", "hardwareIdFilter", "sortByLevel"},
    "CallService": {"serviceName", "requestPayload", "layout", "buttonText", "buttonTooltip"},
}
"""Panels and their fields as foxglove-sdk publishes them (foxglove.layouts), and Lichtblick's source."""
SERIES = {"value", "label", "enabled", "timestampMethod"}
REQUESTS = {"std_srvs/srv/SetBool": {"data": bool}, "std_srvs/srv/Trigger": {}}


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    return json.loads((CONFIG / "adapt.foxglove.json").read_text())


def panel_ids(node: "str | dict[str, Any]") -> Iterator[str]:
    """Panels of a tree of splits, as react-mosaic defines it."""
    if isinstance(node, str):
        yield node
        return
    assert node.keys() == {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in ("row", "column")
    assert 0 < node["splitPercentage"] < 100
    yield from panel_ids(node["first"])
    yield from panel_ids(node["second"])


def of_type(layout: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [config for id, config in layout["configById"].items() if id.startswith(f"{kind}!")]


def series(layout: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        path for kind in ("Plot", "StateTransitions") for config in of_type(layout, kind) for path in config["paths"]
    ]


def test_every_panel_is_placed_once_and_has_a_configuration(layout: dict[str, Any]) -> None:
    assert layout.keys() == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    assert sorted(panel_ids(layout["layout"])) == sorted(layout["configById"])


def test_panels_and_their_fields_are_known(layout: dict[str, Any]) -> None:
    for id, config in layout["configById"].items():
        kind, _, name = id.partition("!")
        assert name
        assert config.keys() - {TITLE} <= PANELS[kind], id
        assert len(config[TITLE]) > 3
    assert all(path.keys() == SERIES and path["timestampMethod"] == "receiveTime" for path in series(layout))


def test_topics_are_those_of_the_graph(layout: dict[str, Any]) -> None:
    types = {node.topic(topic): kind for node in adaptation_graph() for topic, kind in PUBLISHED[node.name].items()}
    (scene,) = of_type(layout, "3D")
    assert {types[topic] for topic in scene["topics"]} == {
        "sensor_msgs/msg/PointCloud2",
        "visualization_msgs/msg/MarkerArray",
    }
    images = [config["imageMode"] for config in of_type(layout, "Image")]
    assert "/segmentation/overlay" in {image["imageTopic"] for image in images}
    assert {types[image["imageTopic"]] for image in images} == {"sensor_msgs/msg/Image"}
    assert {types[image["calibrationTopic"]] for image in images} == {"sensor_msgs/msg/CameraInfo"}
    (status,) = of_type(layout, "RawMessages")
    assert types[status["topicPath"]] == "s4net_ros/msg/AdaptationStatus"
    (diagnostics,) = of_type(layout, "DiagnosticSummary")
    assert diagnostics["topicToRender"] == "/diagnostics"  # absolute in every namespace


def test_curves_are_fields_of_the_status(layout: dict[str, Any]) -> None:
    numbers = {"float", "double", "uint32", "uint64"}
    fields = AdaptationStatus.get_fields_and_field_types()
    drawn = {path["value"].removeprefix("/adaptation/status.") for path in series(layout)}
    assert drawn <= fields.keys()
    assert {name for name in drawn if fields[name] not in numbers} == {"state"}
    assert {"loss_source", "loss_geometric", "score", "base_score", "agreement", "version"} <= drawn


def test_the_scene_is_drawn_in_the_fixed_frame(layout: dict[str, Any]) -> None:
    (scene,) = of_type(layout, "3D")
    fixed_frame = load_settings(CONFIG / "adapt.yaml").stream.fixed_frame
    assert scene["followTf"] == fixed_frame
    assert scene["followMode"] == "follow-none"
    assert {layer["frameId"] for layer in scene["layers"].values()} == {fixed_frame}


def test_buttons_call_services_of_the_adaptation_node(layout: dict[str, Any]) -> None:
    (node,) = (node for node in adaptation_graph() if "adaptation/status" in PUBLISHED[node.name])
    for button in of_type(layout, "CallService"):
        assert re.fullmatch(rf"/{node.name}/\w+", button["serviceName"])
        type, _ = SERVICES[button["serviceName"].replace(f"/{node.name}", "~")]
        request = json.loads(button["requestPayload"])
        assert {name: value.__class__ for name, value in request.items()} == REQUESTS[type]
