"""At which sizes the teacher looks: by how sure its network is there, which is all that it is told."""

import math
from collections import Counter

import pytest

from s4net_core.learning.looks import surest_looks


def surest_at(scale):
    """Certainty by the scale that is looked at; more than 1 for easy numbers."""
    return lambda looked_at: 20 - math.log2(looked_at / scale) ** 2


@pytest.mark.parametrize(
    ("surest", "ratio", "scales"),
    [
        (1.4, 2, [1, 2]),
        (1.0, 2, [1, 0.71, 1.41]),
        (0.7, 2, [1, 0.5]),
        (0.5, 2, [1, 0.35, 0.71]),
        (0.25, 2, [1, 0.25, 0.5]),  # a quarter is the smallest
        (4.0, 2, [1, 2]),  # larger looks would cost too much
        (1.0, 4, [1, 0.5, 2]),
        (1.0, 1, [1]),
    ],
)
def test_two_sizes_are_looked_at_where_the_network_is_surest(surest, ratio, scales):
    assert surest_looks(surest_at(surest), ratio, side=480).scales == pytest.approx(scales, abs=0.01)


def test_no_size_is_too_small_for_an_encoder():
    assert surest_looks(surest_at(0.1), 2, side=70).scales == pytest.approx([1, 0.5])
    assert surest_looks(surest_at(0.1), 2, side=20).scales == [1, 2]


def test_larger_sizes_are_tried_only_as_long_as_it_gets_surer_and_each_once():
    asked = Counter()

    def certainty(scale):
        asked[round(scale, 2)] += 1
        return surest_at(0.5)(scale)

    surest_looks(certainty, 2, side=480)
    assert asked == dict.fromkeys((0.25, 0.35, 0.5, 0.71, 1.0), 1)


@pytest.mark.parametrize(("surest", "size"), [(1.4, 1.41), (1.0, 1), (0.7, 0.71), (0.5, 0.5), (4.0, 2)])
def test_the_surest_size_is_told(surest, size):
    assert surest_looks(surest_at(surest), 2, side=480).surest == pytest.approx(size, abs=0.01)


@pytest.mark.parametrize(("gain", "surest"), [(0.004, 1), (0.006, 1.41)])
def test_a_size_that_is_hardly_surer_than_the_working_size_is_not_told(gain, surest):
    def certainty(scale):
        return {1.0: 0.8, 1.41: 0.8 + gain}.get(round(scale, 2), 0.7)

    assert surest_looks(certainty, 2, side=480).surest == pytest.approx(surest, abs=0.01)
