"""Sparse voxels: counts as a dictionary would hold them, whatever is added and taken back, and never too many."""

import numpy as np
import pytest

from s4net_core.mapping.voxel_map import REACH, VoxelMap, pack, unpack


def contribution(rng: np.random.Generator, n: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    keys = np.unique(pack(rng.integers(-side, side, (n, 3))))
    return keys, rng.integers(1, 9, (len(keys), 4)).astype(np.uint32)


def contents(voxels: VoxelMap) -> dict[int, list[int]]:
    counts = [row.tolist() for chunk in voxels.chunks() for row in chunk]
    return dict(zip(voxels.keys.tolist(), counts, strict=True))


def test_keys_keep_indices_and_their_order() -> None:
    rng = np.random.default_rng(0)
    indices = np.vstack([rng.integers(-REACH, REACH, (500, 3)), [[-REACH] * 3, [REACH - 1] * 3, [0, -1, 1]]])
    keys = pack(indices)
    assert np.array_equal(unpack(keys), indices)
    assert [tuple(row) for row in unpack(np.sort(keys)).tolist()] == sorted(map(tuple, indices.tolist()))


def test_counts_are_those_of_a_dictionary_while_contributions_come_and_go() -> None:
    rng = np.random.default_rng(1)
    voxels, expected, given = VoxelMap(4, 100_000), dict[int, np.ndarray](), []
    for _ in range(20):
        if given and rng.random() < 0.4:
            keys, counts = given.pop(int(rng.integers(len(given))))
            voxels.subtract(keys, counts)
            sign = -1
        else:
            keys, counts = contribution(rng, 1000)
            given.append((keys, counts))
            assert not voxels.add(keys, counts).any()
            sign = 1
        for key, count in zip(keys.tolist(), counts.astype(int), strict=True):
            expected[key] = expected.get(key, np.zeros(4, int)) + sign * count
        expected = {key: count for key, count in expected.items() if count.any()}
        assert contents(voxels) == {key: expected[key].tolist() for key in sorted(expected)}
    asked = pack(np.array([[0, 0, 0], [500, 0, 0]]))
    assert voxels.counts_of(asked).tolist() == [expected.get(int(asked[0]), np.zeros(4, int)).tolist(), [0] * 4]


@pytest.mark.parametrize("cap", [5, 1000, 2000])
def test_a_full_map_refuses_new_voxels_and_goes_on_counting_known_ones(cap: int) -> None:
    rng = np.random.default_rng(2)
    voxels = VoxelMap(4, cap)
    first, second = contribution(rng, 3000), contribution(rng, 3000)
    refused = voxels.add(*first)
    before = contents(voxels)
    assert len(voxels) == len(voxels._table) == cap, "memory does not grow beyond the limit"
    assert refused.sum() == len(first[0]) - cap
    refused_too = voxels.add(*second)
    assert list(contents(voxels)) == list(before)
    assert np.array_equal(~refused_too, np.isin(second[0], list(before)))
    voxels.subtract(second[0][~refused_too], second[1][~refused_too])
    assert contents(voxels) == before
    voxels.subtract(first[0][~refused], first[1][~refused])
    assert len(voxels) == 0
    assert voxels.add(*second).sum() == len(second[0]) - cap, "its rows are free again"
