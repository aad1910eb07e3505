"""Self-report of a running node: counts, latencies, /diagnostics, and why no frames come."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.subscription import Subscription

from s4net_ros.qos import mismatch

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

STAMP_HISTORY = 64
"""Newest stamps kept for each topic, to tell how far two streams lie apart."""
LATENCY_HISTORY = 300
"""Frames over which latency is reported."""
STOPPED_S = 1.0
"""An input that is silent for so long while another goes on has stopped: its stamps say nothing."""
NAMESAKES_S = 30.0
"""Seconds for which the graph may show another node of the same name: that of a process that died stays for 20."""


class Counts:
    """Named counters that several threads may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counter: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter."""
        with self._lock:
            self._counter[name] += amount

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counter[name]

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._counter)


class Latency:
    """Median, 95th percentile and maximum of recent durations."""

    def __init__(self, history: int = LATENCY_HISTORY) -> None:
        self._lock = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=history)

    def add(self, seconds: float) -> None:
        """Note one duration."""
        with self._lock:
            self._seconds.append(seconds)

    def summary(self, name: str) -> dict[str, str]:
        """Texts for diagnostics, milliseconds, e.g. ``{"latency_ms_median": "12.3", ...}``; empty without data."""
        with self._lock:
            values = np.array(self._seconds) * 1e3
        if not values.size:
            return {}
        numbers = {"median": np.median(values), "p95": np.percentile(values, 95), "max": values.max()}
        return {f"{name}_ms_{key}": f"{value:.1f}" for key, value in numbers.items()}


@dataclass(frozen=True)
class Report:
    """State of a node at one moment.

    Args:
        level: ``DiagnosticStatus.OK``, ``WARN`` or ``ERROR``.
        message: one line for people.
        values: everything else; values are shown with ``str``.
    """

    level: bytes
    message: str
    values: Mapping[str, object] = field(default_factory=dict)


class DiagnosticsPublisher:
    """Publishes `collect()` on /diagnostics once a second of steady time, so that a stopped /clock does not stop it.

    Other nodes of the node's own name are a warning there and in the log once they stay: parameters and lifecycle calls
    reach any of them. Simulated time that nobody publishes is a warning there.

    Args:
        node: publishes; the name of the status is its full name and ``: status``.
        collect: called on the executor's thread; must not block.
    """

    def __init__(self, node: Node, collect: Callable[[], Report], period: float = 1.0) -> None:
        self._node = node
        self._collect = collect
        self._alone_at = time.monotonic()
        self._warned = False
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(period, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """Publish now."""
        report = self._collect()
        name = self._node.get_fully_qualified_name()
        for problem in filter(None, (self._look_for_namesakes(name), self._look_for_time())):
            level = max(report.level, DiagnosticStatus.WARN)
            report = replace(report, level=level, message=f"{report.message}; {problem}")
        status = DiagnosticStatus(
            level=report.level,
            name=f"{name.lstrip('/')}: status",
            message=report.message,
            hardware_id=name,
            values=[KeyValue(key=key, value=str(value)) for key, value in report.values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _look_for_namesakes(self, name: str) -> str:
        """What is wrong when several nodes have had this full name for a while, logged when it begins; else empty."""
        names = self._node.get_node_names_and_namespaces()
        count = sum(f"{namespace.rstrip('/')}/{node}" == name for node, namespace in names)
        if count < 2:
            self._alone_at, self._warned = time.monotonic(), False
        if time.monotonic() - self._alone_at < NAMESAKES_S:
            return ""
        text = f"{count} nodes are named {name}: end one, or give each its own namespace"
        if not self._warned:
            self._node.get_logger().warning(text)
        self._warned = True
        return text

    def _look_for_time(self) -> str:
        """What is wrong when the clock never began because nobody publishes it; else empty."""
        if self._node.get_clock().now().nanoseconds or self._node.count_publishers("/clock"):
            return ""
        return (
            "use_sim_time is true but nobody publishes /clock, so that all stamps are 0: start the simulation or the "
            "bag, or set use_sim_time:=false"
        )

    def destroy(self) -> None:
        """Stop publishing."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)


@dataclass
class _Topic:
    """One input of a `StallWatch`; `last` is the monotonic time of its last message, seconds."""

    setting: str
    subscription: Subscription | None = None
    received: int = 0
    last: float | None = None
    stamps: deque[int] = field(default_factory=lambda: deque(maxlen=STAMP_HISTORY))


