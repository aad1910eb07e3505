"""The benchmarks of the geometry compare the same things, in the units they name, and say what is missing."""

import itertools
import sys

import pytest

from s4net_core.bench import geometry as bench_geometry
from s4net_core.bench.geometry import bench_neighbours, bench_warp
from s4net_core.errors import S4NetError


class Clock:
    """A clock that only the calls which are measured move."""

    def __init__(self) -> None:
        self.now = 0.0

    def takes(self, *seconds: float):
        """A call that takes the first of these times, then the second, ...; the last one from then on."""
        times = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def call() -> None:
            self.now += next(times)

        return call

    def perf_counter(self) -> float:
        return self.now


def test_calls_take_turns_and_the_median_of_each_counts_without_the_first_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(bench_geometry, "time", clock)
    calls = (clock.takes(90, 90, 1, 2, 60), clock.takes(50, 50, 7, 30, 8))
    assert bench_geometry._interleaved([calls] * 5, "cpu") == [2, 8]


def test_the_warp_is_compared_with_kornia_for_colours_and_for_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia")

    def measure(rounds, device):
        assert len({*rounds}) == 1
        ours, theirs = (call() for call in next(iter(rounds)))
        assert ours.shape == theirs.shape
        same = (ours - theirs).abs().amax(dim=1) < 1e-4
        assert 0.3 < same.float().mean() < 1  # kornia warps what is hidden or without depth too
        return [0.002, 0.006]

    monkeypatch.setattr(bench_geometry, "_interleaved", measure)
    monkeypatch.setattr(bench_geometry, "track", lambda rounds, *words, **options: rounds)
    rows = bench_warp(repeats=3)
    assert rows[::2] == [
        ("warp 480x360, 3 channels", 2.0, "ms", 3.0),
        ("warp 480x360, 37 channels", 2.0, "ms", 3.0),
    ]
    assert rows[1] == ("warp 480x360, 3 channels, kornia", 6.0, "ms", None)


def test_without_kornia_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.geometry.depth", None)
    with pytest.raises(S4NetError, match="pip install"):
        bench_warp(repeats=1)


def test_neighbour_queries_are_timed_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_geometry.time, "perf_counter", itertools.count().__next__)  # each look at it takes 1 s
    monkeypatch.setattr(bench_geometry, "QUERIES", 5)
    rows = bench_neighbours(sizes=(20, 60))
    assert rows[4:] == [
        ("neighbours among 60", 1e6, "µs", 1.0),
        ("scan over 60 poses", 1e6, "µs", None),
        ("a batch of 4 among 60", 1e3, "ms", None),
        ("offer up to 60, mean", 1e3, "ms", None),
    ]
    assert [row.name for row in rows[:4]] == [row.name.replace("60", "20") for row in rows[4:]]
