"""Time that goes back: which streams are still in the time before."""

import pytest

from s4net_core.geometry.time_jumps import MAX_LEFT_OVER, TIME_JUMP_NS, TimeJumps

S = 1_000_000_000


def feed(jumps: TimeJumps, events: str) -> list[str]:
    """ "a100 b101" = stream a at 100 s, then b at 101 s; streams that were stale, for each event that named any."""
    items = ((event[0], int(event[1:]) * S) for event in events.split())
    stale = (jumps.see(*item) for item in items if not jumps.is_left_over(*item))
    return ["".join(streams) for streams in stale if streams]


@pytest.mark.parametrize(
    ("events", "stale"),
    [
        ("a1 b1 a2 b2 a50 b50", []),
        ("a100 b100 a1 b1 a2 b2", ["ab"]),
        ("a100 b100 b1 a1 b2 a2", ["ab"]),
        ("a100 b100 a1 b1 b2 a2 a1 b1", ["ab"]),
        ("a100 b100 a1 b101 b1 a2 b2", ["ab"]),  # the last one of b is left over
        ("a100 b100 a1 b1 a90 b90 b2 a2", ["ab", "ab"]),
        ("b2 a100 a50 b51", ["ba"]),  # b was silent since: it is of the time before too
    ],
)
def test_streams_are_stale_once_for_each_time_that_is_over(events: str, stale: list[str]):
    assert feed(TimeJumps(), events) == stale


def test_a_late_item_is_no_jump():
    jumps = TimeJumps()
    assert jumps.see("a", 10 * S) == []
    assert jumps.see("a", 10 * S - TIME_JUMP_NS) == []
    assert jumps.see("a", 10 * S - TIME_JUMP_NS - 1) == ["a"]


def test_each_teller_of_a_jump_is_heard_once_a_round():
    jumps = TimeJumps()
    feed(jumps, "a100 b100")
    assert jumps.back_to(S, "clock") == ["a", "b"]
    feed(jumps, "a1 b1 a5 b5")
    assert jumps.back_to(S, "images") == []
    assert jumps.back_to(S, "images") == ["a", "b"]  # the next round
    assert jumps.back_to(S, "clock") == []


def test_a_jump_that_a_stream_has_made_is_known_however_far_it_is_ahead():
    jumps = TimeJumps()
    assert feed(jumps, "a100 b100 a1 a5 b1 b9") == ["ab"]
    assert jumps.back_to(S, "clock") == []
    assert jumps.back_to(S, "images") == []
    assert jumps.back_to(S, "clock") == ["a", "b"]


def test_what_is_left_over_is_told_until_the_stream_goes_back_itself():
    jumps = TimeJumps()
    feed(jumps, "a100 b100 a1")
    assert [jumps.is_left_over("b", t * S) for t in (101, 102, 1, 102)] == [True, True, False, False]


def test_a_stream_that_stays_where_it_is_is_believed_in_the_end():
    jumps = TimeJumps()
    feed(jumps, "a100 b100 a1")
    told = [jumps.is_left_over("b", (100 + i) * S) for i in range(MAX_LEFT_OVER + 5)]
    assert told == [True] * MAX_LEFT_OVER + [False] * 5


def test_one_wrong_stamp_makes_nothing_left_over():
    jumps = TimeJumps()
    feed(jumps, "a100 b100 a1 a101")
    assert not jumps.is_left_over("b", 101 * S)
