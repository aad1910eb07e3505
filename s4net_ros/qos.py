"""QoS profiles of all topics, and the explanation when two profiles do not fit."""

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

OUTPUT_DEPTH = 5


def stream_qos(reliability: str, depth: int) -> QoSProfile:
    """For images and camera_info: volatile, the newest `depth` messages kept.

    Args:
        reliability: ``best_effort`` (fits every publisher) or ``reliable`` (only reliable publishers).
    """
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy, durability=DurabilityPolicy.VOLATILE
    )


def latched_qos() -> QoSProfile:
    """For what is published when it changes, as weights, classes and maps: late joiners get the last message too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def mismatch(offered: QoSProfile, requested: QoSProfile, setting: str = "") -> str:
    """Why a subscription gets nothing from a publisher; empty when they fit.

    Args:
        offered: of the publisher.
        requested: of our subscription.
        setting: name of the setting that changes our reliability, for the remedy.
    """
    compatibility, reason = qos_check_compatible(_comparable(offered), _comparable(requested))
    if compatibility != QoSCompatibility.ERROR:
        return ""
    remedy = ""
    if requested.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        remedy = f": set {setting}:=best_effort" if setting else ": make the publisher reliable"
    return f"{reason.strip().rstrip(';')}{remedy}"


def _comparable(profile: QoSProfile) -> QoSProfile:
    """Only policies that can differ between a camera and us; discovery reports no history and odd "infinite" values."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=profile.reliability,
        durability=profile.durability,
        deadline=Duration(),
        liveliness=LivelinessPolicy.AUTOMATIC,
    )
