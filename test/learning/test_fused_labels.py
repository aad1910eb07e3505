"""What the teacher says of a target: from which views, with how many looks, and for how long it is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from s4net_core.geometry.views import Pairs
from s4net_core.geometry.warp import correspond, merge, sample, sample_mask
from s4net_core.keyframes import KeyframeBuffer, views_of
from s4net_core.learning import teacher as module
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import build_network
from s4net_core.models.folding import folded
from s4net_core.models.predict import predict_labels, to_tensor

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


@pytest.fixture
def network(sure_network):
    return sure_network


@pytest.fixture
def keyframes(settings, frames):
    settings.keyframes.min_translation, settings.keyframes.min_rotation = 0.05, 1.0  # every frame is new
    buffer = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames[:12]:
        buffer.offer(frame)
    return buffer


def all_neighbours(keyframes, target):
    return [keyframes.get(id) for id in keyframes.neighbours(target.id, 0, 0.25, RNG)]


def test_labels_from_all_views_are_kept_until_the_teacher_or_the_views_change(
    settings, network, keyframes, frames, monkeypatch
):
    settings.learner.neighbours = 0
    teacher = Teacher(network, settings, CPU)
    made, merged = [], teacher.merged
    monkeypatch.setattr(teacher, "merged", lambda target, others: made.append(len(others)) or merged(target, others))
    target = keyframes.get(keyframes.ids()[-1])
    before = all_neighbours(keyframes, target)
    first = teacher.labels(target, before)
    assert teacher.labels(target, before) == first
    assert made == [len(before)]
    teacher.refresh(network)
    assert torch.equal(teacher.labels(target, before)[0], first[0])
    assert made == 2 * [len(before)]
    for frame in frames[12:]:
        keyframes.offer(frame)
    after = all_neighbours(keyframes, target)
    assert len(after) > len(before)
    labels, valid = teacher.labels(target, after)
    assert made == [*2 * [len(before)], len(after)]
    expected = Teacher(network, settings, CPU).merged(target, after)
    assert torch.equal(labels, expected.labels)
    assert torch.equal(valid, expected.valid)
    assert not torch.equal(labels, first[0])


def test_labels_are_made_anew_when_a_view_has_moved(settings, network, keyframes):
    settings.learner.neighbours = 0
    teacher = Teacher(network, settings, CPU)
    target = keyframes.get(keyframes.ids()[-1])
    others = all_neighbours(keyframes, target)
    before = teacher.labels(target, others)
    T = others[0].T_world_camera.copy()
    T[:3, 3] += 0.1
    moved = replace(others[0], T_world_camera=T, revision=1)
    labels, valid = teacher.labels(target, [moved, *others[1:]])
    expected = Teacher(network, settings, CPU).merged(target, [moved, *others[1:]])
    assert torch.equal(labels, expected.labels)
    assert not (torch.equal(labels, before[0]) and torch.equal(valid, before[1]))


def test_labels_from_views_drawn_at_random_are_not_kept(settings, network, keyframes):
    settings.learner.neighbours = 2
    teacher = Teacher(network, settings, CPU)
    target = keyframes.get(4)
    teacher.labels(target, all_neighbours(keyframes, target)[:2])
    assert not teacher._labels._values


def test_views_merged_in_parts_are_those_merged_at_once(settings, network, keyframes, monkeypatch):
    monkeypatch.setattr(module, "WARPED", 2)
    settings.learner.merge_target = True
    teacher = Teacher(network, settings, CPU)
    target = keyframes.get(4)
    others = all_neighbours(keyframes, target)
    assert len(others) % 2 == 1
    parts = teacher.merged(target, others)
    own, *predictions = teacher._predict([target, *others])
    pairs = Pairs(views_of([target], CPU).repeated(len(others)), views_of(others, CPU))
    correspondence = correspond(pairs, settings.geometry)
    warped, valid = sample(torch.cat([p.probabilities for p in predictions]), correspondence)
    valid = valid & sample_mask(torch.cat([p.inner for p in predictions]), correspondence)
    warped, valid = (torch.cat([part, of_own]) for part, of_own in ((warped, own.probabilities), (valid, own.inner)))
    whole = merge(warped[:, None], valid[:, None])
    torch.testing.assert_close(parts.total, whole.total)
    assert torch.equal(parts.views, whole.views)
    assert torch.equal(parts.labels, whole.labels)


@pytest.mark.parametrize("kind", ["argmax", "soft"])
def test_where_no_neighbour_sees_the_target_its_own_label_counts(settings, network, keyframes, kind):
    settings.learner.merge = kind
    settings.geometry.max_depth = 0.2  # everything is farther away
    teacher = Teacher(network, settings, CPU)
    target = keyframes.get(4)
    others = all_neighbours(keyframes, target)
    assert not teacher.labels(target, others)[1].any()
    settings.learner.merge_target = True
    labels, valid = teacher.labels(target, others)
    found = labels if kind == "argmax" else labels.argmax(dim=1) + 1
    (own,) = predict_labels(network, [target.color], settings, CPU)
    assert 0.3 < valid.float().mean() < 1  # not at borders
    assert torch.equal(valid, teacher.segments([target])[1])
    assert np.array_equal(found[valid[:, 0]].numpy(), own[valid[0, 0].numpy()])
    assert kind == "soft" or not labels[~valid[:, 0]].any()


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("factors", [[1], [1, 1.5], [1, 0.7071, 1.4142]])
def test_several_looks_count_equally(settings, network, keyframes, factors, mirror):
    settings.learner.teacher_mirror = mirror
    teacher = Teacher(network, settings, CPU)
    teacher.look_at(factors)
    views = [keyframes.get(id) for id in (4, 5)]
    found = teacher._predict(views)  # in one batch
    for view, prediction in zip(views, found, strict=True):
        image = to_tensor([view.color], CPU)
        looks = []
        with torch.no_grad():
            for i, factor in enumerate(factors * 2 if mirror and factors == [1] else factors):
                size = [round(side * factor) for side in image.shape[2:]]
                seen = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
                turned = mirror and (view.id + i) % 2 == 1  # every second look, another one in the next view
                logits = network(seen.flip(3)).flip(3) if turned else network(seen)
                at_size = functional.interpolate(logits, size=image.shape[2:], mode="bilinear", antialias=True)
                looks.append(at_size.softmax(dim=1))
        expected = torch.stack(looks).mean(dim=0)
        torch.testing.assert_close(prediction.probabilities.float(), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("width", "scales", "surest"), [(96, [1, 2], 1.41), (64, [1, 0.71, 1.41], 1)])
def test_the_sizes_at_which_the_network_is_surest_are_found(
    settings, network, keyframes, monkeypatch, width, scales, surest
):
    """It is surest of images that are `width` pixels wide."""

    def logits_at(network, images, size, *, amp):
        sure = 6 - 3 * np.log2(images.shape[3] / width) ** 2
        return torch.tensor([sure] + [0.0] * 36).view(1, 37, 1, 1).expand(len(images), 37, *size)

    settings.learner.teacher_scale = 2
    monkeypatch.setattr(module, "logits_at", logits_at)
    found = Teacher(network, settings, CPU).surest_looks([keyframes.get(id).color for id in (1, 6, 11)])
    assert found.scales == pytest.approx(scales, abs=0.01)
    assert found.surest == pytest.approx(surest, abs=0.01)


def test_other_looks_make_other_predictions_and_the_same_looks_keep_them(settings, network, keyframes):
    teacher, view = Teacher(network, settings, CPU), keyframes.get(4)
    once = teacher.predictions([view])[0]
    assert teacher.look_at([1, 0.5])
    twice = teacher.predictions([view])[0]
    assert not torch.equal(once, twice)
    assert not teacher.look_at([1, 0.5])
    assert torch.equal(teacher.predictions([view])[0], twice)


def test_a_mirrored_first_look_gives_the_depth_of_the_view_as_it_is(settings, keyframes):
    settings.learner.teacher_mirror, settings.model.depth_decoder = True, True
    network = build_network(settings.model).eval()
    view = keyframes.get(5)
    depth = Teacher(network, settings, CPU)._predict([view])[0].depth
    image, network = to_tensor([view.color], CPU), folded(network)  # as the teacher, which then rounds alike
    with torch.no_grad():
        torch.testing.assert_close(depth, network.outputs(image.flip(3)).depth.flip(3), rtol=1e-6, atol=1e-6)
        assert not torch.allclose(depth, network.outputs(image).depth, rtol=1e-5)
