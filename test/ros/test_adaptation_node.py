"""The adaptation node between a camera, tf, the learner and callers of its services."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import SECOND, Robot
from scenes import make_room_frames, make_source_images, write_source_set
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray
from watched_learner import WatchedLearner

from s4net_core.config import ModelSettings, Settings, to_yaml
from s4net_core.errors import CheckpointError
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.status import NO_STEP, Handover, Status
from s4net_core.learning.versions import Version
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, load_checkpoint, save_checkpoint
from s4net_ros import adaptation_node
from s4net_ros.adaptation import configured
from s4net_ros.adaptation_node import AdaptationNode
from s4net_ros.frame_assembly import DEEPEST_QUEUE
from s4net_ros.msg import ModelUpdate
from s4net_ros.srv import SaveModel

WIDTH, HEIGHT = 64, 48
WARN = 30
"""Of rcl_interfaces/Log, whose constants are bytes in some distributions."""


class Learning:
    """In place of the core's `Session`: real keyframes, and steps that the test controls."""

    def __init__(self, settings, folder):
        self.settings = settings
        self.folder = folder
        self.keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
        self.versions = [self._version(0)]
        self.steps = self.saves = self.offered = self.handovers = self.refused = 0
        self.rejected = Counter()
        self.closed = False
        self.refuse = ()
        self.fail = None
        self.fail_offer = None
        self.state = "waiting"
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def _version(self, number):
        path = self.folder / f"{number}.safetensors"
        path.write_bytes(f"weights {number}".encode())
        metrics = {"source_miou": 0.25, "agreement": 0.5} if number else {}
        info = CheckpointInfo(model=ModelSettings(), version=number, metrics=metrics)
        return Version(number, path, file_sha256(path), info)

    def offer(self, frame):
        if self.fail_offer:
            raise self.fail_offer
        answer = self.keyframes.offer(frame)
        if answer.id is None:
            self.rejected[answer.reason] += 1
        self.offered += 1
        return answer

    def advance(self):
        self.inside.set()
        assert self.gate.wait(60)
        time.sleep(0.002)
        self.inside.clear()
        if self.fail:
            raise self.fail
        self.steps += 1
        if self.refuse:
            self.refused += 1
            return Handover(self.current, self.refuse)
        if self.steps % 5:
            return None
        self.versions.append(self._version(len(self.versions)))
        self.handovers += 1
        return Handover(self.current)

    @property
    def current(self):
        return self.versions[-1]

    @property
    def status(self):
        return Status(
            state=self.state,
            offered=self.offered,
            keyframes=len(self.keyframes),
            keyframe_bytes=self.keyframes.nbytes,
            rejected=dict(self.rejected),
            step=self.steps,
            version=self.current.number,
            last_step=dataclasses.replace(NO_STEP, loss=1.5),
            handovers=self.handovers,
            refused=self.refused,
            model_path=str(self.current.path),
        )

    def reset(self):
        del self.versions[1:]
        self.keyframes.clear()
        return self.current

    def rollback(self):
        del self.versions[1:][-1:]
        self.versions = self.versions[:-1] or self.versions
        return self.current

    def save_model(self, path):
        Path(path).write_bytes(self.current.path.read_bytes())
        return self.current.sha256

    def save(self):
        assert not self.closed
        self.saves += 1

    def close(self):
        self.closed = True


@pytest.fixture
def settings():
    settings = Settings()
    settings.keyframes.min_sharpness = 0.0
    settings.stream.color_reliability = settings.stream.depth_reliability = "reliable"
    settings.stream.queue_depth = 50
    settings.stream.pose_wait = 0.3
    return settings


@pytest.fixture
def start(ros, settings, tmp_path, monkeypatch):
    """`start()` -> node, robot, learner (thread), learning (session); the node is active, everything is connected."""
    monkeypatch.setattr(adaptation_node, "STATUS_S", 0.05)
    settings.state_dir = str(tmp_path / "state")
    settings.stream.stall_warning = 600.0  # a test that waits for something else shows no frames meanwhile
    learnings, learners = [], []

    class Watched(WatchedLearner):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            learners.append(self)

    monkeypatch.setattr(configured, "LearnerThread", Watched)

    def make(**parameters):
        def make_learning(settings, folder):
            learnings.append(Learning(settings, tmp_path))
            return learnings[-1]

        robot = Robot(ros)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = AdaptationNode(settings, make_learning, context=ros.context, parameter_overrides=overrides)
        ros.add(node)
        assert node.autostart()
        robot.ready()
        return SimpleNamespace(
            node=node, robot=robot, learner=learners[-1], learning=learnings[-1], learnings=learnings
        )

    yield make
    for learning in learnings:
        learning.gate.set()


