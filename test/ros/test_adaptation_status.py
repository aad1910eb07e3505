"""/diagnostics of the adaptation node: level and text for each thing that can happen to it."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from s4net_core.keyframes import PairCounts
from s4net_core.learning.guard import Health
from s4net_core.learning.learner import StepReport
from s4net_core.learning.status import Status
from s4net_ros.adaptation.status import NodeStatus, report, status_message


def node(**changes) -> NodeStatus:
    values = {
        "received": 30,
        "dropped": {"no_pose": 2},
        "paused": False,
        "failure": "",
        "failures": 0,
        "active": True,
        "alive": True,
        "duty_cycle": 0.7,
        "held_up": 0.1,
        "stall": "",
    }
    return NodeStatus(**{**values, **changes})


def test_all_is_well_while_frames_are_used():
    found = report(Status(state="learning", keyframes=12, offered=20, rejected={"known_view": 8}), node())
    assert found.level == DiagnosticStatus.OK
    assert "12 keyframes" in found.message
    assert (found.values["dropped.no_pose"], found.values["rejected.known_view"]) == (2, 8)


def test_a_node_that_is_not_active_does_not_say_that_it_learns():
    found = report(Status(state="learning", keyframes=12, offered=20), node(active=False))
    assert (found.level, found.message, found.values["state"]) == (DiagnosticStatus.OK, "not active", "inactive")
    assert found.values["keyframes"] == 12


def test_a_state_folder_that_cannot_be_written_is_a_warning():
    found = report(Status(offered=20, unsaved="state folder /x cannot be written"), node())
    assert (found.level, found.message) == (
        DiagnosticStatus.WARN,
        "nothing is saved: state folder /x cannot be written",
    )


def test_poses_that_contradict_each_other_are_told():
    found = report(
        Status(state="learning", offered=20, doubt="12 keyframes contradict others: check the poses"), node()
    )
    assert found.level == DiagnosticStatus.WARN
    assert found.message == "12 keyframes contradict others: check the poses; such keyframes are forgotten"


@pytest.mark.parametrize(
    ("state", "held_up", "level"),
    [
        ("learning", 0.93, DiagnosticStatus.WARN),
        ("learning", 0.4, DiagnosticStatus.OK),
        ("finished", 0.93, DiagnosticStatus.OK),
    ],
)
def test_a_learner_that_gets_no_core_is_told(state, held_up, level):
    found = report(Status(state=state, offered=20), node(held_up=held_up))
    assert found.level == level
    assert ("waited for a core in 93% of the last minute" in found.message) == (level == DiagnosticStatus.WARN)
    assert found.values["held_up"] == held_up


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"alive": False}, DiagnosticStatus.ERROR, "thread has ended"),
        ({"failure": "disk full"}, DiagnosticStatus.ERROR, "disk full"),
        ({"stall": "no frame for 5.0 s"}, DiagnosticStatus.WARN, "no frame for 5.0 s"),
    ],
)
def test_failures_come_first(changes, level, text):
    found = report(Status(), node(dropped={"no_pose": 30}, **changes))
    assert (found.level, text in found.message) == (level, True)


def test_the_message_says_what_session_and_node_know_and_diagnostics_say_the_same():
    step = StepReport(7, loss=3.0, loss_source=2.0, loss_geometric=0.5, coverage=0.25, seconds=0.125)
    health, base = (Health(True, miou, 0.5, agreement, 0.4, 9) for miou, agreement in ((0.5, 0.75), (0.25, 0.625)))
    session = Status(
        state="learning",
        keyframes=12,
        keyframe_bytes=99,
        segments=2,
        pairs=PairCounts(usable=30, refused=5, parted=1),
        offered=20,
        rejected={"known_view": 8},
        step=7,
        last_step=step,
        version=3,
        model_path="/w/3.safetensors",
        handovers=4,
        refused=2,
        last_refusal="too bad",
        health=health,
        base_health=base,
    )
    message = status_message(session, node(failures=5), Time(sec=9))
    expected = {
        "state": "learning",
        "reason": "",
        "failures": 5,
        "keyframes": 12,
        "keyframe_bytes": 99,
        "segments": 2,
        "pairs": 30,
        "pairs_refused": 5,
        "pairs_parted": 1,
        "frames_received": 30,
        "frames_used": 20,
        "step": 7,
        "loss": 3.0,
        "loss_source": 2.0,
        "loss_geometric": 0.5,
        "coverage": 0.25,
        "step_seconds": 0.125,
        "version": 3,
        "handovers": 4,
        "refused": 2,
        "last_refusal": "too bad",
        "score": 0.5,
        "base_score": 0.5,
        "agreement": 0.75,
        "base_agreement": 0.625,
        "source_miou": 0.5,
        "base_source_miou": 0.25,
        "model_path": "/w/3.safetensors",
    }
    assert {name: getattr(message, name) for name in expected} == expected
    assert (message.drop_reasons, list(message.drop_counts)) == (["no_pose"], [2])
    assert (message.rejected_reasons, list(message.rejected_counts)) == (["known_view"], [8])
    assert message.header.stamp.sec == 9
    values = report(session, node(failures=5)).values
    assert {name: values[name] for name in expected if name != "reason"} == {
        name: value for name, value in expected.items() if name != "reason"
    }


@pytest.mark.parametrize("changes", [{"paused": True}, {"failure": "disk full"}])
def test_a_failure_counts_as_a_pause(changes):
    assert status_message(Status(state="learning"), node(**changes), Time()).state == "paused"
