"""Time that goes back: which streams are still in the time before, and which items are left over from it."""

import pytest

from s4net_core.geometry.time_jumps import SETTLED_NS, TIME_JUMP_NS, Stamp, TimeJumps

S = 1_000_000_000


def feed(jumps: TimeJumps, events: str) -> list[str]:
    """ "c100 d101" = colour at 100 s, then stream d at 101 s; what there is to say of events, in order."""
    said = []
    for event in events.split():
        stream, stamp = event[0], round(float(event[1:]) * S)
        if stream == "c":
            stale = jumps.see_color(stamp)
            said += [] if stale is None else [f"{event}: forget {''.join(sorted(stale)) or 'none'}"]
        elif (seen := jumps.see(stream, stamp)) != Stamp.GOES_ON:
            said.append(f"{event}: {seen.value}")
    return said


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ("c1 d1 c2 d2 c50 d50", []),
        ("c100 d100 t100 c1 d1 t1 c2", ["c1: forget dt"]),
        ("c100 d100 t100 d1 c1 t1 c2", ["d1: went back", "c1: forget t"]),
        ("c100 d100 d1 d5 c1 c100 d100 c1 d1", ["d1: went back", "c1: forget none", "c1: forget d"]),
        ("c100 d100 c1 d100.1 d1 d1.1", ["c1: forget d", "d100.1: left over"]),
        ("c100 d100 d100.1 c1 d100.2 d100.3 d1 d100.4", ["c1: forget d", "d100.2: left over", "d100.3: left over"]),
        ("c100 d100 c1 d102 d1", ["c1: forget d", "d1: went back"]),  # too far ahead to be a late one
        ("d2 c100 c50 d2", ["c50: forget d", "d2: left over"]),  # d was silent since: of the time before
        ("c100 t101 t1001 c1 t2", ["c1: forget t"]),
    ],
)
def test_time_is_where_colour_is(events: str, said: list[str]):
    assert feed(TimeJumps(), events) == said


def test_a_late_item_is_no_jump():
    jumps = TimeJumps()
    feed(jumps, "c10 d10")
    for late, expected in ((0, (None, Stamp.GOES_ON)), (1, ([], Stamp.WENT_BACK))):
        stamp = 10 * S - TIME_JUMP_NS - late
        seen = jumps.see("d", stamp)
        assert (jumps.see_color(stamp), seen) == expected


def test_nothing_is_left_over_once_colour_has_gone_on():
    jumps = TimeJumps()
    feed(jumps, "c100 d100 c1")
    jumps.see_color(S + SETTLED_NS + 1)
    assert jumps.see("d", 100 * S) == Stamp.GOES_ON


def test_a_wrong_stamp_of_colour_is_forgotten_with_the_next_right_one():
    jumps = TimeJumps()
    assert feed(jumps, "c100 d100 c0 c100.1 d100.1") == ["c0: forget d"]
    assert feed(jumps, "c105 c100.2 d100.2") == ["c100.2: forget none"]


def test_what_another_stream_does_is_its_own_matter():
    assert feed(TimeJumps(), "c100 d100 e100 d0 c100.1 d100.1 e100.1") == ["d0: went back"]