@pytest.fixture(scope="module")
def room():
    return make_room_frames(24, WIDTH, HEIGHT, seed=5)


# Frames.


def test_posed_frames_become_keyframes(ros, start, room):
    s = start()
    for frame in room[::4]:
        s.robot.show(frame)
    message = s.robot.wait_for_status(lambda m: m.frames_used == 6, "six frames")
    assert (message.frames_received, message.keyframes) == (6, len(s.learning.keyframes))
    assert message.keyframes >= 3
    assert message.keyframe_bytes == s.learning.keyframes.nbytes
    kept = s.learning.keyframes.get(s.learning.keyframes.ids()[0])
    np.testing.assert_array_equal(kept.color, room[0].color)
    np.testing.assert_allclose(kept.T_world_camera, room[0].T_world_camera, atol=1e-6)
    assert kept.frame_id == room[0].frame_id


def test_frames_that_cannot_be_used_are_counted_by_reason(ros, start, room):
    s = start()
    frames = room[::3]
    s.robot.show(frames[0])
    s.robot.show(frames[1], depth=np.zeros((HEIGHT, WIDTH), np.uint16))
    s.robot.show(frames[2], depth=np.ones((HEIGHT // 2, WIDTH // 2), np.uint16))
    s.robot.show(dataclasses.replace(frames[3], frame_id="camera_without_tf"), pose=False)
    later = [dataclasses.replace(f, stamp=f.stamp + 5 * SECOND) for f in frames[4:6]]
    for frame in later:
        s.robot.show(frame)
    message = s.robot.wait_for_status(lambda m: m.frames_used == 3, "three good frames")
    reasons = dict(zip(message.drop_reasons, message.drop_counts, strict=True))
    for reason in ("no_depth", "depth_size", "no_pose"):
        assert reasons.get(reason) == 1, reasons
    assert message.frames_received == 6


def test_a_frame_that_is_no_keyframe_was_used_all_the_same_and_a_reset_leaves_the_counts(ros, start, room):
    s = start()
    for n in range(4):
        s.robot.show(dataclasses.replace(room[0], stamp=room[0].stamp + n * SECOND // 10))
    message = s.robot.wait_for_status(lambda m: m.frames_used == 4, "four frames")
    rejected = dict(zip(message.rejected_reasons, message.rejected_counts, strict=True))
    assert (message.keyframes, rejected, message.drop_reasons) == (1, {"known_view": 3}, [])
    s.learning.state = "learning"
    before = s.robot.wait_for_status(lambda m: m.handovers >= 1, "a hand-over")
    s.learning.refuse = ("one class covers 99 %",)
    s.robot.wait_for_status(lambda m: m.refused >= 1, "a refusal")
    s.learning.state = "waiting"
    assert s.robot.call(Trigger, "adaptation/reset").success
    after = s.robot.wait_for_status(lambda m: m.version == 0 and m.keyframes == 0, "the reset")
    assert (list(after.rejected_counts), after.frames_used, after.frames_received) == ([3], 4, 4)
    assert after.handovers >= before.handovers
    assert after.refused >= 1


def test_a_frame_that_the_keyframes_choke_on_does_not_end_the_stream(ros, start, room):
    s = start()
    s.learning.fail_offer = RuntimeError("boom")
    s.robot.show(room[0])
    s.robot.wait_for_status(lambda m: "internal_error" in m.drop_reasons, "the error")
    s.learning.fail_offer = None
    s.robot.show(room[6])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1, "the next frame")


def test_at_rest_few_frames_are_looked_at_and_all_of_them_once_it_drives(ros, settings, start, room):
    settings.stream.queue_depth = DEEPEST_QUEUE
    s = start()
    log = s.robot.listen(Log, "/rosout", 100)
    step = round(SECOND / 30)
    shown = count()

    def show(x):
        """One frame of a camera at 30 Hz that is `x` metres to the side of where it stood."""
        T = room[0].T_world_camera.copy()
        T[:3, 3] += x * T[:3, 0]
        frame = dataclasses.replace(room[0], stamp=room[0].stamp + next(shown) * step, T_world_camera=T)
        s.robot.show(frame)
        time.sleep(1 / 30)
        return frame.stamp

    def at_rest(message):
        return dict(zip(message.drop_reasons, message.drop_counts, strict=True)).get("at_rest", 0)

    def new_status():
        before = len(s.robot.status)
        return ros.wait_for(lambda: s.robot.status[before + 1 :], "two more messages")[-1]

    ros.wait_for(lambda: show(0.0) and s.robot.status and at_rest(s.robot.status[-1]) >= 60, "frames left out")
    standing = s.robot.status[-1]
    assert standing.keyframes == 1
    assert standing.frames_used <= standing.frames_received - 60

    stamps = [show(0.02 * i) for i in range(1, 31)]  # 0.6 m/s
    s.robot.wait_for_status(lambda m: m.frames_received >= len(stamps) + standing.frames_received, "all frames")
    driving = new_status()
    assert driving.keyframes == 1 + 3
    kept = [s.learning.keyframes.get(id).stamp for id in s.learning.keyframes.ids()[1:]]
    assert kept[0] - stamps[7] <= 0.1 * SECOND  # of 0.16 m
    left_out = at_rest(driving)
    for i in range(31, 61):
        show(0.02 * i)
    assert at_rest(new_status()) == left_out
    assert set(driving.drop_reasons) == {"at_rest"}
    assert [line.msg for line in log if line.level >= WARN and line.name == "adaptation"] == []


def test_time_that_goes_back_costs_no_keyframes_and_frames_go_on(ros, start, room):
    s = start()
    for frame in room[::6]:
        s.robot.show(frame)
    s.robot.wait_for_status(lambda m: m.frames_used == 4)
    kept = s.learning.keyframes.ids()
    earlier = 0.9 * SECOND  # the first of these frames has stamp 1.0 s, the last before them had 2.8 s
    again = [
        dataclasses.replace(frame, stamp=int(frame.stamp - earlier))
        for frame in make_room_frames(24, WIDTH, HEIGHT, seed=9)[::6]
    ]
    s.robot.show(again[0])
    ros.wait_for(lambda: not s.robot.tf.get_subscription_count(), "old listener gone")
    s.robot.show(again[1])  # 0.6 s later: time has settled, but who publishes tf does not know the new listener yet
    s.robot.ready()
    for frame in again[2:]:
        s.robot.show(frame)
    message = s.robot.wait_for_status(lambda m: m.frames_used == 6, "frames of the new time")
    assert s.learning.keyframes.ids()[: len(kept)] == kept
    assert message.frames_received == message.frames_used + sum(message.drop_counts) == 8
    assert set(message.drop_reasons) == {"no_pose", "time_jump"}


# Learning.


def test_it_learns_and_announces_every_version_that_is_handed_over(ros, start):
    s = start()
    s.learning.state = "learning"
    ros.wait_for(lambda: len(s.robot.updates) >= 3, "updates")
    first, second = s.robot.updates[:2]
    assert (first.version, second.version) == (0, 1)
    assert second.path == str(s.learning.folder / "1.safetensors")
    assert second.sha256 == file_sha256(second.path)
    assert (second.source_miou, second.agreement) == (0.25, 0.5)
    message = s.robot.wait_for_status(lambda m: m.version >= 1 and m.step >= 5)
    assert (message.state, message.loss, message.reason) == ("learning", 1.5, "")
    assert message.duty_cycle == pytest.approx(s.node.settings.adaptation.duty_cycle)
    ros.wait_for(lambda: s.robot.level().level == DiagnosticStatus.OK, "diagnostics")


def test_who_comes_late_still_gets_the_weights_that_serve(ros, start):
    s = start()
    s.learning.state = "learning"
    ros.wait_for(lambda: s.learning.current.number >= 2)
    s.learning.state = "waiting"
    s.learner.submit(lambda: None).result(20)  # a running step has ended and has told what it handed over
    late = Robot(ros)
    ros.wait_for(lambda: late.updates, "latched update")
    assert [m.version for m in late.updates] == [s.learning.current.number]


def test_refused_weights_are_not_announced_and_the_session_alone_logs_them(ros, start, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("s4net_ros.adaptation.learner_thread.BACK_OFF_SECONDS", 0.01)
    s = start()
    all_of_them = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    updates = s.robot.listen(ModelUpdate, "model_update", all_of_them)
    ros.wait_for(lambda: updates, "the weights that serve")
    s.learning.refuse = ("one class covers 99 %",)
    s.learning.state = "learning"
    ros.wait_for(lambda: s.learning.refused > 10, "refusals")
    s.learning.refuse = ()
    ros.wait_for(lambda: updates[-1].version, "weights that are not refused")
    assert [m.version for m in updates[:2]] == [0, 1]
    log = "".join(capfd.readouterr()).replace(str(tmp_path), "")  # whose name is this test's
    assert "handed over" in log  # before it is announced
    assert "refused" not in log


def test_an_error_in_a_step_shows_in_status_and_diagnostics_and_is_over_after_resume(ros, start, room):
    s = start()
    s.learning.fail = RuntimeError("CUDA out of memory")
    s.learning.state = "learning"
    message = s.robot.wait_for_status(lambda m: m.state == "paused", "pause")
    assert (message.reason, message.failures) == ("RuntimeError: CUDA out of memory", 1)
    ros.wait_for(lambda: s.robot.level().level == DiagnosticStatus.ERROR, "ERROR")
    assert "CUDA out of memory" in s.robot.level().message
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1, "keyframes go on")
    s.learning.fail = None
    assert s.robot.call(SetBool, "adaptation/pause", data=False).success
    ros.wait_for(lambda: s.learning.steps > 1)
    s.robot.wait_for_status(lambda m: m.state == "learning" and not m.reason)
    ros.wait_for(lambda: s.robot.level().level == DiagnosticStatus.OK, "OK")


def test_a_learner_that_gets_no_core_shows_in_diagnostics(ros, start, room, monkeypatch):
    monkeypatch.setattr("s4net_core.machine.process.CoreWatch.held_up", lambda watch: 0.93)
    s = start()
    s.learning.state = "learning"
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1, "a keyframe")
    ros.wait_for(lambda: "waited for a core in 93%" in s.robot.level().message, "a warning")


def test_a_state_folder_that_cannot_be_written_is_said_and_the_node_goes_on(ros, settings, start, tmp_path, room):
    (tmp_path / "file").write_text("")
    settings.state_dir = str(tmp_path / "file" / "state")
    s = start()
    error = CheckpointError(f"weights cannot be written to {settings.state_dir}: not a directory")
    error.__cause__ = NotADirectoryError(20, "Not a directory")
    s.learning.fail = error
    s.learning.state = "learning"
    message = s.robot.wait_for_status(lambda m: m.state == "paused", "pause")
    assert settings.state_dir in message.reason
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1, "keyframes")


def test_robots_that_were_given_no_folder_have_one_each(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings.state_dir = ""
    assert adaptation_node.state_dir(settings, "/") == tmp_path / ".ros/s4net"
    assert adaptation_node.state_dir(settings, "/fleet/robot1") == tmp_path / ".ros/s4net/fleet/robot1"
    settings.state_dir = "~/mine"
    assert adaptation_node.state_dir(settings, "/robot1") == tmp_path / "mine"


def test_the_duty_cycle_may_be_changed_while_it_learns(ros, start):
    s = start()
    (result,) = s.node.set_parameters([Parameter("adaptation.duty_cycle", value=0.25)])
    assert result.successful
    s.robot.wait_for_status(lambda m: m.duty_cycle == 0.25, "the new share")


# Services.


def test_pause_answers_at_once_and_resume_goes_on(ros, start):
    s = start()
    s.learning.gate.clear()
    s.learning.state = "learning"
    ros.wait_for(s.learning.inside.is_set)
    assert s.robot.call(SetBool, "adaptation/pause", data=True).success  # while a step is running
    assert s.learning.inside.is_set()
    s.learning.gate.set()
    s.robot.wait_for_status(lambda m: m.state == "paused" and m.step == 1 and m.reason == "", "paused")
    assert s.robot.call(SetBool, "adaptation/pause", data=False).success
    s.robot.wait_for_status(lambda m: m.state == "learning" and m.step > 1, "learning")


def test_a_service_that_waits_for_the_step_holds_up_nothing_else(ros, start, room):
    s = start()
    s.learning.gate.clear()
    s.learning.state = "learning"
    ros.wait_for(s.learning.inside.is_set)
    client = s.robot.node.create_client(Trigger, "adaptation/reset")
    assert client.wait_for_service(60)
    reset = client.call_async(Trigger.Request())
    seen = len(s.robot.status)
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1 and len(s.robot.status) > seen + 3, "frames and status go on")
    assert s.robot.call(SetBool, "adaptation/pause", data=True).success
    assert not reset.done()
    s.learning.gate.set()
    ros.wait_for(reset.done, "reset after the step")
    assert reset.result().success
    assert len(s.learning.keyframes) == 0


def test_a_service_whose_work_waits_refuses_a_second_call(ros, start, tmp_path):
    """A queue of resets would stop learning for minutes."""
    s = start()
    s.learning.gate.clear()
    s.learning.state = "learning"
    ros.wait_for(s.learning.inside.is_set)
    first = []
    for kind, name, request in [
        (Trigger, "rollback", {}),
        (Trigger, "reset", {}),
        (SaveModel, "save_model", {"path": str(tmp_path / "saved.safetensors")}),
    ]:
        client = s.robot.node.create_client(kind, f"adaptation/{name}")
        assert client.wait_for_service(60)
        first.append(client.call_async(kind.Request(**request)))
        second = client.call_async(kind.Request(**request))
        ros.wait_for(second.done, f"the second {name} is answered")
        assert not second.result().success
        assert second.result().message == f"an earlier {name} has not ended yet: wait for it"
        assert not first[-1].done()
    s.learning.gate.set()
    ros.wait_for(lambda: all(call.done() for call in first), "the work of the first calls")
    assert s.robot.call(Trigger, "adaptation/reset").success  # the refusal ends with the work


def test_rollback_and_reset_announce_what_serves_then(ros, start):
    s = start()
    s.learning.state = "learning"
    ros.wait_for(lambda: s.learning.current.number >= 3)
    s.learning.state = "waiting"
    s.learner.submit(lambda: None).result(60)  # the step that may run has ended
    ros.wait_for(lambda: s.robot.updates and s.robot.updates[-1].version == s.learning.current.number)
    newest = s.learning.current.number
    answer = s.robot.call(Trigger, "adaptation/rollback")
    assert answer.success
    assert f"version {newest - 1}" in answer.message
    ros.wait_for(lambda: s.robot.updates[-1].version == newest - 1, "announcement of the roll-back")
    assert s.robot.call(Trigger, "adaptation/reset").success
    ros.wait_for(lambda: s.robot.updates[-1].version == 0, "announcement of the base model")


def test_a_rollback_of_the_base_model_says_that_there_is_no_earlier_version(ros, start):
    s = start()
    ros.wait_for(lambda: s.robot.updates, "the weights that serve")
    answer = s.robot.call(Trigger, "adaptation/rollback")
    assert (answer.success, answer.message) == (False, "version 0, the base model, serves: there is no earlier version")


def test_what_the_operator_does_is_logged(ros, start, room, tmp_path, capfd):
    s = start()
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learning.keyframes) == 1, "a keyframe")
    s.learning.state = "learning"
    ros.wait_for(lambda: s.learning.current.number >= 2)
    s.learning.state = "waiting"
    s.learner.submit(lambda: None).result(60)  # the step that may run has ended
    newest = s.learning.current.number
    capfd.readouterr()
    s.robot.call(SetBool, "adaptation/pause", data=True)
    s.robot.call(SetBool, "adaptation/pause", data=False)
    saved = tmp_path / "mine.safetensors"
    s.robot.call(SaveModel, "adaptation/save_model", path=str(saved))
    s.robot.call(Trigger, "adaptation/rollback")
    s.robot.call(Trigger, "adaptation/reset")
    s.robot.call(Trigger, "adaptation/rollback")  # refused, and so not done
    s.node.set_parameters([Parameter("adaptation.duty_cycle", value=0.25)])
    lines = [line.split("[adaptation]: ")[1] for line in capfd.readouterr().err.splitlines() if "[INFO]" in line]
    assert lines == [
        "~/pause: learning is paused",
        "~/pause: learning is not paused, its state is waiting",
        f"~/save_model: version {newest} written to {saved}",
        f"~/rollback: version {newest - 1} serves now ({tmp_path / f'{newest - 1}.safetensors'}), "
        f"version {newest} is given up",
        f"~/reset: version 0 serves now ({tmp_path / '0.safetensors'}), keyframes forgotten: 1",
        "adaptation.duty_cycle is 0.25 now",
    ]


