"""Points over a whole run: how many are kept, and which."""

import numpy as np

from s4net_ros.history import History


def test_points_span_the_whole_run_in_bounded_memory() -> None:
    history: History[int] = History(most=10)
    for second in range(1000):
        history.add(second)
        assert history.points[-1] == second
        assert len(history.points) <= 10
    assert history.points[0] == 0
    assert np.diff(history.points).max() < 300
