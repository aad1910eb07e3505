"""Agreement between views, on a room whose labels are known exactly."""

import math

import numpy as np
import pytest
import torch
from scenes import make_room_frames

from s4net_core.config import Settings
from s4net_core.errors import ShapeError
from s4net_core.evaluation.agreement import agreement_of_each, compared_views
from s4net_core.keyframes import KeyframeBuffer


@pytest.fixture(scope="module")
def settings():
    return Settings.model_validate({"keyframes": {"min_sharpness": 0.0}, "learner": {"neighbours": 3}})


@pytest.fixture(scope="module")
def room(settings):
    """Keyframes of a room and the true labels by keyframe id."""
    keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    labels = {}
    for frame in make_room_frames(20):
        offer = keyframes.offer(frame)
        if offer.id is not None:
            labels[offer.id] = frame.label
    assert len(labels) >= 5
    return keyframes, labels


def agreement(labels, keyframes, settings, *device, **on_view):
    """Of the labels of one network."""
    (found,) = agreement_of_each([labels], compared_views(keyframes, labels, settings), settings, *device, **on_view)
    return found


def test_true_labels_agree_but_for_the_rounding_to_pixels_at_borders(room, settings):
    keyframes, labels = room
    result = agreement(labels, keyframes, settings)
    assert 0.93 < result.mean < 1.0
    assert result.pairs >= len(labels)
    assert result.pixels > 0.2 * result.pairs * labels[0].size


def test_agreement_falls_by_what_is_changed(room, settings):
    """With a share p of independent wrong answers, two views agree on (1 - p)² of the points on which they did."""
    keyframes, labels = room
    rng = np.random.default_rng(0)
    p = 0.2
    noisy = {
        id: np.where(rng.random(label.shape) < p, rng.integers(100, 255, label.shape), label).astype(np.uint8)
        for id, label in labels.items()
    }
    before, after = agreement(labels, keyframes, settings), agreement(noisy, keyframes, settings)
    assert after.pixels == before.pixels
    assert after.mean == pytest.approx(before.mean * (1 - p) ** 2, abs=0.01)


def test_views_that_see_each_other_with_other_classes_disagree(room, settings):
    keyframes, labels = room
    apart = {id: np.full_like(label, 1 + id) for id, label in labels.items()}
    assert agreement(apart, keyframes, settings).mean == 0.0


def test_the_share_of_each_view_tells_where_views_disagree(room, settings):
    keyframes, labels = room
    worst = max(labels)
    spoiled = {**labels, worst: np.full_like(labels[worst], 200)}
    shares = {}
    views = compared_views(keyframes, labels, settings)
    agreement_of_each([labels, spoiled], views, settings, on_share=shares.__setitem__)
    assert set(shares) == set(labels)
    assert shares[worst][1] == 0.0
    assert shares[worst][0] > 0.9
    assert all(of_spoiled <= of_true for of_true, of_spoiled in shares.values())
    assert any(of_spoiled == of_true for of_true, of_spoiled in shares.values())  # that are no neighbours of it


def test_pixels_without_answer_are_not_compared(room, settings):
    keyframes, labels = room
    whole = agreement(labels, keyframes, settings)
    half = {id: label.copy() for id, label in labels.items()}
    for label in half.values():
        label[:, ::2] = 0
    result = agreement(half, keyframes, settings)
    assert 0 < result.pixels < 0.5 * whole.pixels
    assert result.mean == pytest.approx(whole.mean, abs=0.03)


def test_no_more_views_are_compared_than_neighbours_are_set(room, settings):
    keyframes, labels = room
    one = settings.model_copy(deep=True)
    one.learner.neighbours = 1
    assert agreement(labels, keyframes, one).pairs <= len(labels)


def test_views_that_were_evicted_are_left_out(room, settings):
    keyframes, labels = room
    gone = {**labels, 999: labels[0]}
    assert agreement(gone, keyframes, settings) == agreement(labels, keyframes, settings, torch.device("cpu"))


def test_views_that_are_evicted_meanwhile_are_still_compared(room, settings):
    _, labels = room
    lost = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in make_room_frames(20):
        lost.offer(frame)
    assert lost.ids() == list(labels)
    whole = agreement(labels, lost, settings)
    assert agreement(labels, lost, settings, on_view=lost.clear) == whole
    assert lost.ids() == []


def test_single_view_has_no_agreement(room, settings):
    keyframes, labels = room
    for few in ({}, {0: labels[0]}):
        result = agreement(few, keyframes, settings)
        assert math.isnan(result.mean)
        assert result.pixels == result.pairs == 0


def test_labels_of_another_size_are_refused(room, settings):
    keyframes, labels = room
    small = {id: label[::2, ::2] for id, label in labels.items()}
    with pytest.raises(ShapeError, match="labels of keyframe"):
        agreement(small, keyframes, settings)