def test_save_model_writes_the_file_and_names_it(ros, start, tmp_path):
    s = start()
    answer = s.robot.call(SaveModel, "adaptation/save_model", path=str(tmp_path / "mine.safetensors"))
    assert (answer.success, answer.sha256) == (True, file_sha256(tmp_path / "mine.safetensors"))
    assert str(tmp_path / "mine.safetensors") in answer.message
    (tmp_path / "state").mkdir()
    assert s.robot.call(SaveModel, "adaptation/save_model", path="mine.safetensors").success
    assert (tmp_path / "state" / "mine.safetensors").is_file()


@pytest.mark.parametrize(
    ("path", "text"),
    [("", "path is empty"), ("missing/folder/x.safetensors", "missing/folder"), ("~nouser/x", "~nouser/x")],
)
def test_save_model_answers_with_what_is_wrong(ros, start, path, text):
    s = start()
    answer = s.robot.call(SaveModel, "adaptation/save_model", path=path)
    assert not answer.success
    assert text in answer.message
    assert s.robot.call(SetBool, "adaptation/pause", data=True).success


def test_services_answer_before_the_node_is_configured(ros, settings):
    ros.add(AdaptationNode(settings, context=ros.context))
    robot = Robot(ros)
    for kind, name in ((SetBool, "pause"), (Trigger, "reset"), (Trigger, "rollback"), (SaveModel, "save_model")):
        answer = robot.call(kind, f"adaptation/{name}")
        assert not answer.success
        assert "not configured" in answer.message