class StallWatch:
    """Tells *why* no frames come: publishers, QoS, streams that do not arrive, stamps that do not meet.

    Use: ``events = watch.events("color", "stream.color_reliability")`` for the subscription, ``watch.follow("color",
    subscription)``, ``watch.arrived("color", stamp)`` in its callback, ``watch.frame()`` after each frame that could be
    used, and ``watch.reason()`` now and then. All methods may be called from any thread.

    Args:
        node: asked about publishers.
        after: seconds without a frame that count as a stall (setting ``stream.stall_warning``).
        slop: largest stamp difference that still belongs together, seconds; None = the streams are not matched.
        clock: seconds, monotonic.
        what: does not come.
    """

    def __init__(
        self,
        node: Node,
        after: float,
        slop: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        what: str = "frame",
    ) -> None:
        self._node = node
        self._after = after
        self._slop = slop
        self._clock = clock
        self._what = what
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._last_frame = clock()

    def events(self, name: str, setting: str = "") -> SubscriptionEventCallbacks:
        """Event callbacks for the subscription of input `name`; the setting `setting` changes its reliability."""
        topic = _Topic(setting)
        with self._lock:
            self._topics[name] = topic

        def incompatible(event: object) -> None:
            if topic.subscription is not None:
                problem = self._qos_text(topic) or "a publisher offers an incompatible QoS"
                self._node.get_logger().warning(f"{topic.subscription.topic_name}: {problem}")

        return SubscriptionEventCallbacks(incompatible_qos=incompatible)

    def follow(self, name: str, subscription: Subscription) -> None:
        """Note the subscription that was made with `events(name)`."""
        with self._lock:
            self._topics[name].subscription = subscription

    def forget(self, name: str) -> None:
        """Drop an input that is no longer subscribed."""
        with self._lock:
            self._topics.pop(name, None)

    def arrived(self, name: str, stamp: int) -> None:
        """Note the arrival of a message of input `name`; `stamp` in nanoseconds."""
        with self._lock:
            if topic := self._topics.get(name):
                topic.received += 1
                topic.last = self._clock()
                topic.stamps.append(stamp)

    def frame(self) -> None:
        """Note that a frame could be used, which ends a stall."""
        self._last_frame = self._clock()

    def clear_stamps(self) -> None:
        """Forget all stamps after a jump of time: they cannot be compared with the new ones."""
        with self._lock:
            for topic in self._topics.values():
                topic.stamps.clear()

    @property
    def seconds(self) -> float:
        """Seconds since the last frame, or since the start."""
        return self._clock() - self._last_frame

    def silent(self, *names: str) -> bool:
        """Whether one of the inputs `names` has brought nothing for the time of a stall, or any input nothing ever."""
        with self._lock:
            last = {name: topic.last for name, topic in self._topics.items()}
        now = self._clock()
        return any(at is None or (name in names and now - at > self._after) for name, at in last.items())

    def reason(self) -> str:
        """Why frames have stopped, in one text; empty while they come."""
        if self.seconds < self._after or not self._topics:
            return ""
        with self._lock:
            topics = {name: replace(topic, stamps=topic.stamps.copy()) for name, topic in self._topics.items()}
        parts = [self._about(name, topic) for name, topic in topics.items()]
        if spread := self._spread(topics):
            parts.append(spread)
        return f"no {self._what} for {self.seconds:.1f} s: " + "; ".join(parts)

    def _about(self, name: str, topic: _Topic) -> str:
        if topic.subscription is None:
            return f"{name}: not subscribed"
        label = f"{name} ({topic.subscription.topic_name})"
        publishers = self._node.count_publishers(topic.subscription.topic_name)
        if not publishers:
            return f"{label}: no publisher: is the camera running, is the topic remapped, is ROS_DOMAIN_ID the same?"
        count = f"{publishers} publisher{'s' if publishers > 1 else ''}"
        if problem := self._qos_text(topic):
            return f"{label}: {count}, {problem}"
        if topic.last is None:
            return f"{label}: {count}, but no message ever came"
        return f"{label}: {count}, {topic.received} messages, the last one {self._clock() - topic.last:.1f} s ago"

    def _qos_text(self, topic: _Topic) -> str:
        if topic.subscription is None:
            return ""
        requested = topic.subscription.qos_profile
        for publisher in self._node.get_publishers_info_by_topic(topic.subscription.topic_name):
            if problem := mismatch(publisher.qos_profile, requested, topic.setting):
                return f"QoS of {publisher.node_namespace.rstrip('/')}/{publisher.node_name} does not fit: {problem}"
        return ""

    def _spread(self, topics: Mapping[str, _Topic]) -> str:
        """How far the stamps of the streams lie apart, if too far to be matched; else empty."""
        if self._slop is None:
            return ""
        last = {name: topic.last for name, topic in topics.items() if name != "camera_info" and topic.last is not None}
        going_on = [name for name, at in last.items() if max(last.values()) - at < STOPPED_S]
        stamps = {name: sorted(topics[name].stamps) for name in going_on if topics[name].stamps}
        names = list(stamps)
        worst, pair = 0.0, ("", "")
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                distance = nearest_stamps(stamps[first], stamps[second]) * 1e-9
                if distance > worst:
                    worst, pair = distance, (first, second)
        if worst <= self._slop:
            return ""
        return (
            f"stamps of {pair[0]} and {pair[1]} never lie nearer than {worst:.3f} s, allowed is {self._slop} s: switch "
            "on the camera's synchronisation (enable_sync:=true) or raise stream.sync_slop"
        )


def nearest_stamps(first: Sequence[int], second: Sequence[int]) -> int:
    """Smallest difference between a stamp of `first` and one of `second`, nanoseconds; both sorted, not empty."""
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    after = np.clip(np.searchsorted(b, a), 0, b.size - 1)
    before = np.clip(after - 1, 0, b.size - 1)
    return int(np.minimum(np.abs(a - b[after]), np.abs(a - b[before])).min())
