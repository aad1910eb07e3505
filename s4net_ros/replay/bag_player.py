"""Publishes the messages of a bag in their recorded rhythm; `player` is the program around it."""

import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.duration import Duration
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection, Qos, QosDurability, QosReliability
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from s4net_core.errors import CaptureError
from s4net_core.io.bags.storage import COMPRESSED, IMAGE, Bag

NANOSECONDS = 1_000_000_000
CLOCK_TOPIC = "/clock"
CLOCK_PERIOD = NANOSECONDS // 100
SUBSCRIBER_CHECK = 0.05  # s between two looks for subscribers
STOP_CHECK = 0.05  # s: `stop` and ``~/pause`` are noticed this soon
DISCOVERY_SETTLE = 0.5  # s: a subscriber seen here may not have discovered this publisher yet
ACKNOWLEDGE_TIMEOUT = 2.0  # s that reliable subscribers of all topics get for their last messages
BEST_EFFORT_DRAIN = 0.3  # s
LATCHED = DurabilityPolicy.TRANSIENT_LOCAL


@dataclass(frozen=True)
class PlayerOptions:
    """How a bag is played.

    Args:
        rate: seconds of the bag played in one second.
        loop: start again at the end, one image interval later, as a camera goes on; /clock jumps back to the start.
        clock: publish /clock at 100 Hz (wall time).
        start: seconds of the bag to leave out at its beginning.
        duration: seconds of the bag to play; 0 = all.
        topics: only these; empty = all.
        reliability: of every publisher, ``auto`` = as recorded, reliable when the bag does not say.
        depth: queue depth of a publisher; latched topics keep every message of the bag.
        wait_for: topics that need a subscriber before the first message goes out; ``/topic:2`` = two of them.
        wait_timeout: seconds to wait for them.
        start_paused: wait for a call of ``~/pause`` with ``data: false``.
    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = True
    start: float = 0.0
    duration: float = 0.0
    topics: tuple[str, ...] = ()
    reliability: str = "auto"
    depth: int = 10
    wait_for: tuple[str, ...] = ()
    wait_timeout: float = 30.0
    start_paused: bool = False


@dataclass
class PlayerSummary:
    """Summary of one `play`.

    Args:
        messages: messages sent, by topic.
        rounds: times the bag was played to its end.
        wall_seconds: from the first message to the last.
        latest_ms: largest delay of a message behind its time, milliseconds.
        finished: False when it was stopped before the end.
        damage: where the bag ended early; empty = nothing is wrong with it.
        skipped_topics: topics that cannot be published, with the reason.
    """

    messages: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    wall_seconds: float = 0.0
    latest_ms: float = 0.0
    finished: bool = False
    damage: str = ""
    skipped_topics: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The summary for people, one topic a line."""
        head = f"played {self.rounds} x in {self.wall_seconds:.1f} s, at most {self.latest_ms:.1f} ms late"
        sent = [f"  {count:7d}  {topic}" for topic, count in sorted(self.messages.items())]
        skipped = [f"        -  {topic}: {reason}" for topic, reason in sorted(self.skipped_topics.items())]
        damage = [f"the bag is damaged, the rest of it cannot be read: {self.damage}"] if self.damage else []
        return "\n".join([head, *sent, *skipped, *damage])