# Lifecycle.


def test_it_refuses_to_start_without_a_base_model(ros, settings):
    nothing = settings.model_copy(update={"checkpoint": ""})
    with pytest.raises(ValueError, match="checkpoint is empty"):
        adaptation_node.open_session(nothing, Path("/nowhere"))
    node = ros.add(AdaptationNode(nothing, context=ros.context))
    assert not node.autostart()


def test_deactivated_it_neither_learns_nor_listens_and_goes_on_when_activated(ros, start, room):
    s = start()
    s.robot.show(room[0])
    s.robot.wait_for_status(lambda m: m.frames_used == 1)
    s.learning.state = "learning"
    ros.wait_for(lambda: s.learning.current.number >= 1)
    ros.on_executor(s.node.trigger_deactivate)
    ros.wait_for(lambda: not s.robot.color.get_subscription_count(), "subscription is gone")
    s.learner.settle()
    steps, heard = s.learning.steps, len(s.robot.updates)
    s.learner.settle()
    assert s.learning.steps == steps
    ros.on_executor(s.node.trigger_activate)
    ros.wait_for(lambda: len(s.robot.updates) > heard, "the weights that serve, again")
    s.robot.ready()
    s.robot.show(room[8])
    message = s.robot.wait_for_status(lambda m: m.frames_used == 2, "counts go on")
    assert message.frames_received == 2
    ros.wait_for(lambda: s.learning.steps > steps)


