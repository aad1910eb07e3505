"""Synchroniser: what is matched, in which order, and what is dropped."""

import numpy as np
import pytest

from s4net_core.errors import S4NetError
from s4net_core.geometry.association import Synchroniser

MS = 1_000_000
S = 1_000_000_000


def feed(synchroniser: Synchroniser, events: str) -> list[str]:
    """'c0 d3' = colour at 0 ms, then depth at 3 ms; the matches as 'c0+d3'."""
    names = {"c": "color", "d": "depth", "i": "info"}
    out = []
    for event in events.split():
        matches = synchroniser.add(names[event[0]], int(event[1:]) * MS, event)
        out += ["+".join(match) for match in matches]
    return out


def two(slop_ms: int = 17, queue: int = 30) -> Synchroniser:
    return Synchroniser(("color", "depth"), slop_ns=slop_ms * MS, queue=queue)


class TestSynchroniser:
    def test_exact_match_is_given_out_at_once_whatever_comes_first(self):
        assert feed(two(), "c0 d0 d33 c33") == ["c0+d0", "c33+d33"]

    def test_exact_match_wins_over_an_approximate_one_that_came_first(self):
        assert feed(two(), "c10 d5 d10") == ["c10+d10"]

    def test_approximate_match_waits_until_nothing_nearer_can_come(self):
        synchroniser = two()
        assert feed(synchroniser, "c0 d-8") == []
        assert feed(synchroniser, "d25") == ["c0+d-8"]

    def test_approximate_match_with_later_depth_needs_the_next_colour(self):
        synchroniser = two()
        assert feed(synchroniser, "c0 d8") == []  # a colour at 8 would be its exact partner
        assert feed(synchroniser, "c33") == ["c0+d8"]

    def test_depth_is_not_taken_from_the_colour_that_it_is_nearest_to(self):
        synchroniser = two()
        assert feed(synchroniser, "c0 c10 d10") == ["c10+d10"]
        assert synchroniser.dropped == {"color": 1, "depth": 0}

    def test_second_nearest_depth_is_used_when_the_nearest_belongs_to_another_colour(self):
        assert feed(two(), "d-10 c0 c10 d9 c40 d40") == ["c0+d-10", "c10+d9", "c40+d40"]

    def test_nothing_farther_than_the_slop_is_matched(self):
        synchroniser = two(slop_ms=5)
        assert feed(synchroniser, "c0 d6 c33 d33") == ["c33+d33"]
        assert synchroniser.dropped == {"color": 1, "depth": 1}

    def test_slop_is_inclusive_and_zero_means_exact(self):
        assert feed(two(slop_ms=6), "c0 d6 c33") == ["c0+d6"]
        assert feed(two(slop_ms=0), "c0 d1 c2 d2") == ["c2+d2"]

    def test_depth_at_a_third_of_the_rate_leaves_the_other_colours_unmatched(self):
        synchroniser = two()
        events = " ".join(f"c{i * 33}" + (f" d{i * 33}" if i % 3 == 0 else "") for i in range(10))
        assert feed(synchroniser, events) == ["c0+d0", "c99+d99", "c198+d198", "c297+d297"]
        assert synchroniser.dropped["color"] == 6

    def test_late_depth_is_still_matched_in_time_order(self):
        assert feed(two(), "c0 c33 c66 d0 d33 d66") == ["c0+d0", "c33+d33", "c66+d66"]

    def test_three_streams_with_different_lags(self):
        synchroniser = Synchroniser(("color", "depth", "info"), slop_ns=5 * MS, queue=10)
        assert feed(synchroniser, "i0 c0 c33 i33 d0 d33") == ["c0+d0+i0", "c33+d33+i33"]
        assert feed(synchroniser, "c66 d68 i66 c99 d99 i99") == ["c66+d68+i66", "c99+d99+i99"]

    def test_every_item_is_used_once_and_repeated_or_late_ones_are_dropped(self):
        synchroniser = two()
        assert feed(synchroniser, "c0 d0 c0 d0 c-5 d-5") == ["c0+d0"]
        assert synchroniser.dropped == {"color": 2, "depth": 2}

    def test_queue_is_bounded_when_a_stream_has_stopped(self):
        synchroniser = two(queue=3)
        assert feed(synchroniser, " ".join(f"c{i}" for i in range(10))) == []
        assert synchroniser.dropped["color"] == 7
        assert feed(synchroniser, "d9") == ["c9+d9"]

    def test_clear_forgets_stamps_so_that_older_time_is_taken_again(self):
        synchroniser = two()
        feed(synchroniser, "c1000 d1000 c1033")
        assert synchroniser.latest == {"color": 1033 * MS, "depth": 1000 * MS}
        synchroniser.clear(["color"])
        assert synchroniser.latest == {"depth": 1000 * MS}
        synchroniser.clear(synchroniser.streams)
        assert synchroniser.latest == {}
        assert synchroniser.dropped == {"color": 1, "depth": 0}
        assert feed(synchroniser, "c0 d0") == ["c0+d0"]

    def test_agrees_with_exhaustive_search_on_random_streams(self):
        rng = np.random.default_rng(3)
        for _ in range(30):
            colors = np.cumsum(rng.integers(20, 60, 12))
            depths = np.unique(colors + rng.integers(-8, 9, 12))
            synchroniser = two(slop_ms=8)
            events = [(t, f"c{t}") for t in colors] + [(t, f"d{t}") for t in depths]
            matches = feed(synchroniser, " ".join(e for _, e in sorted(events)) + " c9000 d9000")
            # Gaps of at least 20 and a slop of 8 leave one partner at most for each colour.
            expected = [f"c{c}+d{depths[np.abs(depths - c).argmin()]}" for c in colors]
            assert matches[:-1] == expected

    @pytest.mark.parametrize(
        "arguments", [{"slop_ns": -1, "queue": 1}, {"slop_ns": 0, "queue": 0}], ids=["slop", "queue"]
    )
    def test_arguments_are_checked(self, arguments):
        with pytest.raises(S4NetError, match="slop must be 0 or more"):
            Synchroniser(("a", "b"), **arguments)
