"""The chain in processes of its own: player, segmentation node and adaptation node, and `s4net live` around them."""

import argparse
import json
import math
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run `make build`")
pytest.importorskip("s4net_ros.msg", reason="the messages are not built: run `make build`")

import numpy as np
from builtin_interfaces.msg import Time
from own_classes import five_frames, write_five
from rclpy.qos import QoSProfile
from scenes import make_room_frames, make_source_images, write_source_set
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from s4net_core.cli.main import main as s4net
from s4net_core.config import ModelSettings, Settings, load_settings
from s4net_core.errors import CaptureError, CheckpointError
from s4net_core.geometry.camera import rescale_frame
from s4net_core.io.bags.messages import stamp_ns
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.models.checkpoint import file_sha256, read_info
from s4net_ros import live as live_module
from s4net_ros.conversions import image_message
from s4net_ros.graph import NodeSpec, adaptation_graph, fastdds_environment
from s4net_ros.history import History
from s4net_ros.msg import ModelUpdate
from s4net_ros.qos import latched_qos
from s4net_ros.replay.monitor import MAX_REPORTS, Monitor, Record
from s4net_ros.replay.plan import add_arguments, make_plan
from s4net_ros.replay.processes import Children
from s4net_ros.weights import update_message

ROOT = Path(__file__).resolve().parents[2]
COLOR = "/camera/camera/color/image_raw"
FRAME_ID = "camera_color_optical_frame"
SMALL_FRAMES = 40
WAIT_S = 120.0
"""A slow and busy machine needs half a minute for the longest of these steps."""
SETTINGS = """
model: {encoder: tu-test_resnet, encoder_weights: none, width: 64, height: 48}
learner: {source_batch: 2, target_batch: 2, neighbours: 2}
guard: {holdout: 2, agreement_views: 4, max_source_drop: 1.0, max_score_drop: 1.0, max_class_share: 1.0,
        min_class_ratio: 0.0}
adaptation: {min_keyframes: 4, handover_every: 2, max_steps: 0, duty_cycle: 0.5}
stream: {color_reliability: reliable, depth_reliability: reliable, queue_depth: 50}
threads: 1
keyframes: {holdout: 0}  # random weights hardly ever score above the base model
"""


