"""Stand-in for the part of message_filters that we use: Subscriber and the two time synchronisers."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node

from s4net_core.geometry.association import Synchroniser
from s4net_core.io.bags.messages import stamp_ns


class SimpleFilter:
    """Something that hands messages to callbacks."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        """Call ``cb(*messages, *args)`` for every output."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Hand an output to all callbacks, in the order of their registration."""
        for cb, args in self.callbacks.values():
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter; keyword arguments go to ``create_subscription``, ``qos_profile`` defaults to 10."""

    def __init__(self, node: Node, msg_type: type, topic: str, **kwargs: Any) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, **kwargs)


class TimeSynchronizer(SimpleFilter):
    """Messages with equal stamps, as ``cb(msg1, ..., msgN)``.

    Args:
        fs: filters, one for each argument of the callback.
        queue_size: messages of each that wait for their partners.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self._connect(fs, queue_size, slop_ns=0)

    def _connect(self, fs: Sequence[SimpleFilter], queue_size: int, slop_ns: int) -> None:
        self.lock = threading.Lock()
        self.input_filters = list(fs)
        names = [str(i) for i in range(len(fs))]
        self._synchroniser = Synchroniser(names, slop_ns=slop_ns, queue=queue_size)
        self.queues = [_Queue(self._synchroniser, name) for name in names]
        for source, queue in zip(fs, self.queues, strict=True):
            source.registerCallback(self.add, queue)

    def add(self, msg: Any, my_queue: "_Queue") -> None:
        """One message of one filter."""
        with self.lock:
            matches = self._synchroniser.add(my_queue.name, stamp_ns(msg.header), msg)
        for match in matches:
            self.signalMessage(*match)


class _Queue:
    """The messages of one filter that wait: what message_filters has a dict for. Hold the lock of its owner."""

    def __init__(self, synchroniser: Synchroniser, name: str) -> None:
        self.name = name
        self._synchroniser = synchroniser

    def clear(self) -> None:
        """Forget them, and the stamps seen."""
        self._synchroniser.clear([self.name])


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Messages whose stamps differ by `slop` seconds at most from the first filter's; equal stamps go first.

    Unlike message_filters it waits for the next message of the late stream before it settles for an approximate match,
    so the outcome does not depend on the order of arrival.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
        SimpleFilter.__init__(self)
        self._connect(fs, queue_size, slop_ns=round(slop * 1e9))
