"""Stand-in for the part of message_filters that we use: filters and the two synchronisers, for two filters."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rclpy.duration import Duration

from s4net_core.io.bags.messages import stamp_ns
from s4net_core.streams.synchroniser import Synchroniser


class SimpleFilter:
    """Source of messages: hands each one to its callbacks."""

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


class TimeSynchronizer(SimpleFilter):
    """Messages with equal stamps, as ``cb(msg1, msg2)``.

    Args:
        fs: two filters.
        queue_size: messages of each filter that wait for their partners.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self._connect(fs, Synchroniser(0, queue_size))

    def _connect(self, fs: Sequence[SimpleFilter], synchroniser: Synchroniser) -> None:
        first, second = fs
        first.registerCallback(partial(self._add, synchroniser, 0))
        second.registerCallback(partial(self._add, synchroniser, 1))

    def _add(self, synchroniser: Synchroniser, stream: int, msg: Any) -> None:
        if pair := synchroniser.add(stream, stamp_ns(msg.header), msg):
            self.signalMessage(*pair)


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Messages whose stamps differ by less than `slop` seconds. A message pairs at once with the nearest present."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
        SimpleFilter.__init__(self)
        self._connect(fs, Synchroniser(Duration(seconds=slop).nanoseconds, queue_size))