@pytest.fixture(scope="module")
def small_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a small camera."""
    path = tmp_path_factory.mktemp("small") / "bag"
    write_bag(path, make_room_frames(SMALL_FRAMES, 96, 72))
    return path


@pytest.fixture(scope="module")
def source_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source_set(folder, make_source_images(8))
    return folder


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    return path


class Chain:
    """Starts the nodes and the player as processes and watches them."""

    def __init__(self, children: Children, specs: list[NodeSpec], folder: Path) -> None:
        self.children = children
        self.specs = {spec.name: spec for spec in specs}
        self.monitor = Monitor(specs)
        self.state, self.logs = folder / "state", folder / "logs"

    def start(self, *names: str, **parameters: Any) -> None:
        for name in names:
            extra = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
            self.children.start(name, [*self.specs[name].command(), *extra])

    def play(self, bag: Path, *options: str, subscribers: int) -> None:
        command = [sys.executable, "-m", "s4net_ros.player", str(bag), "--wait-timeout", str(WAIT_S), *options]
        self.children.start("player", [*command, "--wait-for", f"{COLOR}:{subscribers}"], may_end=(0,))

    def watch_until(self, condition: Callable[[], Any], what: str, timeout: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self.monitor.spin(0.1)
            self.children.check()
            if time.monotonic() > deadline:
                logs = {path.name: path.read_text()[-1500:] for path in self.logs.iterdir()}
                pytest.fail(f"not within {timeout} s: {what}; {self.monitor.record}; {logs}")

    @property
    def served(self) -> dict[str, str]:
        """Newest diagnostics of the segmentation node."""
        return self.monitor.record.values.get("segmentation", {})

    @property
    def labelled(self) -> int:
        return self.monitor.record.labelled


@pytest.fixture
def make_chain(tmp_path: Path, ros: Any, settings_file: Path, source_set: Path, checkpoint: Path) -> Iterator[Any]:
    """`make_chain(checkpoint=...)`: a chain whose processes end with the test."""
    chains: list[Chain] = []
    environment = {**fastdds_environment(fastdds_profile="local"), "OMP_NUM_THREADS": "1"}
    with Children(tmp_path / "logs", environment) as children:

        def make(checkpoint: Path = checkpoint) -> Chain:
            specs = adaptation_graph(
                checkpoint=str(checkpoint),
                source_set=str(source_set),
                settings_file=str(settings_file),
                state_dir=str(tmp_path / "state"),
                use_sim_time=True,
            )
            chains.append(Chain(children, specs, tmp_path))
            return chains[-1]

        yield make
        for chain in chains:
            chain.monitor.close()


@pytest.fixture
def big_bag(tmp_path: Path) -> Path:
    """Ten seconds at 640x480, five frames a second."""
    frames = (rescale_frame(frame, 640, 480) for frame in make_room_frames(50, 160, 120, hz=5.0))
    write_bag(tmp_path / "big", frames)
    return tmp_path / "big"


def test_a_replay_is_answered_frame_by_frame_through_a_change_of_weights(
    ros: Any, make_chain: Any, make_checkpoint: Callable[..., Path], big_bag: Path
) -> None:
    stamps = [frame.stamp for frame in open_capture(big_bag)]
    assert len(stamps) == 50
    node = ros.node()
    masks: list[tuple[int, str, set[int]]] = []

    def on_mask(message: Image) -> None:
        labels = set(np.unique(message.data).tolist())
        masks.append((stamp_ns(message.header), message.header.frame_id, labels))

    node.create_subscription(Image, "segmentation/mask", on_mask, QoSProfile(depth=100))
    update = node.create_publisher(ModelUpdate, "model_update", latched_qos())
    chain = make_chain(make_checkpoint(4))
    chain.start("segmentation")
    chain.play(big_bag, subscribers=1)
    chain.watch_until(lambda: len(masks) >= 4, "first masks")
    weights = make_checkpoint(5, version=1)
    update.publish(update_message(weights, file_sha256(weights), read_info(weights), Time()))
    chain.watch_until(lambda: chain.children["player"].code is not None, "end of the bag")
    values = chain.monitor.record.values
    # A busy node still has frames in its queue when the bag has ended.
    counts: dict[str, int] = {}

    def all_done() -> bool:
        counts.update((key, int(text)) for key, text in values["segmentation"].items() if text.isdigit())
        done = counts["labelled"] + counts["superseded"]
        return counts["received"] == done >= 0.9 * len(stamps) and counts["labelled"] == len(masks)

    chain.watch_until(all_done, "last masks")

    answered = [stamp for stamp, _, _ in masks]
    positions = [stamps.index(stamp) for stamp in answered]
    assert positions == sorted(set(positions))
    assert {frame_id for _, frame_id, _ in masks} == {FRAME_ID}
    assert counts["received"] == counts["labelled"] + counts["superseded"]
    assert counts["received"] >= 0.9 * len(stamps)
    assert not any(key.startswith("failed") for key in counts)
    assert_one_clean_change([labels for _, _, labels in masks])


def assert_one_clean_change(masks: list[set[int]]) -> None:
    """Every mask is of one network: first all of class 4, then all of class 5."""
    assert masks == sorted(masks, key=min)
    assert {frozenset(labels) for labels in masks} == {frozenset({4}), frozenset({5})}


def test_new_weights_drop_no_frame(
    ros: Any, make_chain: Any, make_checkpoint: Callable[..., Path], big_bag: Path
) -> None:
    """Each frame is sent after the answer to the one before, so that even on a busy machine none is superseded."""
    chain = make_chain(make_checkpoint(4))
    chain.start("segmentation")
    node, qos = ros.node(), QoSProfile(depth=10)
    answers: list[tuple[int, str, set[int]]] = []

    def on_mask(message: Image) -> None:
        labels = set(np.unique(message.data).tolist())
        answers.append((stamp_ns(message.header), message.header.frame_id, labels))

    node.create_subscription(Image, "segmentation/mask", on_mask, qos)
    camera = node.create_publisher(Image, COLOR, qos)
    update = node.create_publisher(ModelUpdate, "model_update", latched_qos())
    frames = list(open_capture(big_bag))
    assert len(frames) == 50
    assert frames[0].color.shape == (480, 640, 3)
    chain.watch_until(lambda: camera.get_subscription_count(), "segmentation node")
    weights = make_checkpoint(5, version=1)
    for i, frame in enumerate(frames):
        if i == len(frames) // 3:
            update.publish(update_message(weights, file_sha256(weights), read_info(weights), Time()))
        if i == len(frames) - 5:  # the change may take long on a busy machine, and must lie within these frames
            chain.watch_until(lambda: chain.served.get("weights_version") == "1", "new weights serve")
        header = Header(frame_id=FRAME_ID, stamp=Time(sec=frame.stamp // 10**9, nanosec=frame.stamp % 10**9))
        camera.publish(image_message(frame.color, "rgb8", header))
        ros.wait_for(lambda i=i: len(answers) == i + 1, f"mask of frame {i}")

    assert [(stamp, frame_id) for stamp, frame_id, _ in answers] == [(frame.stamp, FRAME_ID) for frame in frames]
    assert_one_clean_change([labels for _, _, labels in answers])
    chain.watch_until(lambda: chain.served.get("labelled") == "50", "last report")
    assert (chain.served["received"], chain.served["superseded"]) == ("50", "0")
    assert not any(key.startswith("failed") for key in chain.served)


def test_labels_flow_without_the_learner_and_it_resumes_where_it_was(
    ros: Any, make_chain: Any, small_bag: Path
) -> None:
    chain = make_chain()
    chain.start("segmentation", "adaptation")
    chain.play(small_bag, "--loop", subscribers=2)
    record = chain.monitor.record
    chain.watch_until(lambda: record.handovers >= 1, "weights handed over")
    chain.watch_until(lambda: list(chain.state.glob("*/keyframes_*/index.json")), "keyframes on disk")
    chain.watch_until(lambda: sum(point.seconds > 0 for point in record.history.points) > 4, "five reports")
    reports = np.diff([point.seconds for point in record.history.points if point.seconds > 0])
    assert 0.5 < np.median(reports) < 1.5  # once a second, on a busy machine as well
    version = record.status.version

    chain.children["adaptation"].send(signal.SIGKILL)
    chain.children["adaptation"].wait(WAIT_S)
    killed = chain.children["adaptation"]
    before = chain.labelled
    ros.wait_for(lambda: chain.monitor.spin(0.1) or chain.labelled > before + 10, "labels go on")
    assert killed.code == -signal.SIGKILL

    # Without a camera, everything that it knows comes from its folder.
    chain.children["player"].send(signal.SIGINT)
    chain.children["player"].wait(WAIT_S)
    record.history = History(MAX_REPORTS)
    record.updates.clear()
    chain.start("adaptation")
    chain.watch_until(lambda: record.status and record.updates, "first report after the restart")
    assert record.history.points[0].keyframes >= 4
    assert record.history.points[0].version >= version
    resumed = record.updates[0].version
    assert resumed >= version
    assert Path(record.updates[0].path).is_file()
    chain.watch_until(lambda: int(chain.served["weights_version"]) >= version, "segmentation serves the version")
    chain.play(small_bag, "--loop", subscribers=2)
    used = lambda: int(record.values["adaptation"].get("frames_used", 0))  # noqa: E731
    chain.watch_until(lambda: used() and record.status.version > resumed, "it takes frames, and learning goes on")


def test_a_looped_bag_gives_the_keyframes_that_s4net_adapt_gives(
    make_chain: Any, small_bag: Path, settings_file: Path, checkpoint: Path, source_set: Path, tmp_path: Path
) -> None:
    chain = make_chain()
    chain.start("adaptation", **{"adaptation.min_keyframes": 10000})
    chain.play(small_bag, "--loop", subscribers=1)
    used = lambda: int(chain.monitor.record.values.get("adaptation", {}).get("frames_used", 0))  # noqa: E731
    chain.watch_until(lambda: used() > 2.5 * SMALL_FRAMES, "two and a half rounds")
    chain.children["adaptation"].send(signal.SIGINT)
    assert chain.children["adaptation"].wait(WAIT_S) == 0

    options = ["--checkpoint", checkpoint, "--source", source_set, "--settings", settings_file]
    options += ["--set", "adaptation.max_steps=2", "--state", tmp_path / "offline"]
    assert s4net([str(word) for word in ["adapt", small_bag, tmp_path / "adapted.safetensors", *options]]) == 0

    settings = load_settings(settings_file)
    live, offline = buffer(settings), buffer(settings)
    for keyframes, state in ((live, chain.state), (offline, tmp_path / "offline")):
        (folder,) = state.glob("*/keyframes_*")
        keyframes.load(folder)
    assert len(offline) >= 8
    assert live.ids() == offline.ids()
    for id in offline.ids():
        assert live.get(id).stamp == offline.get(id).stamp
        np.testing.assert_allclose(live.get(id).T_world_camera, offline.get(id).T_world_camera, atol=1e-9)
        np.testing.assert_array_equal(live.get(id).color, offline.get(id).color)
        np.testing.assert_array_equal(live.get(id).depth_mm, offline.get(id).depth_mm)


def buffer(settings: Settings) -> KeyframeBuffer:
    return KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)


@pytest.fixture
def live() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`live(*arguments)`: the program; when the test is over it has ended, and its children with it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "s4net_ros.live", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()  # its children get SIGTERM with its death
        process.communicate()


def finish(process: "subprocess.Popen[str]", timeout: float = 3 * WAIT_S) -> tuple[int, str]:
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def processes_about(path: Path) -> dict[int, str]:
    """Ids and command lines of running processes that name `path`."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in line:
            found[int(file.parent.name)] = line
    return found