def test_deactivated_it_says_so_and_still_announces_which_weights_serve(ros, start):
    s = start()
    s.learning.gate.clear()
    s.learning.state, s.learning.steps = "learning", 4  # a hand-over is due
    ros.wait_for(s.learning.inside.is_set)
    ros.on_executor(s.node.trigger_deactivate)
    s.learning.gate.set()
    ros.wait_for(lambda: s.robot.updates[-1].version == 1, "the step that ended late")
    assert s.robot.call(Trigger, "adaptation/reset").success
    ros.wait_for(lambda: s.robot.updates[-1].version == 0, "the reset")
    ros.wait_for(lambda: s.robot.level().message == "not active", "/diagnostics")


def test_cleaning_up_saves_and_ends_the_thread(ros, start):
    s = start()
    ros.on_executor(s.node.trigger_deactivate)
    ros.on_executor(s.node.trigger_cleanup)
    assert (s.learning.saves, s.learning.closed) == (1, True)
    assert adaptation_node.THREAD_NAME not in [t.name for t in threading.enumerate()]


def test_a_step_that_does_not_end_is_given_up_at_clean_up(ros, start, room, monkeypatch):
    monkeypatch.setattr(configured, "JOIN_S", 0.1)
    s = start()
    s.robot.show(room[0])
    s.robot.wait_for_status(lambda m: m.frames_used == 1)
    s.learning.gate.clear()
    s.learning.state, s.learning.steps = "learning", 4  # a hand-over is due
    ros.wait_for(s.learning.inside.is_set)
    client = s.robot.node.create_client(Trigger, "adaptation/rollback")
    assert client.wait_for_service(60)
    answer = client.call_async(Trigger.Request())
    (learner,) = (thread for thread in threading.enumerate() if thread.name == adaptation_node.THREAD_NAME)
    ros.on_executor(s.node.trigger_deactivate)
    ros.on_executor(s.node.trigger_cleanup)
    assert (s.learning.saves, s.learning.closed) == (1, True)
    ros.wait_for(answer.done, "an answer of the service that waited for the step")
    assert not answer.result().success
    s.learning.gate.set()
    learner.join(20)
    assert not learner.is_alive()
    assert s.learning.current.number == 1
    assert [m.version for m in s.robot.updates] == [0]
    assert "not configured" in s.robot.call(Trigger, "adaptation/rollback").message


