"""The benchmarks of the geometry run, compare the same things, and say what is missing."""

import sys

import pytest

from s4net_core.bench.geometry import bench_neighbours, bench_warp
from s4net_core.errors import S4NetError


def test_the_warp_is_compared_with_kornia_for_colours_and_for_classes() -> None:
    pytest.importorskip("kornia")
    rows = bench_warp(repeats=3)
    assert [row.name for row in rows[::2]] == ["warp 480x360, 3 channels", "warp 480x360, 37 channels"]
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert "kornia" in theirs.name
        assert ours.ratio == pytest.approx(theirs.value / ours.value)


def test_without_kornia_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.geometry.depth", None)
    with pytest.raises(S4NetError, match="pip install"):
        bench_warp(repeats=1)


def test_neighbour_queries_are_timed_at_every_size() -> None:
    rows = bench_neighbours(sizes=(20, 60))
    assert [row.name for row in rows[::4]] == ["neighbours among 20", "neighbours among 60"]
    assert all(row.value > 0 for row in rows)
    assert all(row.ratio is not None for row in rows[::4])