def graph_options(settings_file: Path, checkpoint: Path, source_set: Path, out: Path) -> list[str | Path]:
    return ["--settings", settings_file, "--checkpoint", checkpoint, "--source-set", source_set, "--out", out]


def test_a_converted_capture_is_played_adapted_to_evaluated_and_reported(
    ros: Any,
    demo: Path,
    tmp_path: Path,
    settings_file: Path,
    checkpoint: Path,
    source_set: Path,
    live: Callable[..., Any],
) -> None:
    bag, out = convert(demo / "capture", tmp_path / "bag"), tmp_path / "out"
    write_scene_folder(tmp_path / "scan2", make_room_frames(6, 96, 72, seed=1))
    options = graph_options(settings_file, checkpoint, source_set, out)
    code, output = finish(live(bag, *options, "--versions", 2, "--evaluate", tmp_path / "scan2", "--seconds", 120))
    assert code == 0, output
    assert processes_about(out) == {}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["handovers"] >= 2
    assert [update["version"] for update in summary["updates"]][:2] in ([0, 1], [1, 2])
    assert 0 < summary["frames"]["labelled"] <= summary["frames"]["in"]
    assert summary["player"]["messages"][COLOR] >= summary["frames"]["in"] - 2
    assert summary["keyframes"] >= 8
    assert summary["loss"]["first"] > 0
    assert 0 <= summary["agreement"]["before"] <= 1
    assert 0 <= summary["agreement"]["after"] <= 1
    assert [point["step"] for point in summary["history"]] == sorted(point["step"] for point in summary["history"])
    networks = summary["evaluation"]["networks"]
    assert set(networks) == {"base", "adapted"}
    assert 0 <= networks["adapted"]["pooled"]["miou"] <= 1
    assert summary["evaluation"]["provenance"]["weights"]["base"] == file_sha256(checkpoint)
    assert "<img" in (out / "report.html").read_text()
    assert (out / "before_after.png").read_bytes().startswith(b"\x89PNG")
    for words in ("frames labelled", "model versions handed over", "agreement between views, before and after", "mIoU"):
        assert words in output


