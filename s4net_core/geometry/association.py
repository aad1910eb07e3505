"""What belongs together in time: matches messages by stamp, as message_filters does, where there is no ROS.

The rules are the same live and offline. Stamps are integer nanoseconds throughout.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any

from s4net_core.errors import S4NetError


class Synchroniser:
    """Matches the items of N streams by stamp: exactly where possible, approximately where not.

    The first stream is the pivot. A pivot item is matched with the nearest item of every other stream within `slop_ns`
    that has no nearer pivot item itself, as soon as no item that is still to come could be nearer. An exact match is
    therefore given out at once, an approximate one when the next item of the stream that lags has arrived. Matches come
    in time order and every item is used once; items that are passed over are counted in `dropped`.

    Args:
        streams: names, pivot first.
        slop_ns: largest stamp difference to the pivot item; 0 = exact matches only.
        queue: items of each stream that wait for their partners; the oldest is dropped first.
    """

    def __init__(self, streams: Sequence[str], *, slop_ns: int, queue: int) -> None:
        if len(set(streams)) != len(streams) or not streams or slop_ns < 0 or queue < 1:
            raise S4NetError(
                f"synchroniser of {list(streams)} with slop {slop_ns} ns and queue {queue}: stream names must differ, "
                "slop must be 0 or more, queue 1 or more"
            )
        self.streams = tuple(streams)
        self.slop_ns = slop_ns
        self.queue = queue
        self.dropped: dict[str, int] = dict.fromkeys(self.streams, 0)
        self._stamps: dict[str, list[int]] = {name: [] for name in self.streams}
        self._items: dict[str, dict[int, Any]] = {name: {} for name in self.streams}
        self._latest: dict[str, int] = {}
        self._used: dict[str, int] = {}

    @property
    def latest(self) -> dict[str, int]:
        """Newest stamp that each stream has seen; a stream that is missing never got an item."""
        return dict(self._latest)

    def add(self, stream: str, stamp_ns: int, item: Any) -> list[tuple[Any, ...]]:
        """Take one item and return the matches that it completes, oldest first, items in the order of `streams`."""
        stamps, items = self._stamps[stream], self._items[stream]
        self._latest[stream] = max(stamp_ns, self._latest.get(stream, stamp_ns))
        if stamp_ns in items or stamp_ns <= self._used.get(stream, stamp_ns - 1):
            self.dropped[stream] += 1
            return []
        insort(stamps, stamp_ns)
        items[stamp_ns] = item
        matches = []
        while (match := self._next_match()) is not None:
            matches.append(tuple(self._take(name, stamp) for name, stamp in zip(self.streams, match, strict=True)))
        for name in self.streams:
            while len(self._stamps[name]) > self.queue:
                self._drop_oldest(name)
        return matches

    def clear(self, streams: Iterable[str]) -> None:
        """Forget what waits in `streams` and the stamps seen there, as time went back; what waited is dropped."""
        for name in streams:
            self.dropped[name] += len(self._stamps[name])
            self._stamps[name].clear()
            self._items[name].clear()
            self._latest.pop(name, None)
            self._used.pop(name, None)

    def _next_match(self) -> list[int] | None:
        """Stamps of the oldest match that is final, dropping pivot items that cannot be matched any more."""
        pivots = self._stamps[self.streams[0]]
        while pivots:
            match = [pivots[0]]
            for name in self.streams[1:]:
                if self._latest.get(name, pivots[0] - 1) < pivots[0]:
                    return None
                nearest, final = self._partner(name, pivots[0])
                if not final:
                    return None
                if nearest is None:
                    break
                match.append(nearest)
            if len(match) == len(self.streams):
                return match
            self._drop_oldest(self.streams[0])
        return None

    def _partner(self, name: str, pivot: int) -> tuple[int | None, bool]:
        """(stamp of the partner or None, whether that is final)."""
        pivots = self._stamps[self.streams[0]]
        for stamp in sorted(self._stamps[name], key=lambda stamp: (abs(stamp - pivot), stamp)):
            if abs(stamp - pivot) > self.slop_ns:
                break
            if _nearest(pivots, stamp) == pivot:
                return stamp, self._latest[self.streams[0]] >= stamp
        return None, True

    def _take(self, name: str, stamp: int) -> Any:
        """Remove an item and everything older."""
        while self._stamps[name][0] < stamp:
            self._drop_oldest(name)
        self._used[name] = self._stamps[name].pop(0)
        return self._items[name].pop(stamp)

    def _drop_oldest(self, name: str) -> None:
        del self._items[name][self._stamps[name].pop(0)]
        self.dropped[name] += 1


def _nearest(stamps: list[int], stamp: int) -> int:
    """The element of sorted `stamps` nearest to `stamp`; the older one of two equally near."""
    i = bisect_left(stamps, stamp)
    around = stamps[max(i - 1, 0) : i + 1]
    return min(around, key=lambda s: (abs(s - stamp), s))
