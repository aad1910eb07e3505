"""Time that goes back: a looped bag, a restarted simulation. The rule is the same for images and transforms."""

TIME_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more than this means that time was restarted, not that a message is late."""

NEW_TIME_NS = TIME_JUMP_NS // 2
"""Jumps that lead to stamps this near to each other are the same jump."""

MAX_LEFT_OVER = 10
"""Items in a row that a stream may still bring from the time before; after them it is believed to be there."""


class TimeJumps:
    """Follows the stamps of some streams, and tells which belong to an earlier time when they go back.

    Streams have no common order, so that one may be in the new time while another still is in the old one: what the
    first has brought from the new time stays, what the other holds from the old one goes, and so does what still comes.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self._now = 0
        self._target: int | None = None
        self._told_by: set[str] = set()

    def is_left_over(self, stream: str, stamp_ns: int) -> bool:
        """Whether an item still is of the time before a jump that another stream has made: then leave it out."""
        if stream not in self._before:
            return False
        newest, more = self._before[stream]
        left_over = more > 0 and abs(stamp_ns - newest) < abs(stamp_ns - self._now)
        if left_over:
            self._before[stream] = (newest, more - 1)
        else:
            del self._before[stream]
        return left_over

    def see(self, stream: str, stamp_ns: int) -> list[str]:
        """Note the stamp of an item that is not left over, before the item is used.

        Returns:
            Streams whose items are of an earlier time; empty while time goes on.
        """
        stale = []
        if stream in self._newest and stamp_ns < self._newest[stream] - TIME_JUMP_NS:
            stale = self._forget(stamp_ns)
            self._told_by = set()
        self._before.pop(stream, None)
        self._newest[stream] = max(stamp_ns, self._newest.get(stream, stamp_ns))
        self._now = max(stamp_ns, self._now)
        if self._target is not None:
            self._target = min(stamp_ns, self._target)  # transforms may be dated ahead, and be the first
        return stale

    def back_to(self, stamp_ns: int, teller: str) -> list[str]:
        """Time went back to `stamp_ns`, as `teller` has seen, who tells each jump once.

        Returns:
            Streams whose items are of an earlier time; empty when this jump is known already.
        """
        known = self._target is not None and abs(stamp_ns - self._target) <= NEW_TIME_NS
        if known and teller not in self._told_by:
            self._told_by.add(teller)
            return []
        self._told_by = {teller}
        return self._forget(stamp_ns)

    def _forget(self, stamp_ns: int) -> list[str]:
        stale = [stream for stream, newest in self._newest.items() if abs(newest - stamp_ns) > NEW_TIME_NS]
        for stream in stale:
            self._before[stream] = (self._newest.pop(stream), MAX_LEFT_OVER)
        self._now = self._target = stamp_ns
        return stale
