"""What the nodes say of themselves, as the page shows it: status, curves, versions, drops, keyframes from above."""

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, Quaternion
from visualization_msgs.msg import Marker

from s4net_core.streams.drops import DROP_REASONS
from s4net_ros.cockpit.board import Board
from s4net_ros.history import History
from s4net_ros.msg import AdaptationStatus, ModelUpdate

CURVES = (
    *("loss", "loss_source", "loss_geometric", "agreement", "base_agreement"),
    *("score", "base_score", "source_miou", "base_source_miou"),
)
"""Fields of the status that are shown over time."""
SHOWN = (
    *("state", "reason", "keyframes", "segments", "pairs", "pairs_refused", "step", "version", "handovers", "refused"),
    *("last_refusal", "step_seconds", "model_path"),
)
"""Fields of the status that are shown as they are now."""
LABELLED, SUPERSEDED, FAILED = "labelled", "superseded", "failed."
"""Counters of the segmentation node in /diagnostics."""
SUPERSEDED_HELP = "a newer image came first: the camera is faster than the labelling; harmless"
REJECTED_HELP = "not dropped: the view was complete, but became no keyframe"
MAP = "map"
MAX_POINTS = 400
"""Points of a curve that are kept."""
MAX_VERSIONS = 50
MAX_KEYFRAMES = 2000
MIN_INTERVAL_S = 0.5
"""Seconds between two readings of a counter that give a rate; messages that waited come all at once."""
LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warn", DiagnosticStatus.ERROR: "error"}


class Readings:
    """Writes what it is told onto the board. Not thread-safe: all calls come from the executor's thread.

    Args:
        board: takes the values ``status``, ``curves``, ``versions``, ``drops`` and ``nodes``.
        segmentation, adaptation: full names of the two nodes.
    """

    def __init__(self, board: Board, segmentation: str, adaptation: str) -> None:
        self._board = board
        self._names = {segmentation: "segmentation", adaptation: "adaptation"}
        self._history: History[dict[str, Any]] = History(MAX_POINTS)
        self._versions: deque[dict[str, Any]] = deque(maxlen=MAX_VERSIONS)
        self._drops: dict[str, list[dict[str, Any]]] = {}
        self._nodes: dict[str, dict[str, str]] = {}
        self._rate = Rate()

    def on_status(self, message: AdaptationStatus) -> None:
        """The adaptation node's status."""
        self._board.put("status", {name: number(getattr(message, name)) for name in SHOWN})
        point = {name: number(getattr(message, name)) for name in CURVES}
        self._history.add({"time": time.time(), **point, "labels_per_second": number(self._rate.value)})
        points = self._history.points
        self._board.put("curves", {name: [point[name] for point in points] for name in points[-1]})
        dropped = zip(message.drop_reasons, message.drop_counts, strict=False)
        rejected = zip(message.rejected_reasons, message.rejected_counts, strict=False)
        drops = [drop("adaptation", reason, count, DROP_REASONS.get(reason, "")) for reason, count in dropped]
        drops += [drop("adaptation", reason, count, REJECTED_HELP) for reason, count in rejected]
        self._put_drops("adaptation", drops)

    def on_update(self, message: ModelUpdate) -> None:
        """An announcement of weights; a roll-back announces an earlier version again."""
        self._versions.append(
            {
                "version": message.version,
                "since": time.time(),  # the stamp may be of a bag
                "agreement": number(message.agreement),
                "source_miou": number(message.source_miou),
            }
        )
        self._board.put("versions", list(reversed(self._versions)))

    def on_diagnostics(self, statuses: Iterable[DiagnosticStatus]) -> None:
        """Part of /diagnostics; other programs' parts are left out."""
        for status in statuses:
            name = self._names.get(status.hardware_id)
            if name is None:
                continue
            self._nodes[name] = {"level": LEVELS.get(status.level, "error"), "message": status.message}
            self._board.put("nodes", dict(self._nodes))
            if name == "segmentation":
                self._on_counters({pair.key: pair.value for pair in status.values})

    def _on_counters(self, values: Mapping[str, str]) -> None:
        counts = {key: int(value) for key, value in values.items() if value.isdecimal()}
        self._rate.add(counts.get(LABELLED, 0))
        drops = [drop("segmentation", SUPERSEDED, counts.get(SUPERSEDED, 0), SUPERSEDED_HELP)]
        for key, count in sorted(counts.items()):
            if key.startswith(FAILED):
                reason = key.removeprefix(FAILED)
                drops.append(drop("segmentation", reason, count, DROP_REASONS.get(reason, "see the node's log")))
        self._put_drops("segmentation", drops)

    def _put_drops(self, node: str, drops: list[dict[str, Any]]) -> None:
        self._drops[node] = [one for one in drops if one["count"]]
        self._board.put("drops", [one for name in sorted(self._drops) for one in self._drops[name]])