def test_the_demo_asks_live_for_what_is_in_the_repository(
    ros: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = runpy.run_path(str(ROOT / "demo" / "run.py"))
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.delenv("ROS_DOMAIN_ID")
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append((words, environment)))
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(demo["main"].__globals__, "OUT", tmp_path)
    demo["main"](["--steps", "2"])
    ((words, environment),) = started
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 101
    assert words[:4] == [sys.executable, "-m", "s4net_core.cli.main", "live"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(words[4:])
    plan = make_plan(args)
    assert (plan.limits.steps, plan.out) == (2, tmp_path)
    assert str(tmp_path / "bag") in plan.player
    assert "--loop" in plan.player
    assert plan.settings.adaptation.max_steps == 80
    assert read_info(plan.settings.checkpoint).model.encoder == plan.settings.model.encoder
    assert len(open_source_set(plan.settings.source.path)) == 360
    assert len(open_capture(args.evaluate, with_depth=False)) == 60
    assert plan.cockpit
    assert plan.cockpit[0].name == "cockpit"
    assert not plan.wait_for_browser


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["--cockpit", "true"]),
        (["--cockpit"], ["--wait-for-browser"]),
        (["--cockpit", "false"], ["--cockpit", "false"]),
    ],
)
def test_the_demo_has_a_cockpit_waits_for_it_or_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: list[str]
) -> None:
    demo = runpy.run_path(str(ROOT / "demo" / "run.py"))
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append(words))
    monkeypatch.setattr(subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 0))
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(demo["main"].__globals__, "OUT", tmp_path)
    demo["main"]([*options, "--steps", "2"])
    assert started[0][-len(expected) - 2 :] == [*expected, "--steps", "2"]


