"""The policy for SROS 2 names what the processes of this package really use, and nothing else."""

import argparse
import asyncio
import gc
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import aiohttp
import rclpy
from cockpit_graph import free_port
from scenes import make_room_frames
from sensor_msgs.msg import PointCloud2

from s4net_core.files import share_file
from s4net_core.io.bags.storage import Bag
from s4net_core.io.bags.writer import write_bag
from s4net_ros.adaptation_node import AdaptationNode
from s4net_ros.cockpit_node import CockpitNode
from s4net_ros.graph import NodeSpec, adaptation_graph, cockpit_spec
from s4net_ros.live import PLAYER
from s4net_ros.replay.bag_player import BagPlayer, PlayerOptions
from s4net_ros.replay.monitor import Monitor
from s4net_ros.replay.plan import add_arguments, make_plan, with_overrides
from s4net_ros.segmentation_node import SegmentationNode
from s4net_ros.semantic_map_node import SemanticMapNode

KINDS = {
    ("topics", "publish"): "publisher",
    ("topics", "subscribe"): "subscriber",
    ("services", "reply"): "service",
    ("services", "request"): "client",
}
NODES = {"segmentation": SegmentationNode, "adaptation": AdaptationNode, "semantic_map": SemanticMapNode}


def allowed() -> dict[str, dict[str, set[str]]]:
    """Absolute names by node, and there by kind of endpoint."""
    profiles = {}
    for profile in ElementTree.parse(share_file("config", "sros2", "policy.xml")).getroot().iter("profile"):
        node, found = profile.attrib["node"], {kind: set() for kind in KINDS.values()}
        for rules in profile:
            names = {(one.text or "").replace("~", f"/{node}") for one in rules}
            for rule in rules.attrib:
                found[KINDS[rules.tag, rule]] |= {name if name.startswith("/") else f"/{name}" for name in names}
        profiles[node] = found
    return profiles


def used(node: Any) -> dict[str, set[str]]:
    """What the middleware knows of a node."""
    asked = {kind: getattr(node, f"get_{kind}_names_and_types_by_node") for kind in KINDS.values()}
    return {kind: {name for name, _ in ask(node.get_name(), "/")} for kind, ask in asked.items()}


