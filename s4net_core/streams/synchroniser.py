"""Pairs items of two streams by stamp, as message_filters does, where there is no ROS."""

from typing import Any

from s4net_core.errors import S4NetError


class Synchroniser:
    """Pairs the items of two streams, each item once, as soon as both are there.

    A new item is paired with the nearest item of the other stream whose stamp is less than the slop away; of two
    equally near items the first to come is taken. A new item replaces a waiting item with the same stamp.

    Args:
        slop_ns: stamps that differ by less than this belong together; 0 = only equal stamps do.
        queue: items of each stream that wait for their partners; the oldest stamp is dropped first.

    Raises:
        S4NetError: `slop_ns` is negative or `queue` below 1.
    """

    def __init__(self, slop_ns: int, queue: int) -> None:
        if slop_ns < 0 or queue < 1:
            raise S4NetError(f"slop is {slop_ns} ns and queue {queue}: slop must be 0 or more, queue 1 or more")
        self._limit = max(slop_ns, 1)
        self._queue = queue
        self._waiting: tuple[dict[int, Any], dict[int, Any]] = ({}, {})

    def add(self, stream: int, stamp_ns: int, item: Any) -> tuple[Any, Any] | None:
        """Take one item of stream 0 or 1; the pair that it completes, item of stream 0 first."""
        own, others = self._waiting[stream], self._waiting[1 - stream]
        own[stamp_ns] = item
        while len(own) > self._queue:
            del own[min(own)]
        nearest = min(others, key=lambda other: abs(other - stamp_ns), default=None)
        if stamp_ns not in own or nearest is None or abs(nearest - stamp_ns) >= self._limit:
            return None
        del own[stamp_ns]
        other = others.pop(nearest)
        return (item, other) if stream == 0 else (other, item)
