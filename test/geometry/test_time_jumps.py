"""Time that goes back: which streams are still in the time before."""

import pytest

from s4net_core.geometry.time_jumps import TIME_JUMP_NS, TimeJumps

S = 1_000_000_000


def feed(jumps: TimeJumps, events: str) -> list[str]:
    """ "a100 b101" = stream a at 100 s, then b at 101 s; streams that were stale at each event that named any."""
    stale = (jumps.see(event[0], int(event[1:]) * S) for event in events.split())
    return ["".join(streams) for streams in stale if streams]


@pytest.mark.parametrize(
    ("events", "stale"),
    [
        ("a1 b1 a2 b2 a50 b50", []),
        ("a100 b100 a1 b1 a2 b2", ["ab"]),
        ("a100 b100 b1 a1 b2 a2", ["ab"]),
        ("a100 b100 a1 b1 b2 a2 a1 b1", ["ab"]),
        ("a100 b100 a1 b101 b1 a2", ["ab", "b"]),  # the last one of b was late: what a has brought stays
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


def test_a_jump_seen_elsewhere_leaves_what_is_in_the_new_time_already():
    jumps = TimeJumps()
    feed(jumps, "a100 b1")
    assert jumps.back_to(S) == ["a"]
    assert jumps.back_to(S) == []
    assert jumps.back_to(S // 2, within_ns=S // 4) == ["b"]
