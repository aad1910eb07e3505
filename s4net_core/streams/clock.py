"""The one rule for time, live and offline: colour is the clock."""

TIME_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more than this means that time was restarted, not that a message is late."""

SETTLE_NS = 500_000_000
"""Time after a jump, by the stamps of colour, in which messages from before the jump may still arrive."""


class ColorClock:
    """Follows the stamps of colour and says when time begins anew (looped bag, restarted simulation).

    After a jump back all waiting data are useless, and for half a second late messages of the old time may arrive among
    new ones. They are not sorted: all waiting data and every colour image of that half second are dropped.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._newest: int | None = None
        self._landed: int | None = None

    def see(self, stamp_ns: int) -> bool:
        """Note the stamp of a colour image, before the image is used.

        Returns:
            Whether time went back with this image or less than `SETTLE_NS` before it: drop it and all waiting data.
        """
        if self._newest is not None and stamp_ns < self._newest - TIME_JUMP_NS:
            self.jumps += 1
            self._newest = self._landed = stamp_ns
        self._newest = stamp_ns if self._newest is None else max(stamp_ns, self._newest)
        if self._landed is not None and stamp_ns >= self._landed + SETTLE_NS:
            self._landed = None
        return self._landed is not None

    def age(self, stamp_ns: int) -> int:
        """How far the newest colour image is ahead of a stamp, nanoseconds."""
        return 0 if self._newest is None else self._newest - stamp_ns
