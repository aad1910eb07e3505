"""The rule for time: when colour goes back by more than a second, everything begins anew once time has settled."""

import pytest

from s4net_core.streams.clock import SETTLE_NS, TIME_JUMP_NS, ColorClock

S = 1_000_000_000


def unsettled(*seconds: float) -> list[float]:
    """Stamps at which time has gone back and has not settled yet."""
    clock = ColorClock()
    return [second for second in seconds if clock.see(round(second * S))]


@pytest.mark.parametrize(
    ("stamps", "dropped"),
    [
        ((1, 2, 50, 49.5), []),  # a gap, and an image that is late
        ((100, 1, 1.2, 1.49, 1.5, 1.6), [1, 1.2, 1.49]),
        ((100, 0, 100.1, 100.2), [0]),  # one wrong stamp
        ((100, 105, 100.1, 100.5, 100.6, 100.7), [100.1, 100.5]),  # one that was ahead
        ((100, 1, 2, 3), [1]),  # a slow camera
        ((100, 1, 1.1, 0.9, 1.4, 1.6), [1, 1.1, 0.9, 1.4]),
        ((100, 50, 50.2, 1, 1.3, 1.6), [50, 50.2, 1, 1.3]),  # again, before it had settled
    ],
)
def test_time_is_where_colour_is(stamps: tuple[float, ...], dropped: list[float]):
    assert unsettled(*stamps) == dropped


def test_both_limits_are_exact():
    clock = ColorClock()
    assert [clock.see(10 * S), clock.see(10 * S - TIME_JUMP_NS), clock.see(10 * S - TIME_JUMP_NS - 1)] == [0, 0, 1]
    landed = 10 * S - TIME_JUMP_NS - 1
    assert [clock.see(landed + SETTLE_NS - 1), clock.see(landed + SETTLE_NS)] == [1, 0]
    assert clock.jumps == 1


def test_age_is_counted_from_the_newest_image_of_this_time():
    clock = ColorClock()
    assert clock.age(5 * S) == 0
    for stamp in (10 * S, 9.5 * S):
        clock.see(round(stamp))
    assert clock.age(8 * S) == 2 * S
    clock.see(S)
    assert clock.age(S) == 0
