"""Status of the adaptation node: the message of ``adaptation/status`` and its part of /diagnostics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from s4net_core.learning.status import Status
from s4net_core.learning.stopping import LEARNING
from s4net_ros.diagnostics import Report
from s4net_ros.msg import AdaptationStatus as StatusMessage

LARGEST_HELD_UP = 0.5
"""Share of the last minute in which the learner may wait for a core before /diagnostics warns."""


@dataclass(frozen=True)
class NodeStatus:
    """Values that the node adds to the status of its session. All counts begin when the node is configured.

    Args:
        received: colour images that arrived.
        dropped: frames that were not offered to the session, by reason.
        paused: somebody asked for a pause.
        failure: why learning stopped by itself; empty = it did not.
        failures: errors in learner steps.
        active: whether the node is active; while it is not, nothing is learned.
        alive: whether the learner's thread runs.
        duty_cycle: share of the time that the learner may use the device.
        held_up: share of the last minute in which the learner could have run while others had all cores, 0..1.
        stall: why no frames come; empty while they do.
    """

    received: int
    dropped: Mapping[str, int]
    paused: bool
    failure: str
    failures: int
    active: bool
    alive: bool
    duty_cycle: float
    held_up: float
    stall: str


def state_of(session: Status, node: NodeStatus) -> str:
    """``waiting``, ``learning``, ``paused`` or ``finished``; a failure counts as a pause."""
    return "paused" if node.paused or node.failure else session.state


def status_message(session: Status, node: NodeStatus, stamp: Time) -> StatusMessage:
    """The message of one moment."""
    dropped, rejected = dict(sorted(node.dropped.items())), dict(sorted(session.rejected.items()))
    message = StatusMessage(
        reason=node.failure,
        drop_reasons=list(dropped),
        drop_counts=list(dropped.values()),
        rejected_reasons=list(rejected),
        rejected_counts=list(rejected.values()),
        duty_cycle=node.duty_cycle,
        **_numbers(session, node),
    )
    message.header.stamp = stamp
    return message


def _numbers(session: Status, node: NodeStatus) -> dict[str, Any]:
    """Values that the message and /diagnostics have in common, by their names in the message."""
    last, new, base = session.last_step, session.health, session.base_health
    return {
        "state": state_of(session, node),
        "frames_received": node.received,
        "frames_used": session.offered,
        "keyframes": session.keyframes,
        "keyframe_bytes": session.keyframe_bytes,
        "segments": session.segments,
        "pairs": session.pairs.usable,
        "pairs_refused": session.pairs.refused,
        "pairs_parted": session.pairs.parted,
        "step": session.step,
        "loss": last.loss,
        "loss_source": last.loss_source,
        "loss_geometric": last.loss_geometric,
        "coverage": last.coverage,
        "step_seconds": last.seconds,
        "version": session.version,
        "last_refusal": session.last_refusal,
        "score": new.score,
        "base_score": base.score,
        "agreement": new.agreement,
        "base_agreement": base.agreement,
        "source_miou": new.source_miou,
        "base_source_miou": base.source_miou,
        "model_path": session.model_path,
        "handovers": session.handovers,
        "refused": session.refused,
        "failures": node.failures,
    }


def report(session: Status, node: NodeStatus) -> Report:
    """ERROR when learning has failed, WARN when frames, poses, disk or time do not suffice, else OK with the state."""
    values: dict[str, object] = {
        **_numbers(session, node),
        "source_left_out": session.source_left_out,
        "held_up": node.held_up,
        **{f"dropped.{reason}": count for reason, count in sorted(node.dropped.items())},
        **{f"rejected.{reason}": count for reason, count in sorted(session.rejected.items())},
    }
    if not node.alive:
        return Report(DiagnosticStatus.ERROR, "the learner's thread has ended: restart the node", values)
    if node.failure:
        return Report(DiagnosticStatus.ERROR, f"learning is paused: {node.failure}", values)
    if node.stall:
        return Report(DiagnosticStatus.WARN, node.stall, values)
    if session.unsaved:
        return Report(DiagnosticStatus.WARN, f"nothing is saved: {session.unsaved}", values)
    if not node.active:
        return Report(DiagnosticStatus.OK, "not active", values | {"state": "inactive"})
    if session.doubt:
        return Report(DiagnosticStatus.WARN, f"{session.doubt}; such keyframes are forgotten", values)
    if node.held_up > LARGEST_HELD_UP and state_of(session, node) == LEARNING:
        text = (
            f"the learner waited for a core in {node.held_up:.0%} of the last minute, because the labels or other "
            "programs used all: label fewer or smaller images, end other programs, or lower adaptation.niceness"
        )
        return Report(DiagnosticStatus.WARN, text, values)
    progress = f"{session.keyframes} keyframes, step {session.step}, weights version {session.version}"
    text = f"{state_of(session, node)}: {progress}"
    return Report(DiagnosticStatus.OK, text, values)