def test_both_nodes_learn_with_nothing_but_a_base_model_in_the_models_folder(tmp_path: Path, ros: Any) -> None:
    """No checkpoint, no labelled image, no settings but the package's own; the demo's network stands in for the hub's.

    Images alone are smaller: at 480x360 the first step takes a minute on a CPU.
    """
    settings = tmp_path / "adapt.yaml"
    settings.write_text(
        (ROOT / "config/adapt.yaml").read_text() + "    model: {width: 96, height: 72}\n    threads: 1\n"
    )
    models = tmp_path / ".ros/s4net/models"
    models.mkdir(parents=True)
    shutil.copy(ROOT / "demo/weights/base.safetensors", models / "upernet-convnext-tiny.safetensors")
    write_bag(tmp_path / "room", make_room_frames(40, 160, 120, hz=4.0))
    environment = {**fastdds_environment(fastdds_profile="local"), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    with Children(tmp_path / "logs", environment) as children:
        chain = Chain(children, adaptation_graph(settings_file=str(settings)), tmp_path)
        chain.start("segmentation", "adaptation")
        chain.play(tmp_path / "room", subscribers=2)
        try:
            chain.watch_until(lambda: chain.monitor.record.handovers, "a version")
            status = chain.monitor.record.status
            assert status is not None
            assert math.isnan(status.source_miou)
            chain.watch_until(lambda: int(chain.served.get("weights_version", 0)) > 0, "labels by that version")
            assert chain.labelled > 0
        finally:
            chain.monitor.close()


def test_bench_live_times_the_node_with_the_settings_of_the_command_line(
    ros: Any, settings_file: Path, checkpoint: Path, source_set: Path
) -> None:
    settings_file.write_text(f"{SETTINGS}device: 'cuda:99'\n")  # the node would not start with it
    command = [sys.executable, "-m", "s4net_core.cli.main", "bench", "live", "--repeats", 2]
    command += ["--settings", settings_file, "--checkpoint", checkpoint, "--source", source_set]
    command += ["--device", "cpu"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.replace("│", " ").split())
    for words in (
        "bare forward pass at 64x48",
        "the segmenter's own forward pass",
        "Segmenter at 480x360",
        "colour message to mask message",
    ):
        assert words in text
    for rate, frames in ((30, 60), (10, 20)):
        assert re.search(rf"848x480 at {rate} Hz: .* of {frames} frames, lost in transport \d+ frames", text)


@pytest.fixture
def looping(
    ros: Any,
    tmp_path: Path,
    small_bag: Path,
    settings_file: Path,
    checkpoint: Path,
    source_set: Path,
    live: Callable[..., Any],
) -> "tuple[subprocess.Popen[str], Path]":
    """The program and its folder of results, once labels flow; without a signal it plays for ever."""
    out = tmp_path / "out"
    process = live(small_bag, "--loop", *graph_options(settings_file, checkpoint, source_set, out))
    log = out / "logs" / "player.log"
    ros.wait_for(log.exists, "player")
    masks: list[bytes] = []
    ros.node().create_subscription(Image, "segmentation/mask", masks.append, QoSProfile(depth=10), raw=True)
    ros.wait_for(lambda: masks, "first mask")
    return process, out


def test_live_ends_everything_at_ctrl_c_and_still_reports(looping: "tuple[subprocess.Popen[str], Path]") -> None:
    process, out = looping
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 0, output
    assert processes_about(out) == {}
    assert json.loads((out / "summary.json").read_text())["stopped_by"] == "interrupted"


def test_live_reports_what_it_saw_until_a_node_was_killed(looping: "tuple[subprocess.Popen[str], Path]") -> None:
    process, out = looping
    (learner,) = (pid for pid, command in processes_about(out).items() if "s4net_ros.adaptation_node" in command)
    os.kill(learner, signal.SIGKILL)
    code, output = finish(process)
    assert code == 1
    assert f"s4net live: adaptation ended with exit code -9; the end of {out / 'logs' / 'adaptation.log'}" in output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped_by"] == "adaptation ended with exit code -9"
    assert summary["frames"]["labelled"] > 0
    assert processes_about(out) == {}


def test_live_shows_why_a_node_died(
    ros: Any, tmp_path: Path, small_bag: Path, settings_file: Path, source_set: Path, live: Callable[..., Any]
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    options = graph_options(settings_file, tmp_path / "broken.safetensors", source_set, tmp_path / "out")
    code, output = finish(live(small_bag, *options))
    assert code == 1
    assert "ended with exit code 1" in output
    assert "broken.safetensors" in output
    assert processes_about(tmp_path / "out") == {}


def test_live_says_once_that_there_is_no_base_model_and_begins_when_its_file_is_there(
    ros: Any,
    tmp_path: Path,
    small_bag: Path,
    settings_file: Path,
    checkpoint: Path,
    live: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("HOME", str(tmp_path)), ("HF_HOME", str(tmp_path)), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    process = live(small_bag, "--settings", settings_file, "--out", tmp_path / "out")
    told = next((line for line in process.stdout if line.startswith("waiting")), "")
    models = tmp_path / ".ros/s4net/models"
    assert "there is no base model: openmmlab/upernet-convnext-tiny could not be fetched" in told
    assert f"copy the file to {models}, or" in told
    (models / "copied").write_bytes(checkpoint.read_bytes())
    (models / "copied").rename(models / "upernet-convnext-tiny.safetensors")  # the nodes may look at any time
    output = process.stdout.read()
    assert process.wait(WAIT_S) == 0, output
    assert "waiting" not in output
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]["labelled"] > 0


def test_live_fetches_the_base_model_before_its_nodes_start_to_be_waited_for(
    ros: Any, tmp_path: Path, small_bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(checkpoint: str, model: ModelSettings) -> Path:
        raise CheckpointError(f"{checkpoint} was asked for")

    monkeypatch.setattr(live_module, "base_model_file", fails)
    assert live_module.main([str(small_bag), "--out", str(tmp_path / "out")]) == 2
    assert "auto was asked for" in capsys.readouterr().err
    assert not (tmp_path / "out" / "logs").exists()


def test_live_does_not_report_what_the_player_of_an_earlier_run_said(
    ros: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "player.json").write_text('{"damage": "the end is missing"}')
    monkeypatch.setattr(live_module, "start", lambda *_: None)
    monkeypatch.setattr(live_module, "_watch", lambda *_: (Record(), "interrupted", None))
    assert live_module.main(["--checkpoint", "demo", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["player"] is None


def test_live_reports_a_run_even_if_nothing_can_be_measured_on_the_scene(
    ros: Any, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan"
    write_scene_folder(scan, [replace(frame, label=None, depth=None) for frame in make_room_frames(2, 96, 72)])
    monkeypatch.setattr(live_module, "start", lambda *_: None)
    monkeypatch.setattr(live_module, "_watch", lambda *_: (Record(), "interrupted", None))
    given = ["--checkpoint", str(checkpoint), "--evaluate", str(scan), "--out", str(tmp_path)]
    assert live_module.main(given) == 2
    output = capsys.readouterr()
    assert "scan has neither labels nor overlapping views with depth" in output.err
    assert "frames labelled" in output.out
    assert "frames labelled" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--camera-name", "front"), ("/camera/front/color/image_raw", "--camera-name", COLOR)),
        (("--set", "learner.no_such=1"), ("learner.no_such",)),
        (("--settings", "nowhere.yaml"), ("nowhere.yaml",)),
        (("--out", __file__), (f"--out {__file__} cannot be a folder (File exists)",)),
    ],
)
def test_live_refuses_what_cannot_work_before_it_starts_anything(
    ros: Any,
    tmp_path: Path,
    small_bag: Path,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    live: Callable[..., Any],
) -> None:
    code, output = finish(live(small_bag, "--out", tmp_path / "out", *arguments))
    assert code == 2
    assert "Traceback" not in output
    assert not (tmp_path / "out" / "logs").exists()
    for word in words:
        assert word in output


def test_live_refuses_a_scene_on_which_it_could_not_compare_before_it_starts_anything(
    ros: Any, tmp_path: Path, small_bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene_folder(tmp_path / "warehouse", five_frames(2))
    write_five(tmp_path / "warehouse", "classes.yaml")
    for name, words in (("typo", "does not exist: check the path"), ("warehouse", "have no counterpart of pallet")):
        given = [str(small_bag), "--checkpoint", "demo", "--out", str(tmp_path / "out")]
        assert live_module.main([*given, "--evaluate", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out" / "logs").exists()


def test_live_plans_without_a_depth_topic_where_depth_is_predicted(tmp_path: Path, settings_file: Path) -> None:
    write_bag(tmp_path / "bag", [replace(frame, depth=None) for frame in make_room_frames(3)])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [str(tmp_path / "bag"), "--settings", str(settings_file), "--checkpoint", "c", "--source-set", "s"]
    with pytest.raises(CaptureError, match="aligned_depth_to_color"):
        make_plan(parser.parse_args(given))
    plan = make_plan(parser.parse_args([*given, "--set", "geometry.depth=predicted"]))
    assert plan.depth_topic == ""
    assert plan.color_topic == COLOR
    assert [word for word in plan.player if "depth" in word] == []
    assert all({"geometry.depth": "predicted"}.items() <= spec.parameters[-1].items() for spec in plan.specs)


@pytest.mark.parametrize("bag", [False, True])
def test_live_watches_the_topics_of_the_transport_that_its_nodes_get(tmp_path: Path, bag: bool) -> None:
    write_bag(tmp_path / "bag", make_room_frames(3), color="jpeg", depth="compressedDepth")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [*([str(tmp_path / "bag")] if bag else []), "--transport", "compressed", "--source-set", "s"]
    plan = make_plan(parser.parse_args([*given, "--set", "seed=7"]))
    assert plan.color_topic == f"{COLOR}/compressed"
    assert plan.depth_topic.endswith("/aligned_depth_to_color/image_raw/compressedDepth")
    assert plan.settings.source.path == os.path.abspath("s")  # as the nodes get it
    assert plan.settings.seed == 7


def test_live_plays_the_transport_that_is_asked_for_and_refuses_a_bag_without_it(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", make_room_frames(3), color="jpeg")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [str(tmp_path / "bag"), "--source-set", "s"]
    assert make_plan(parser.parse_args(given)).color_topic == f"{COLOR}/compressed"
    for word in ("--set", "stream.color_transport=raw"), ("--transport", "raw"):
        with pytest.raises(CaptureError, match=f"no {COLOR}: name its camera"):
            make_plan(parser.parse_args([*given, *word]))


@pytest.mark.parametrize(("waits", "needed"), [(False, 2), (True, 3)])
def test_live_begins_when_the_nodes_listen_and_if_asked_a_browser_too(waits: bool, needed: int) -> None:
    listeners = iter([0, 1, 2, 2, 3, 3])
    seen: list[int] = []

    def count(topic: str) -> int:
        if topic == "depth":
            return 1
        seen.append(next(listeners))
        return seen[-1]

    plan = SimpleNamespace(color_topic="color", depth_topic="depth", specs=[None, None], wait_for_browser=waits)
    node = SimpleNamespace(count_subscribers=count)
    monitor = SimpleNamespace(node=node, spin=lambda seconds: None, record=Record())
    children = SimpleNamespace(check=lambda: None)
    assert live_module.wait_for_nodes(plan, monitor, children, [])  # type: ignore[arg-type]
    assert seen[-1] == needed
    assert seen.count(needed) == 1


def test_live_takes_another_port_for_the_cockpit_where_its_own_is_in_use(
    tmp_path: Path, settings_file: Path, small_bag: Path
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        given = [str(small_bag), "--settings", str(settings_file), "--set", f"cockpit.port={port}", "--cockpit", "true"]
        plan = make_plan(parser.parse_args(given))
    assert plan.cockpit
    spec, address = plan.cockpit
    taken = spec.parameters[-1]["cockpit.port"]  # type: ignore[index]
    assert address == f"http://127.0.0.1:{taken}/"
    assert taken != port
    assert make_plan(parser.parse_args(given[:-2])).cockpit is None


def convert(capture: Path, bag: Path) -> Path:
    """`s4net convert` to a smaller size."""
    assert s4net(["convert", str(capture), str(bag), "--size", "120x90", "--stride", "2"]) == 0
    return bag
