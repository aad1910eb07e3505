"""What /diagnostics says of the adaptation node, by what has happened to it."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

from diagnostic_msgs.msg import DiagnosticStatus

from s4net_core.learning.adapt import AdaptationStatus
from s4net_core.streams.drops import DROP_REASONS
from s4net_ros.adaptation.status import NodeStatus, report


def node(**changes) -> NodeStatus:
    values = {
        "received": 30,
        "used": 20,
        "dropped": {"no_pose": 2},
        "rejected": {"known_view": 8},
        "handovers": 1,
        "refused": 0,
        "paused": False,
        "failure": "",
        "failures": 0,
        "alive": True,
        "duty_cycle": 0.7,
        "stall": "",
    }
    return NodeStatus(**{**values, **changes})


def test_all_is_well_while_frames_are_used():
    found = report(AdaptationStatus(state="learning", keyframes=12), node())
    assert found.level == DiagnosticStatus.OK
    assert "12 keyframes" in found.message
    assert (found.values["dropped.no_pose"], found.values["rejected.known_view"]) == (2, 8)


def test_when_no_frame_can_be_used_it_says_why_and_what_to_do():
    found = report(AdaptationStatus(), node(used=0, dropped={"depth_size": 28, "unmatched": 2}))
    assert found.level == DiagnosticStatus.WARN
    assert "depth_size (28)" in found.message
    assert DROP_REASONS["depth_size"] in found.message


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"alive": False}, DiagnosticStatus.ERROR, "thread has ended"),
        ({"failure": "disk full"}, DiagnosticStatus.ERROR, "disk full"),
        ({"stall": "no frame for 5.0 s"}, DiagnosticStatus.WARN, "no frame for 5.0 s"),
    ],
)
def test_failures_come_first(changes, level, text):
    found = report(AdaptationStatus(), node(used=0, dropped={"no_pose": 30}, **changes))
    assert (found.level, text in found.message) == (level, True)
