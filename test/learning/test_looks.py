"""At which sizes the teacher looks: by how sure its network is there, which is all that it is told."""

import math
from collections import Counter

import pytest

from s4net_core.learning.looks import scales_of_looks


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
    assert scales_of_looks(surest_at(surest), ratio, side=480) == pytest.approx(scales, abs=0.01)


def test_no_size_is_too_small_for_an_encoder():
    assert scales_of_looks(surest_at(0.1), 2, side=70) == pytest.approx([1, 0.5])
    assert scales_of_looks(surest_at(0.1), 2, side=20) == [1, 2]


def test_larger_sizes_are_tried_only_as_long_as_it_gets_surer_and_each_once():
    asked = Counter()

    def certainty(scale):
        asked[round(scale, 2)] += 1
        return surest_at(0.5)(scale)

    scales_of_looks(certainty, 2, side=480)
    assert asked == dict.fromkeys((0.25, 0.35, 0.5, 0.71, 1.0), 1)
