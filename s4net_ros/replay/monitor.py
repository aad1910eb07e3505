"""Watches a running graph from outside: its inputs, its outputs and its learning."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool

from s4net_core.errors import S4NetError
from s4net_core.files import nan_as_none
from s4net_ros.graph import NodeSpec
from s4net_ros.history import History
from s4net_ros.msg import AdaptationStatus, ModelUpdate
from s4net_ros.qos import latched_qos

NODE = "live_monitor"
"""Name of the monitor's node, and of its enclave in SROS 2."""
SEGMENTATION, ADAPTATION = "segmentation", "adaptation"
SEGMENTATION_DROPS = ("superseded", "failed.")
"""Prefixes of the segmentation node's counters of frames without labels."""
MAX_REPORTS = 3600
"""Reports of the adaptation node that are kept: all of an hour; those of a longer run lie farther apart."""
LOSS_WINDOW = 5
"""Loss is noisy: the first and the last value are means over this many reports."""


@dataclass(frozen=True)
class StatusPoint:
    """One report of the adaptation node; `seconds` count from the first colour frame."""

    seconds: float
    state: str
    keyframes: int
    step: int
    loss: float
    loss_source: float
    loss_geometric: float
    version: int
    handovers: int
    refused: int
    score: float
    base_score: float
    agreement: float
    base_agreement: float
    source_miou: float
    base_source_miou: float


@dataclass(frozen=True)
class HandedOver:
    """One announcement of weights."""

    seconds: float
    version: int
    path: str
    sha256: str
    source_miou: float
    agreement: float


@dataclass
class Record:
    """Everything that the monitor saw of a run.

    Args:
        frames: colour frames that the camera or the bag sent.
        labelled: masks that came back.
        dropped: node -> reason -> frames.
        values: node -> its newest values in /diagnostics.
        history: reports of the adaptation node, once a second at first.
        accepted: the first report after the last hand-over; later ones may describe weights that were refused.
        updates: announcements of weights; the first one names the weights that served at the start.
        last_refusal: why the guard last refused weights.
    """

    frames: int = 0
    labelled: int = 0
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    history: History[StatusPoint] = field(default_factory=lambda: History(MAX_REPORTS))
    accepted: StatusPoint | None = None
    updates: list[HandedOver] = field(default_factory=list)
    last_refusal: str = ""

    def add(self, report: StatusPoint) -> None:
        """Take a report of the adaptation node."""
        if report.handovers > self.handovers:
            self.accepted = report
        self.history.add(report)

    @property
    def status(self) -> StatusPoint | None:
        """The last report."""
        return self.history.points[-1] if self.history.points else None

    @property
    def handovers(self) -> int:
        """Versions handed over since the adaptation node was configured."""
        return self.status.handovers if self.status else 0

    @property
    def unconfigured(self) -> str:
        """Which node waits for a base model, and what it says of that; empty = none does."""
        for name, values in self.values.items():
            if values.get("state") == "unconfigured":
                return f"{name} is {values['message']}"
        return ""

    def loss(self) -> tuple[float, float]:
        """Loss at the beginning and at the end; NaN before the first step."""
        values = list({point.step: point.loss for point in self.history.points if math.isfinite(point.loss)}.values())
        window = max(1, min(LOSS_WINDOW, len(values) // 2))
        return _mean(values[:window]), _mean(values[-window:])

    def before_after(self, measured: str) -> tuple[float, float]:
        """A measurement of the base model and of the weights handed over last, on the same images.

        Args:
            measured: ``score``, ``agreement`` or ``source_miou``.

        Returns:
            NaN for what was not measured.
        """
        found = self.accepted
        return (getattr(found, f"base_{measured}"), getattr(found, measured)) if found else (math.nan, math.nan)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


class Monitor:
    """A node that fills a `Record`. The segmentation node labels frames because this node subscribes to the masks.

    Args:
        specs: the graph, for the names of its topics.
    """

    def __init__(self, specs: Sequence[NodeSpec]) -> None:
        self.record = Record()
        self._began = 0.0
        self._context = rclpy.Context()
        # The program handles signals itself: it has to end its children and write a summary.
        enclave = ["--ros-args", "--enclave", f"/{NODE}"]
        rclpy.init(args=enclave, context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(NODE, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._names = {f"/{spec.namespace.strip('/')}/{spec.name}".replace("//", "/"): spec.name for spec in specs}
        self._subscribe({spec.name: spec for spec in specs})

    def _subscribe(self, specs: dict[str, NodeSpec]) -> None:
        segmentation, adaptation = specs[SEGMENTATION], specs[ADAPTATION]
        stream = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscribe: Any = self.node.create_subscription
        subscribe(CameraInfo, segmentation.topic("color/camera_info"), self._on_frame, stream, raw=True)
        subscribe(Image, segmentation.topic("segmentation/mask"), self._on_mask, stream, raw=True)
        subscribe(AdaptationStatus, adaptation.topic("adaptation/status"), self._on_status, QoSProfile(depth=10))
        subscribe(ModelUpdate, adaptation.topic("model_update"), self._on_update, latched_qos())
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10))

    @property
    def seconds(self) -> float:
        """Time since the first colour frame; 0 before."""
        return time.monotonic() - self._began if self._began else 0.0

    def spin(self, seconds: float) -> None:
        """Handle messages for `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def unpause(self, player: str, timeout: float) -> None:
        """Let a paused player start.

        Args:
            player: full name of its node.
            timeout: seconds.

        Raises:
            S4NetError: the player does not answer.
        """
        client = self.node.create_client(SetBool, f"{player}/pause")
        try:
            if client.wait_for_service(timeout_sec=timeout):
                future = client.call_async(SetBool.Request(data=False))
                self._executor.spin_until_future_complete(future, timeout_sec=timeout)
                if future.done():
                    return
        finally:
            self.node.destroy_client(client)
        raise S4NetError(
            f"{player} does not answer within {timeout:g} s: is another player running in this ROS domain?"
        )

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    # Callbacks.

    def _on_frame(self, data: bytes) -> None:
        self._began = self._began or time.monotonic()
        self.record.frames += 1

    def _on_mask(self, data: bytes) -> None:
        self.record.labelled += 1

    def _on_status(self, message: AdaptationStatus) -> None:
        names = [name for name in StatusPoint.__dataclass_fields__ if name != "seconds"]
        self.record.add(StatusPoint(self.seconds, **{name: getattr(message, name) for name in names}))
        self.record.dropped[ADAPTATION] = dict(zip(message.drop_reasons, map(int, message.drop_counts), strict=True))
        self.record.last_refusal = message.last_refusal

    def _on_update(self, message: ModelUpdate) -> None:
        update = HandedOver(
            self.seconds, message.version, message.path, message.sha256, message.source_miou, message.agreement
        )
        if not self.record.updates or self.record.updates[-1].sha256 != update.sha256:
            self.record.updates.append(update)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = self._names.get(status.hardware_id)
            if name:
                values = {pair.key: pair.value for pair in status.values}
                self.record.values[name] = {"message": status.message, **values}
                if name == SEGMENTATION:
                    drops = {key: int(value) for key, value in values.items() if key.startswith(SEGMENTATION_DROPS)}
                    self.record.dropped[name] = {reason: count for reason, count in drops.items() if count}


def as_json(record: Record) -> dict[str, Any]:
    """History and updates for a file; NaN becomes None, which JSON knows."""
    updates, history = ([asdict(it) for it in points] for points in (record.updates, record.history.points))
    return {"updates": nan_as_none(updates), "history": nan_as_none(history)}