def names_of(endpoints: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the one service that Humble's nodes do not have."""
    return {
        kind: {name for name in names if not name.endswith("get_type_description")} for kind, names in endpoints.items()
    }


@pytest.mark.parametrize("name", list(NODES))
def test_a_node_may_do_exactly_what_it_does(ros: Any, checkpoint: Path, tmp_path: Path, name: str) -> None:
    gc.collect()  # nodes of earlier tests have the same names, and stay in the graph until they are collected
    found: dict[str, set[str]] = {kind: set() for kind in KINDS.values()}
    expected = allowed()[name]
    ros.node().create_subscription(PointCloud2, "segmentation/points", lambda message: None, 1)  # depth is wanted
    for transport in ("raw", "compressed"):
        specs = adaptation_graph(
            checkpoint=str(checkpoint),
            state_dir=str(tmp_path),
            transport=transport,
            use_sim_time=True,
            semantic_map=True,
        )
        spec = next(spec for spec in specs if spec.name == name)
        node = ros.add(NODES[name](context=ros.context, cli_args=ros_words(spec)))
        assert node.autostart()
        depth = "compressedDepth" if transport == "compressed" else "aligned_depth_to_color/image_raw"
        ros.wait_for(lambda: any(t.endswith(depth) for t in used(node)["subscriber"]), "depth")  # noqa: B023
        found = {kind: names | used(node)[kind] for kind, names in found.items()}
        ros.on_executor(node.shut_down)
    assert names_of(found) == names_of(expected)


@pytest.mark.parametrize(
    ("transport", "topic"),
    [("raw", "/camera/camera/color/image_raw"), ("compressed", "/camera/camera/color/image_raw/compressed")],
)
def test_the_cockpit_may_do_exactly_what_it_does_while_a_browser_looks(
    ros: Any, checkpoint: Path, transport: str, topic: str
) -> None:
    gc.collect()
    spec = adaptation_graph(checkpoint=str(checkpoint), transport=transport)[0]
    labels = ros.add(SegmentationNode(context=ros.context, cli_args=ros_words(spec)))
    spec = with_overrides(cockpit_spec(use_sim_time=True), [f"cockpit.port={free_port()}"])
    node = ros.add(CockpitNode(context=ros.context, cli_args=ros_words(spec)))
    assert labels.autostart()
    assert node.autostart()
    found, expected = names_of(asyncio.run(look(ros, node, topic))), names_of(allowed()["cockpit"])
    images = {name for name in expected["subscriber"] if "/image_raw" in name}
    assert found["subscriber"] == expected["subscriber"] - images | {topic}
    assert {**found, "subscriber": None} == {**expected, "subscriber": None}
    assert topic in images


async def look(ros: Any, node: CockpitNode, topic: str) -> dict[str, set[str]]:
    """Show the page until a topic is subscribed; what is used then."""
    url = f"http://127.0.0.1:{node.settings.cockpit.port}/ws"
    wait = partial(ros.wait_for, lambda: topic in used(node)["subscriber"], topic)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session, session.ws_connect(url):
        await loop.run_in_executor(None, wait)
        await loop.run_in_executor(None, ros.on_executor, lambda: None)  # the callback that subscribes has ended
        return used(node)


def ros_words(spec: NodeSpec) -> list[str]:
    """What rclpy reads of a node's command line."""
    words = spec.command()
    return words[words.index("--ros-args") :]


def test_the_player_may_do_exactly_what_it_does_with_a_bag_of_ours(tmp_path: Path) -> None:
    found: dict[str, set[str]] = {kind: set() for kind in KINDS.values()}
    rclpy.init()
    try:
        for color, depth in (("raw", "raw"), ("jpeg", "compressedDepth")):
            write_bag(tmp_path / color, make_room_frames(2), color=color, depth=depth)
            with Bag(tmp_path / color) as bag:
                player = BagPlayer(bag, PlayerOptions())
                found = {kind: names | used(player.node)[kind] for kind, names in found.items()}
                player.node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert names_of(found) == names_of(allowed()["player"])


def test_the_monitor_may_do_exactly_what_it_does() -> None:
    monitor = Monitor(adaptation_graph())
    try:
        found, expected = used(monitor.node), allowed()[monitor.node.get_name()]
    finally:
        monitor.close()
    assert expected.pop("client") == {f"/{PLAYER}/pause"}  # exists only while it is called
    assert found.pop("client") == set()
    assert names_of(found) == names_of(expected)


def test_a_replay_may_wait_for_the_nodes_and_publish_what_the_player_does(
    ros: Any, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    profiles = allowed()
    spawn("-m", "s4net_ros.replay.when_active", "/segmentation", "/adaptation", "--", sys.executable, "-c", "")
    watcher = ros.node()

    def found() -> dict[str, set[str]]:
        names = watcher.get_node_names()
        asked = {kind: getattr(watcher, f"get_{kind}_names_and_types_by_node") for kind in KINDS.values()}
        known = "when_active" in names
        return {kind: {name for name, _ in ask("when_active", "/")} for kind, ask in asked.items()} if known else {}

    complete = {**profiles["when_active"], "client": {"/segmentation/get_state"}}  # one node after the other
    ros.wait_for(lambda: names_of(found()) == names_of(complete), f"{complete}")
    assert profiles["when_active"]["client"] == {f"/{name}/get_state" for name in NODES}
    assert profiles["rosbag2_player"]["publisher"] == profiles["player"]["publisher"] | {"/events/read_split"}


def test_the_operator_may_call_and_hear_what_the_nodes_offer_and_nothing_else() -> None:
    profiles = allowed()
    nodes = [profiles[name] for name in NODES]
    assert profiles["operator"]["client"] == set.union(*(node["service"] for node in nodes))
    assert profiles["operator"]["subscriber"] == set.union(*(node["publisher"] for node in nodes)) - {
        "/parameter_events"
    }
    assert not profiles["operator"]["service"]


def test_the_nodes_start_in_the_enclaves_of_the_policy() -> None:
    root = ElementTree.parse(share_file("config", "sros2", "policy.xml")).getroot()
    paths = {enclave.attrib["path"] for enclave in root.iter("enclave")}
    specs = [*adaptation_graph(semantic_map=True), cockpit_spec()]
    given = [spec.ros_arguments[spec.ros_arguments.index("--enclave") + 1] for spec in specs]
    assert given == ["/segmentation", "/adaptation", "/semantic_map", "/cockpit"]
    assert set(given) <= paths
    assert "/robot1/adaptation" in adaptation_graph(namespace="robot1")[1].ros_arguments


def test_a_live_run_starts_the_player_in_its_enclave(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", make_room_frames(2))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = make_plan(parser.parse_args([str(tmp_path / "bag")])).player
    assert words[words.index("--ros-args") :] == ["--ros-args", "--enclave", "/player"]
