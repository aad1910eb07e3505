"""`s4net bench map` counts the same voxels in both ways."""

import importlib.util

import numpy as np
import pytest

from s4net_core.bench import mapping
from s4net_core.bench.mapping import bench_map
from s4net_core.cli.main import main
from s4net_core.mapping.semantic_map import SemanticMap
from s4net_core.mapping.voxel_map import VoxelMap, unpack


def test_the_ratio_is_that_of_the_two_ways_to_count(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("open3d") is None:
        pytest.skip("open3d is not installed")
    _, ours, theirs = bench_map(repeats=3)
    assert ours.ratio == pytest.approx(theirs.value / ours.value)
    assert main(["bench", "map", "--repeats", "1"]) == 0
    assert "Open3D's HashMap" in " ".join(capsys.readouterr().out.split())


def test_both_ways_count_the_same() -> None:
    if importlib.util.find_spec("open3d") is None:
        pytest.skip("open3d is not installed")
    ours, theirs = VoxelMap(40, 1 << 20), mapping._Open3dMap()
    found = SemanticMap(mapping.SUNRGBD37, mapping.MapSettings())
    for number in range(2):
        keys, counts = found.votes(*mapping._view(number))
        ours.add(keys, counts)
        theirs.add(unpack(keys), counts)
    asked = theirs._core.Tensor(unpack(ours.keys).astype(np.int32))
    rows, known = theirs._map.find(asked)
    assert known.numpy().all()
    assert theirs._map.size() == len(ours)
    assert np.array_equal(theirs._map.value_tensor(0).numpy()[rows.numpy()], ours.counts_of(ours.keys))


def test_without_open3d_there_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [row.ratio is None for row in bench_map(repeats=1)] == [False, True]
