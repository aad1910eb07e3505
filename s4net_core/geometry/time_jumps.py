"""Time that goes back: a looped bag, a restarted simulation. The rule is the same for images and transforms."""

TIME_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more than this means that time was restarted, not that a message is late."""


class TimeJumps:
    """Tells which streams hold items of an earlier time when stamps go back.

    Streams have no common order, so that one may be in the new time while another still is in the old one: what the
    first has brought from the new time stays, what the other holds from the old one goes.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def see(self, stream: str, stamp_ns: int) -> list[str]:
        """Note the stamp of an item, before the item is used.

        Returns:
            Streams whose items are of an earlier time; empty while time goes on.
        """
        newest = self._newest.get(stream, stamp_ns)
        stale = self.back_to(stamp_ns) if stamp_ns < newest - TIME_JUMP_NS else []
        self._newest[stream] = max(stamp_ns, self._newest.get(stream, stamp_ns))
        return stale

    def back_to(self, stamp_ns: int, within_ns: int = TIME_JUMP_NS) -> list[str]:
        """Time went back to `stamp_ns`: streams whose newest stamp is farther from it than that. They are forgotten."""
        stale = [stream for stream, newest in self._newest.items() if abs(newest - stamp_ns) > within_ns]
        for stream in stale:
            del self._newest[stream]
        return stale
