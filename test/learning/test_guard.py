"""The gate: each way in which weights can be bad is refused, and weights that are as good as the base pass."""

import copy
import math

import numpy as np
import pytest
import torch

from s4net_core.learning.guard import NOT_FINITE, Guard, Health
from s4net_core.learning.teacher import Teacher
from s4net_core.models.checkpoint import load_checkpoint

GOOD = Health(finite=True, source_miou=0.5, score=0.8, agreement=0.8, largest_share=0.4, classes=10)


@pytest.fixture
def guard(settings, base, source, keyframes):
    for name, value in (("max_source_drop", 0.05), ("max_score_drop", 0.02), ("max_class_share", 0.9)):
        setattr(settings.guard, name, value)
    settings.guard.min_class_ratio = 0.5
    network = load_checkpoint(base)[0]
    teacher = Teacher(network, settings, torch.device("cpu"))
    return Guard(network, teacher, source, [0, 1], keyframes, settings, torch.device("cpu"))


def health(**changes) -> Health:
    from dataclasses import replace

    return replace(GOOD, **changes)


def test_as_good_as_the_base_passes(guard):
    assert guard.objections(GOOD, GOOD) == ()
    assert guard.objections(health(source_miou=0.46, score=0.79), GOOD) == ()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (NOT_FINITE, "not finite"),
        (health(source_miou=0.44), "source mIoU"),
        (health(score=0.77), "score on held-out keyframes"),
        (health(largest_share=0.95), "one class"),
        (health(classes=4), "classes are left"),
        (health(agreement=math.nan), "no pixel of two overlapping views could be compared"),
    ],
)
def test_each_kind_of_damage_is_refused(guard, bad, why):
    (reason,) = guard.objections(bad, GOOD)
    assert why in reason


def test_a_room_of_one_class_is_no_collapse_when_the_base_sees_it_too(guard):
    wall = health(largest_share=0.97, classes=1)
    assert guard.objections(wall, wall) == ()


def test_views_that_overlap_but_have_no_pixel_in_common_are_refused(guard, settings, base, keyframes):
    """Overlap is estimated from coarse depth when a view arrives; pixels are compared only at a hand-over."""
    assert keyframes.trainable(settings.learner.min_overlap)
    settings.geometry.max_depth = 0.2  # everything is farther away
    adapted, of_base = guard.measure(load_checkpoint(base)[0])
    assert adapted.classes > 0
    assert math.isnan(adapted.agreement)
    assert any("no pixel of two overlapping views" in reason for reason in guard.objections(adapted, of_base))


def test_without_keyframes_only_forgetting_counts(guard):
    nothing = health(agreement=math.nan, largest_share=math.nan, classes=0)
    assert guard.objections(nothing, nothing) == ()


def test_the_base_measured_against_itself_is_equal(guard, base):
    adapted, of_base = guard.measure(load_checkpoint(base)[0])
    assert adapted == of_base
    assert 0 <= of_base.agreement <= 1
    assert min(of_base.agreement_of.values()) <= of_base.agreement <= max(of_base.agreement_of.values())
    assert guard.objections(adapted, of_base) == ()


def test_a_network_that_says_wall_everywhere_is_refused(guard, base):
    network = load_checkpoint(base)[0]
    with torch.no_grad():
        head = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        head.weight.zero_()
        head.bias.zero_()
        head.bias[0] = 1.0
    adapted, of_base = guard.measure(network)
    assert (adapted.agreement, adapted.largest_share, adapted.classes) == (1.0, 1.0, 1)
    assert any("one class" in reason for reason in guard.objections(adapted, of_base))


def test_weights_that_are_not_finite_are_found(guard, base):
    network = load_checkpoint(base)[0]
    with torch.no_grad():
        list(network.parameters())[-1][0] = math.inf
    adapted, _ = guard.measure(network)
    assert not adapted.finite


def test_large_weights_whose_sum_overflows_are_finite(guard, base):
    network = load_checkpoint(base)[0]
    with torch.no_grad():
        network.body.segmentation_head[0].weight.fill_(1e38)
    assert guard.measure(network)[0].finite


def test_measuring_changes_neither_weights_nor_mode(guard, base):
    network = load_checkpoint(base)[0].train()
    before = copy.deepcopy(network.state_dict())
    guard.measure(network)
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_forgetting_the_source_shows_in_its_miou(guard, source, base):
    """A network that answers the truth of the hold-out scores 1; one that answers something else scores less."""
    network = load_checkpoint(base)[0]
    truth = {source[i].color.tobytes(): source[i].label for i in (0, 1)}

    def perfect(network, colors, settings, device):
        return [truth.get(c.tobytes(), np.ones(c.shape[:2], np.uint8)) for c in colors]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s4net_core.learning.labeller.predict_labels", perfect)
        assert guard._source_miou(network) == 1.0
    assert guard._source_miou(network) < 0.5