class Pacer:
    """Maps bag time to wall time from one fixed start, so that errors of single waits do not add up.

    Args:
        rate: seconds of the bag played in one second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._bag = 0
        self._wall = 0

    def start(self, bag: int, wall: int) -> None:
        """Let bag time `bag` (ns) happen at wall time `wall` (ns)."""
        self._bag, self._wall = bag, wall

    def wall(self, bag: int) -> int:
        """Wall time (ns) at which bag time `bag` (ns) happens."""
        return self._wall + round((bag - self._bag) / self.rate)

    def shift(self, wall: int) -> None:
        """Let everything happen `wall` ns later: the length of a pause."""
        self._wall += wall


class BagPlayer:
    """Publishes the messages of an open bag; `play` blocks until the end or until `stop`.

    Args:
        bag: open; a damaged one is played up to the damage.
        options: how to play it.

    Raises:
        CaptureError: the bag has no message that can be published, or lacks a topic that was asked for.
    """

    def __init__(self, bag: Bag, options: PlayerOptions) -> None:
        if bag.ros1:
            raise CaptureError(
                f"{bag.path} was recorded by ROS 1 and cannot be played in ROS 2: convert it with "
                f"`s4net convert {bag.path} OUTPUT`"
            )
        self.node = rclpy.create_node("player")
        self.options = options
        self.summary = PlayerSummary()
        self._bag = bag
        # Plain flags: `threading.Event.set` in a signal handler waits for ever when the signal comes while this very
        # thread is inside `Event.wait` and holds the event's lock.
        self._stopped = False
        self._paused = options.start_paused
        self._publishers: dict[str, Publisher] = {}
        self._awaited = dict(map(_topic_and_count, options.wait_for))
        self._open_topics()
        self._clock = self.node.create_publisher(Clock, CLOCK_TOPIC, 10) if options.clock else None
        self.node.create_service(SetBool, "~/pause", self._on_pause)

    def stop(self) -> None:
        """End `play` before its next message; may be called from a signal handler or another thread."""
        self._stopped = True

    def play(self, progress: Callable[[int], None] = lambda messages: None) -> PlayerSummary:
        """Publish everything; returns at the end of the bag, or never with ``loop``.

        Args:
            progress: called after each message with the number of messages in this round.

        Raises:
            CaptureError: `wait_for` did not get its subscribers in time, or there is nothing to play.
        """
        self._wait_for_subscribers()
        pacer = Pacer(self.options.rate)
        begin = wall = time.monotonic_ns()
        while True:
            end = self._play_once(pacer, wall, progress)
            if self._stopped:
                break
            self.summary.rounds += 1
            self.summary.damage = self._bag.damage
            if not self.options.loop:
                self.summary.finished = True
                break
            wall = pacer.wall(end)
        self.summary.wall_seconds = (time.monotonic_ns() - begin) / NANOSECONDS
        self._drain()
        return self.summary

    def _play_once(self, pacer: Pacer, wall: int, progress: Callable[[int], None]) -> int:
        """One round from wall time `wall` (ns) on; returns the bag time (ns) at which the next one may begin."""
        first = last = tick = -1
        sent: Counter[str] = Counter()
        step = max(1, round(CLOCK_PERIOD * self.options.rate))
        for count, (topic, stamp, data) in enumerate(self._messages(), start=1):
            if first < 0:
                first = tick = stamp
                pacer.start(first, wall)
            while tick <= stamp and self._wait_until(pacer, tick):
                self._publish_clock(tick)
                tick += step
            if not self._wait_until(pacer, stamp):
                return stamp
            self._publishers[topic].publish(bytes(data))
            sent[topic] += 1
            self.summary.messages[topic] += 1
            late = (time.monotonic_ns() - pacer.wall(stamp)) / 1e6
            self.summary.latest_ms = max(self.summary.latest_ms, late)
            progress(count)
            last = stamp
        if self._stopped:
            return last
        if first < 0:
            raise CaptureError(f"bag {self._bag.path} has nothing left to play after --start {self.options.start:g}")
        types = self._bag.topics
        frames = max((number for topic, number in sent.items() if types[topic] in (IMAGE, COMPRESSED)), default=0)
        interval = (last - first) // (frames - 1) if frames > 1 else 0
        return max(last + interval, first + CLOCK_PERIOD)

    def _messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time (ns) and bytes of each message to play; latched messages from before `start` come at `start`."""
        first, end = -1, 0
        latched: list[tuple[str, bytes]] = []
        for connection, stamp, data in self._bag.messages(self._publishers.keys()):
            if self._stopped:  # `start` may lie behind gigabytes that are read and left out
                return
            if first < 0:
                first = stamp + round(self.options.start * NANOSECONDS)
                end = first + round(self.options.duration * NANOSECONDS) if self.options.duration else 1 << 63
            if stamp >= end:
                return
            if stamp >= first:
                yield from ((topic, first, earlier) for topic, earlier in latched)
                latched.clear()
                yield connection.topic, stamp, data
            elif self._publishers[connection.topic].qos_profile.durability == LATCHED:
                latched.append((connection.topic, data))

    def _wait_until(self, pacer: Pacer, stamp: int) -> bool:
        """Sleep until bag time `stamp` (ns) is due; False when stopped meanwhile."""
        if self._paused:
            paused = time.monotonic_ns()
            while self._paused and self._sleep(STOP_CHECK):
                self._publish_clock(stamp)  # nodes that start during the pause need the time too
            pacer.shift(time.monotonic_ns() - paused)
        return self._sleep((pacer.wall(stamp) - time.monotonic_ns()) / NANOSECONDS)

    def _sleep(self, seconds: float) -> bool:
        """Sleep; False when stopped before or meanwhile."""
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, STOP_CHECK))
        return not self._stopped

    def _publish_clock(self, stamp: int) -> None:
        if self._clock:
            seconds, nanoseconds = divmod(stamp, NANOSECONDS)
            self._clock.publish(Clock(clock=TimeMessage(sec=seconds, nanosec=nanoseconds)))

    def _open_topics(self) -> None:
        """Create a publisher for every topic that can be published."""
        wanted = set(self.options.topics)
        names = {c.topic for c in self._bag.connections}
        if missing := sorted({*wanted, *self._awaited} - names):
            raise CaptureError(f"bag {self._bag.path} has no topic {', '.join(missing)}: it has {sorted(names)}")
        for connection in self._bag.connections:
            if (wanted and connection.topic not in wanted) or (self.options.clock and connection.topic == CLOCK_TOPIC):
                continue
            try:
                message = message_class(connection.msgtype)
            except CaptureError as error:
                self.summary.skipped_topics[connection.topic] = str(error)
                self.node.get_logger().warning(f"{connection.topic} is left out: {error}")
                continue
            if connection.topic not in self._publishers:
                qos = publisher_qos(connection, self.options)
                self._publishers[connection.topic] = self.node.create_publisher(message, connection.topic, qos)
        if not self._publishers:
            raise CaptureError(f"bag {self._bag.path} has no message that can be published: topics {sorted(names)}")

    def _wait_for_subscribers(self) -> None:
        deadline = time.monotonic() + self.options.wait_timeout
        waiting = [name for name in self._awaited if name in self._publishers]
        while waiting and self._sleep(SUBSCRIBER_CHECK):
            waiting = [n for n in waiting if self._publishers[n].get_subscription_count() < self._awaited[n]]
            if waiting and time.monotonic() > deadline:
                raise CaptureError(
                    f"not enough subscribers of {', '.join(waiting)} within {self.options.wait_timeout:g} s: "
                    "are the nodes running, on the same ROS_DOMAIN_ID, with the same topic names?"
                )
        if self._awaited:
            self._sleep(DISCOVERY_SETTLE)

    def _drain(self) -> None:
        """Wait until subscribers have the last messages, before the publishers vanish."""
        end = time.monotonic() + ACKNOWLEDGE_TIMEOUT
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))
        self._sleep(BEST_EFFORT_DRAIN)  # best-effort messages are not acknowledged and may be under way

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "playing"
        return response