def test_configured_again_it_goes_on_with_a_session_of_its_own(ros, start, room):
    s = start()
    ros.on_executor(s.node.trigger_deactivate)
    ros.on_executor(s.node.trigger_cleanup)
    assert s.node.autostart()
    assert len(s.learnings) == 2
    s.robot.ready()
    s.robot.show(room[0])
    ros.wait_for(lambda: len(s.learnings[1].keyframes) == 1, "a keyframe")
    assert len(s.learning.keyframes) == 0


@pytest.mark.parametrize("busy", [True, False])
def test_the_process_leaves_without_teardown_only_while_a_step_runs(monkeypatch, busy):
    left, done = [], threading.Event()
    monkeypatch.setattr(adaptation_node, "run", lambda *_: 0)
    monkeypatch.setattr(adaptation_node.os, "_exit", left.append)
    step = threading.Thread(target=done.wait, args=(20,), name=adaptation_node.THREAD_NAME, daemon=True)
    if busy:
        step.start()
    assert adaptation_node.main([]) == 0
    assert left == ([0] if busy else [])
    done.set()
    if busy:
        step.join()


# Markers.


def test_keyframes_are_drawn_for_listeners_and_evicted_ones_deleted(ros, start, room):
    s = start()
    for frame in room[::6]:
        s.robot.show(frame)
    s.robot.wait_for_status(lambda m: m.frames_used == 4)
    count = len(s.learning.keyframes)
    markers = s.robot.listen(MarkerArray, "adaptation/keyframes", QoSProfile(depth=50))
    ros.wait_for(lambda: len(markers) >= 2, "markers")
    assert [m.action for m in markers[0].markers] == [Marker.DELETEALL]
    frusta = [m for m in markers[1].markers if m.ns == "keyframes/frustum" and m.action == Marker.ADD]
    assert [m.id for m in frusta] == s.learning.keyframes.ids()
    assert {m.header.frame_id for m in frusta} == {"odom"}
    first = frusta[0]
    np.testing.assert_allclose(
        [first.pose.position.x, first.pose.position.y, first.pose.position.z], room[0].T_world_camera[:3, 3], atol=1e-6
    )
    (path,) = (m for m in markers[1].markers if m.ns == "keyframes/path")
    assert len(path.points) == count
    latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late = s.robot.listen(MarkerArray, "adaptation/keyframes", latched)
    ros.wait_for(lambda: markers[1] in late, "everything, for the second listener")
    assert s.robot.call(Trigger, "adaptation/reset").success
    gone = [(Marker.DELETE, m.id) for m in frusta]
    ros.wait_for(
        lambda: [(m.action, m.id) for m in markers[-1].markers if m.ns == "keyframes/frustum"] == gone, "deletions"
    )


