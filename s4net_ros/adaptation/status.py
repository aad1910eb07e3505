"""What the adaptation node says about itself: the message of ``adaptation/status`` and its part of /diagnostics."""

from collections.abc import Mapping
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from s4net_core.learning.adapt import AdaptationStatus
from s4net_core.streams.drops import DROP_REASONS
from s4net_ros.diagnostics import Report
from s4net_ros.msg import AdaptationStatus as StatusMessage


@dataclass(frozen=True)
class NodeStatus:
    """What the node adds to the core's status. All counts are since start-up, whatever is reset meanwhile.

    Args:
        received: colour images that came.
        used: frames that were offered to the keyframe buffer.
        dropped: frames that were not, by reason.
        rejected: frames that were, and did not become keyframes, by reason.
        handovers: weights handed over.
        refused: weights that the guard refused.
        paused: somebody asked for a pause.
        failure: why learning stopped by itself; empty = it did not.
        failures: errors in learner steps.
        alive: whether the learner's thread runs.
        duty_cycle: share of the time that the learner may use the device.
        stall: why no frames come; empty while they do.
    """

    received: int
    used: int
    dropped: Mapping[str, int]
    rejected: Mapping[str, int]
    handovers: int
    refused: int
    paused: bool
    failure: str
    failures: int
    alive: bool
    duty_cycle: float
    stall: str


SAME_NAMES = (
    *("keyframes", "keyframe_bytes", "step", "loss", "loss_source", "loss_geometric", "coverage", "step_seconds"),
    *("version", "last_refusal", "agreement", "base_agreement", "source_miou"),
    *("base_source_miou", "model_path"),
)
"""Fields that the core's status and the message have in common."""


def state_of(core: AdaptationStatus, node: NodeStatus) -> str:
    """``waiting``, ``learning``, ``paused`` or ``finished``; a failure counts as a pause."""
    return "paused" if node.paused or node.failure else core.state


def status_message(core: AdaptationStatus, node: NodeStatus, stamp: Time) -> StatusMessage:
    """The message of one moment."""
    dropped, rejected = dict(sorted(node.dropped.items())), dict(sorted(node.rejected.items()))
    message = StatusMessage(
        state=state_of(core, node),
        reason=node.failure,
        failures=node.failures,
        frames_received=node.received,
        frames_used=node.used,
        drop_reasons=list(dropped),
        drop_counts=list(dropped.values()),
        rejected_reasons=list(rejected),
        rejected_counts=list(rejected.values()),
        handovers=node.handovers,
        refused=node.refused,
        duty_cycle=node.duty_cycle,
        **{name: getattr(core, name) for name in SAME_NAMES},
    )
    message.header.stamp = stamp
    return message


def report(core: AdaptationStatus, node: NodeStatus) -> Report:
    """ERROR when learning has failed, WARN when no frames come, else what it is doing."""
    values: dict[str, object] = {
        "state": state_of(core, node),
        "frames_received": node.received,
        "frames_used": node.used,
        **{name: getattr(core, name) for name in SAME_NAMES},
        "handovers": node.handovers,
        "refused": node.refused,
        "failures": node.failures,
        **{f"dropped.{reason}": count for reason, count in sorted(node.dropped.items())},
        **{f"rejected.{reason}": count for reason, count in sorted(node.rejected.items())},
    }
    if not node.alive:
        return Report(DiagnosticStatus.ERROR, "the learner's thread has ended: restart the node", values)
    if node.failure:
        return Report(DiagnosticStatus.ERROR, f"learning is paused: {node.failure}", values)
    if node.stall:
        return Report(DiagnosticStatus.WARN, node.stall, values)
    unusable = {reason: count for reason, count in node.dropped.items() if reason in DROP_REASONS}
    if unusable and not node.used:
        worst = max(unusable, key=lambda reason: unusable[reason])
        text = f"none of {node.received} frames could be used; {worst} ({unusable[worst]}): {DROP_REASONS[worst]}"
        return Report(DiagnosticStatus.WARN, text, values)
    text = f"{state_of(core, node)}: {core.keyframes} keyframes, step {core.step}, weights version {core.version}"
    return Report(DiagnosticStatus.OK, text, values)
