"""The learner's thread with a window: a test sees when it has looked for something to do and found nothing."""

import time

from s4net_ros.adaptation.learner_thread import LearnerThread

WAIT_S = 60.0


class WatchedLearner(LearnerThread):
    """Counts how often the thread begins to rest until somebody wakes it."""

    rests = 0

    def _wait_seconds(self) -> float | None:
        seconds = super()._wait_seconds()
        self.rests += seconds is None or self._rests_for_good()
        return seconds

    def settle(self) -> None:
        """Wake the thread and wait until it rests again; fails if it finds something to do instead."""
        before = self.submit(lambda: self.rests).result(WAIT_S)
        end = time.monotonic() + WAIT_S
        while self.rests == before:
            assert time.monotonic() < end, "the learner's thread does not come to rest"
            time.sleep(0.002)