# With the real learner.


@pytest.fixture
def real(tmp_path, checkpoint):
    """Parameters of a node that learns on 64x48 pixels, and whose guard lets weights pass that are good enough."""
    write_source_set(tmp_path / "source", make_source_images(6, WIDTH, HEIGHT))
    settings = Settings(device="cpu", threads=1, checkpoint=str(checkpoint), state_dir=str(tmp_path / "state"))
    settings.source.path = str(tmp_path / "source")
    settings.model = ModelSettings(encoder="mobilenet_v2", encoder_weights="none", width=WIDTH, height=HEIGHT)
    settings.keyframes.min_sharpness = 0.0
    for name, value in {"source_batch": 2, "target_batch": 2, "neighbours": 2, "learning_rate": 1e-5}.items():
        setattr(settings.learner, name, value)
    settings.guard.holdout, settings.guard.agreement_views = 2, 2
    settings.adaptation.min_keyframes, settings.adaptation.handover_every = 3, 2
    settings.adaptation.duty_cycle = 1.0
    settings.stream.color_reliability = settings.stream.depth_reliability = "reliable"
    settings.stream.queue_depth = 50
    return settings


def show_room(ros, settings, room):
    """A robot before a node that learns, which has shown it half of the room's views."""
    robot, node = Robot(ros), ros.add(AdaptationNode(settings, context=ros.context))
    assert node.autostart()
    robot.ready()
    for frame in room[::2]:
        robot.show(frame)
    return robot


