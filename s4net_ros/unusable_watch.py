"""Why no view becomes a keyframe; apart from `diagnostics`, because the node that labels need not load keyframes."""

import time
from collections.abc import Callable

from s4net_core.keyframes import REMEDIES, Decision


class UnusableWatch:
    """Tells why no view could become a keyframe, when that has lasted for a while.

    Args:
        after: seconds that count as a while.
        clock: seconds, monotonic.
    """

    def __init__(self, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after = after
        self._clock = clock
        self._since: float | None = None
        self._last = ""

    def note(self, decision: Decision) -> None:
        """Note what became of a view."""
        if decision.reason not in REMEDIES:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        self._last = decision.reason

    def reason(self) -> str:
        """Why views are left out, and what to do; empty while one of them could be used."""
        since = self._since  # one look: views are noted on another thread
        if since is None or (seconds := self._clock() - since) < self._after:
            return ""
        return f"no view could be used for {seconds:.0f} s ({self._last}): {REMEDIES[self._last]}"
