"""Synchroniser: what is paired, and what is dropped. The algorithm of message_filters is written out as an oracle."""

import numpy as np
import pytest

from s4net_core.errors import S4NetError
from s4net_core.streams.synchroniser import Synchroniser

MS = 1_000_000


def feed(synchroniser: Synchroniser, events: str) -> list[str]:
    """'c0 d3' = colour at 0 ms, then depth at 3 ms; the pairs as 'c0+d3'."""
    pairs = (synchroniser.add("cd".index(event[0]), int(event[1:]) * MS, event) for event in events.split())
    return ["+".join(pair) for pair in pairs if pair]


def message_filters(events: list[tuple[int, int]], slop: int, queue: int) -> list[tuple[int, int]]:
    """The algorithm of message_filters: of the candidates by distance to the new stamp, the first that fits."""
    queues: list[list[int]] = [[], []]
    out = []
    for stream, stamp in events:
        own, others = queues[stream], queues[1 - stream]
        if stamp not in own:
            own.append(stamp)
        while len(own) > queue:
            own.remove(min(own))
        for other in sorted((s for s in others if abs(s - stamp) <= slop), key=lambda s: abs(s - stamp)):
            if max(other, stamp) - min(other, stamp) < max(slop, 1) and stamp in own:
                out.append((stamp, other) if stream == 0 else (other, stamp))
                own.remove(stamp)
                others.remove(other)
                break
    return out


@pytest.mark.parametrize("slop_ms", [0, 17])
def test_a_pair_is_given_out_at_once_whatever_comes_first(slop_ms):
    assert feed(Synchroniser(slop_ms * MS, 30), "c0 d0 d33 c33") == ["c0+d0", "c33+d33"]


@pytest.mark.parametrize(
    ("events", "pairs"),
    [
        ("d-8 d5 c0", ["c0+d5"]),  # the nearest of those that are there
        ("d-8 c0 d0", ["c0+d-8"]),  # which does not wait for a nearer one
        ("d-4 d4 c0", ["c0+d-4"]),  # equally near: the one that came first
        ("c0 d17 c33", ["c33+d17"]),  # a stamp as far away as the slop is too far
        ("c0 c33 c66 d0 d33 d66", ["c0+d0", "c33+d33", "c66+d66"]),  # late ones
        ("c0 d0 d0 c0", ["c0+d0", "c0+d0"]),
        ("c0 d40 c33 d99 c100", ["c33+d40", "c100+d99"]),
    ],
)
def test_what_is_paired_within_the_slop(events, pairs):
    assert feed(Synchroniser(17 * MS, 30), events) == pairs


def test_without_slop_stamps_must_be_equal():
    assert feed(Synchroniser(0, 30), "c0 d1 c2 d2") == ["c2+d2"]


def test_an_item_with_a_stamp_that_waits_replaces_it():
    synchroniser = Synchroniser(0, 3)
    assert [synchroniser.add(0, 5, "first"), synchroniser.add(0, 5, "second")] == [None, None]
    assert synchroniser.add(1, 5, "depth") == ("second", "depth")


def test_the_queue_is_bounded_and_the_oldest_stamp_goes_first():
    synchroniser = Synchroniser(0, 3)
    assert feed(synchroniser, " ".join(f"c{i}" for i in (9, 0, 8, 1, 7))) == []
    assert feed(synchroniser, "d0 d1 d7 d8 d9") == ["c7+d7", "c8+d8", "c9+d9"]


@pytest.mark.parametrize("slop_ms", [0, 8])
@pytest.mark.parametrize("queue", [2, 30])
def test_it_agrees_with_message_filters_on_random_streams(slop_ms, queue):
    rng = np.random.default_rng(3)
    for _ in range(40):
        stamps = np.cumsum(rng.integers(5, 40, 25))
        events = [(0, int(t)) for t in stamps] + [(1, int(t)) for t in stamps + rng.integers(-9, 10, 25)]
        events = [events[i] for i in np.argsort([t + rng.integers(0, 60) for _, t in events])]  # all topics lag
        feed_in = " ".join(f"{'cd'[stream]}{stamp}" for stream, stamp in events)
        expected = [f"c{c}+d{d}" for c, d in message_filters(events, slop_ms, queue)]
        assert feed(Synchroniser(slop_ms * MS, queue), feed_in) == expected


@pytest.mark.parametrize(("slop_ns", "queue"), [(-1, 1), (0, 0)])
def test_arguments_are_checked(slop_ns, queue):
    with pytest.raises(S4NetError, match="slop must be 0 or more"):
        Synchroniser(slop_ns, queue)