def test_weights_that_the_guard_refuses_are_told_and_never_announced(ros, real, room):
    real.learner.learning_rate, real.learner.trained = 0.5, "all"  # ruins any network,
    real.learner.weight_average = 0.0  # and no earlier step evens it out
    robot = show_room(ros, real, room)
    status = robot.wait_for_status(lambda m: m.refused >= 2, "refusals")
    assert (status.version, status.handovers) == (0, 0)
    assert status.last_refusal
    assert [m.version for m in robot.updates] == [0]


def test_it_learns_without_a_source_set(ros, real, room):
    real.source.path = ""
    robot = show_room(ros, real, room)
    status = robot.wait_for_status(lambda m: m.step >= 2, "steps")
    assert math.isnan(status.source_miou)
    assert status.loss_geometric > 0


def test_two_nodes_do_not_share_a_state_folder(ros, real):
    first = ros.add(AdaptationNode(real, context=ros.context))
    assert first.autostart()
    second = ros.add(AdaptationNode(real, context=ros.context, namespace="robot2"))
    assert not second.autostart()
    ros.on_executor(first.shut_down)
    assert second.autostart()


def test_it_adapts_to_a_camera_without_depth(ros, real, room, tmp_path):
    real.model.depth_decoder, real.geometry.depth = True, "predicted"
    real.checkpoint = str(tmp_path / "depth.safetensors")
    torch.manual_seed(0)
    save_checkpoint(real.checkpoint, build_network(real.model))
    robot, node = Robot(ros), ros.add(AdaptationNode(real, context=ros.context))
    assert node.autostart()
    robot.ready(with_depth=False)
    assert robot.depth.get_subscription_count() == 0
    for frame in room[::2]:
        robot.show(dataclasses.replace(frame, depth=None))
    status = robot.wait_for_status(lambda m: m.keyframes >= 3 and m.version >= 1, "weights handed over")
    assert (list(status.drop_reasons), status.frames_used) == ([], status.frames_received)
    assert status.coverage > 0
    update = robot.updates[-1]
    assert load_checkpoint(update.path, sha256=update.sha256)[1].model.depth_decoder
    assert ros.on_executor(node.trigger_deactivate) == TransitionCallbackReturn.SUCCESS


@pytest.mark.slow
def test_the_process_adapts_saves_at_sigterm_and_resumes(ros, real, room, tmp_path):
    file = tmp_path / "settings.yaml"
    indented = "\n".join("    " + line for line in to_yaml(real).splitlines())
    file.write_text(f"/**:\n  ros__parameters:\n{indented}\n")
    command = [sys.executable, "-m", "s4net_ros.adaptation_node", "--ros-args", "--params-file", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        robot = Robot(ros)
        ros.wait_for(lambda: robot.color.get_subscription_count(), "the process")
        robot.ready()
        for frame in room[::2]:
            robot.show(frame)
        ros.wait_for(lambda: [m for m in robot.updates if m.version >= 2], "two hand-overs")
        assert robot.call(SetBool, "adaptation/pause", data=True).success
        robot.wait_for_status(lambda m: m.state == "paused" and m.keyframes >= 3)
        told = len(robot.status)  # the step in hand may still hand over
        ros.wait_for(lambda: len({m.step for m in robot.status[told:][-2:]}) == 1 and len(robot.status) > told + 1)
        update, keyframes = robot.updates[-1], robot.status[-1].keyframes
        assert file_sha256(update.path) == update.sha256
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    node = ros.add(AdaptationNode(real, context=ros.context))
    again = Robot(ros)
    assert node.autostart()
    ros.wait_for(lambda: again.updates, "the weights that served")
    assert (again.updates[0].version, again.updates[0].sha256) == (update.version, update.sha256)
    assert again.wait_for_status(lambda m: m.keyframes == keyframes, "the same keyframes")