def _topic_and_count(text: str) -> tuple[str, int]:
    topic, _, count = text.partition(":")
    return topic, int(count or 1)


def message_class(name: str) -> type[Any]:
    """Class of a message type, e.g. ``sensor_msgs/msg/Image``.

    Raises:
        CaptureError: the package of that type is not installed here.
    """
    package, _, message = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError) as error:
        raise CaptureError(f"message type {name} is not installed: install the ROS package {package}") from error


def publisher_qos(connection: Connection, options: PlayerOptions) -> QoSProfile:
    """QoS with which every subscriber of the recorded publishers can receive again.

    Several recorded publishers of a topic become one: reliable if any was, latched if any was. /tf_static is always
    latched.
    """
    profiles: list[Qos] = getattr(connection.ext, "offered_qos_profiles", [])
    latched = connection.topic == "/tf_static" or any(q.durability == QosDurability.TRANSIENT_LOCAL for q in profiles)
    best_effort = bool(profiles) and all(q.reliability == QosReliability.BEST_EFFORT for q in profiles)
    if options.reliability != "auto":
        best_effort = options.reliability == "best_effort"
    return QoSProfile(
        # A late subscriber must get all of a latched topic: several static publishers were recorded one after another.
        depth=max(options.depth, connection.msgcount if latched else 0),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=LATCHED if latched else DurabilityPolicy.VOLATILE,
    )