class Rate:
    """Growth of a counter, a second."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self.value = math.nan
        """NaN before the second reading."""

    def add(self, count: int) -> None:
        """The counter now; it begins anew at 0 when its node does."""
        now, last = time.monotonic(), self._last
        if last and now - last[0] < MIN_INTERVAL_S:
            return
        if last:
            self.value = max(0, count - last[1]) / (now - last[0])
        self._last = now, count


class KeyframeMap:
    """Keyframes from above, put together from the markers that the adaptation node publishes for RViz.

    Args:
        board: takes the value `MAP`.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._keyframes: dict[int, list[Any]] = {}
        self._refused: list[list[float]] = []

    def on_markers(self, markers: Iterable[Marker]) -> None:
        """Newest changes."""
        for marker in markers:
            self._take(marker)
        shown = {"keyframes": list(self._keyframes.values()), "refused": self._refused}
        self._board.put(MAP, shown)

    def _take(self, marker: Marker) -> None:
        kind = marker.ns.removeprefix("keyframes/")
        if marker.action == Marker.DELETEALL:
            self._keyframes.clear()
            self._refused = []
        elif kind == "frustum" and marker.action == Marker.DELETE:
            self._keyframes.pop(marker.id, None)
        elif kind == "frustum" and (marker.id in self._keyframes or len(self._keyframes) < MAX_KEYFRAMES):
            drawn = keyframe(marker)
            if all(map(math.isfinite, drawn[:4])):
                self._keyframes[marker.id] = drawn
        elif kind == "refused_pairs":
            ends = marker.points[: 2 * MAX_KEYFRAMES] if marker.action == Marker.ADD else []
            pairs = zip(ends[::2], ends[1::2], strict=False)
            self._refused = [[*xy(a), *xy(b)] for a, b in pairs if all(map(math.isfinite, (*xy(a), *xy(b))))]


def keyframe(marker: Marker) -> list[Any]:
    """x, y (metres, world), viewing direction in x and y (length 0..1), and the marker's colour for CSS."""
    place, color = marker.pose.position, marker.color
    rgb = np.rint(255 * np.clip(np.nan_to_num([color.r, color.g, color.b]), 0, 1)).astype(int)
    return [*xy(place), *forward(marker.pose.orientation), "rgb({}, {}, {})".format(*rgb)]


def forward(q: Quaternion) -> tuple[float, float]:
    """The x and y of the camera's optical axis (its z) in the world."""
    return 2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x)


def xy(point: Point) -> tuple[float, float]:
    """Where a point lies when it is looked at from above, metres."""
    return round(point.x, 3), round(point.y, 3)


def drop(node: str, reason: str, count: int, remedy: str) -> dict[str, Any]:
    """A row of the table of drops."""
    return {"node": node, "reason": reason, "count": int(count), "remedy": remedy}


def number(value: Any) -> Any:
    """The value for JSON, which knows neither NaN nor infinity: None stands for both."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
