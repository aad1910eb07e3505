"""One step of S4-Net: which losses count, what the teacher does, and what never changes."""

import copy
from dataclasses import astuple

import numpy as np
import pytest
import torch

from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.learner import Learner
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import Outputs, batch_norms
from s4net_core.models.checkpoint import load_checkpoint
from s4net_core.models.predict import forward, to_tensor


@pytest.fixture
def make(settings, base, source, frames):
    def make_learner(labels_of=None):
        keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
        for frame in frames:
            keyframes.offer(frame)
        network, _ = load_checkpoint(base)
        size = (settings.model.width, settings.model.height)
        rng = np.random.default_rng(settings.seed)
        batches = SourceBatches(source, settings.learner.source_batch, *size, True, rng, cache_megabytes=1)
        teacher = Teacher(copy.deepcopy(network), settings, torch.device("cpu"))
        return Learner(network, batches, torch.ones(37), teacher, keyframes, settings, torch.device("cpu"), labels_of)

    return make_learner


def test_the_loss_is_the_sum_of_both_with_lambda(make, settings):
    settings.learner.lambda_geometric = 0.25
    report = make().step()
    assert report.loss == pytest.approx(report.loss_source + 0.25 * report.loss_geometric, rel=1e-5)
    assert report.loss_geometric > 0
    assert 0.1 < report.coverage <= 1


def test_a_learning_rate_that_changes_counts_from_the_next_step_on(make, settings):
    learner = make()
    learner.step()
    before = copy.deepcopy(learner.network.state_dict())
    settings.learner.learning_rate = 1e-12
    learner.step()
    after = learner.network.state_dict()
    assert all(
        torch.allclose(before[key], after[key], rtol=0, atol=1e-9) for key, _ in learner.network.named_parameters()
    )


def test_the_control_learns_from_the_source_alone(make, settings):
    settings.learner.lambda_geometric = 0.0
    report = make().step()
    assert report.loss == report.loss_source
    assert (report.loss_geometric, report.coverage) == (0.0, 0.0)


def test_control_and_method_see_the_same_source_images(make, settings):
    settings.learner.lambda_geometric = 0.0
    control = make()
    settings.learner.lambda_geometric = 0.5
    method = make()
    for _ in range(3):
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(astuple(control._batches.next()), astuple(method._batches.next()), strict=True)
        )


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(make, settings):
    learner = make()
    before = copy.deepcopy(learner.network.state_dict())
    learner.step()
    after = learner.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running_" in k)
    assert any(not torch.equal(n.weight, before_weight) for n, before_weight in _scales(learner.network, before))


def test_live_batch_norm_moves_its_statistics(make, settings):
    settings.learner.batch_norm = "live"
    learner = make()
    before = copy.deepcopy(learner.network.state_dict())
    learner.step()
    after = learner.network.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before if "running_mean" in k)


@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
def test_batches_of_one_work(make, settings, batch_norm):
    settings.learner.source_batch = settings.learner.target_batch = settings.learner.neighbours = 1
    settings.learner.batch_norm = batch_norm
    assert np.isfinite(make().step().loss)


def test_the_teacher_takes_over_the_weights_every_so_many_steps_and_not_before(make, settings):
    settings.learner.teacher_refresh = 2
    learner = make()
    view = learner._keyframes.get(min(learner._keyframes.ids()))

    def off():
        """How far the teacher's probabilities are from those of the learner's network."""
        own = forward(learner.network, to_tensor([view.color], torch.device("cpu"))).softmax(dim=1)
        learner._teacher.forget()
        return (learner._teacher.predictions([view])[0] - own).abs().max()

    rounding = off()
    assert rounding < 1e-3
    learner.step()
    assert off() > 2 * rounding
    learner.step()
    assert off() < 2 * rounding


def test_geometric_loss_pulls_towards_the_neighbours(make, settings):
    """Without the source loss, predictions approach the teacher's merged labels."""
    settings.learner.lambda_geometric = 100.0
    settings.learner.teacher_refresh = 1000
    learner = make()
    reports = [learner.step() for _ in range(12)]
    assert np.mean([r.loss_geometric for r in reports[-3:]]) < 0.8 * np.mean([r.loss_geometric for r in reports[:3]])


def test_a_perfect_teacher_gives_the_true_labels(make, settings, frames, monkeypatch):
    """Neighbours that predict the truth must vote for the truth in the target: warp, masks and merge in one."""
    learner = make()
    keyframes = learner._keyframes
    truth = {frame.stamp: frame.label for frame in frames}
    colors = {id: keyframes.get(id).color.tobytes() for id in keyframes.ids()}
    stamps = {color: keyframes.get(id).stamp for id, color in colors.items()}

    def predict(network, images, amp):
        labels = []
        for image in images:
            color = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy().tobytes()
            labels.append(torch.from_numpy(truth[stamps[color]].astype(np.int64)))
        one_hot = torch.nn.functional.one_hot(torch.stack(labels).clamp(min=1) - 1, 37)
        return Outputs(100 * one_hot.permute(0, 3, 1, 2).float())

    monkeypatch.setattr("s4net_core.learning.teacher.all_outputs", predict)
    teacher = Teacher(learner.network, settings, torch.device("cpu"))
    rng = np.random.default_rng(0)
    compared = wrong = 0
    for id in keyframes.trainable(0.25):
        target = keyframes.get(id)
        neighbours = [keyframes.get(i) for i in keyframes.neighbours(id, 4, 0.25, rng)]
        labels, valid = teacher.labels(target, neighbours)
        mask = valid[0, 0].numpy()
        compared += mask.sum()
        wrong += (labels[0].numpy()[mask] != truth[target.stamp][mask]).sum()
    assert compared > 3000
    assert wrong / compared < 0.01


def test_the_teachers_cache_changes_nothing_and_stays_small(make, settings):
    learner = make()
    keyframes = learner._keyframes
    target, *others = (keyframes.get(i) for i in keyframes.ids()[:4])
    cached = learner._teacher.labels(target, others)
    again = learner._teacher.labels(target, others)
    settings.learner.teacher_cache_megabytes = 0
    without = Teacher(learner.network, settings, torch.device("cpu"))
    fresh = without.labels(target, others)
    assert without._cache.nbytes == 0
    for one in (again, fresh):
        assert torch.equal(one[0], cached[0])
        assert torch.equal(one[1], cached[1])


def test_a_view_that_leaves_the_teachers_cache_leaves_nothing_of_its_batch_behind(make, settings):
    learner = make()
    keyframes = learner._keyframes
    learner._teacher.segments(list(keyframes.views(keyframes.ids()[:4]).values()))
    learner._teacher._cache._values.popitem(last=False)
    for prediction in learner._teacher._cache._values.values():
        kept = [part.untyped_storage().nbytes() for part in vars(prediction).values() if part is not None]
        assert sum(kept) == prediction.nbytes


def test_given_labels_are_learnt_instead_of_predictions(make, settings, frames, monkeypatch):
    """Half of each image is unlabelled; a view without labels counts nowhere. The teacher is not asked."""
    settings.learner.lambda_geometric = 0.5
    given = {frame.stamp: np.where(np.arange(64) < 32, frame.label, 0).astype(np.uint8) for frame in frames}
    learner = make(lambda view: given[view.stamp])
    monkeypatch.setattr(learner._teacher, "_predict", None)
    drawn, outputs = learner._draw_targets(), []
    assert torch.equal(drawn.merged, torch.from_numpy(np.stack([given[v.stamp] for v, _ in drawn.drawn])).long())
    assert torch.equal(drawn.valid[:, 0], drawn.merged > 0)
    target_loss = learner._target_loss
    monkeypatch.setattr(learner, "_target_loss", lambda o, t: outputs.append((o.logits, t)) or target_loss(o, t))
    report = learner.step()
    ((logits, targets),) = outputs
    expected = torch.nn.functional.cross_entropy(logits, targets.merged - 1, ignore_index=-1)
    assert report.loss_geometric == pytest.approx(float(expected.detach()), rel=1e-5)
    assert report.coverage == 0.5
    assert make(lambda view: None).step().coverage == 0


def test_without_keyframes_it_learns_from_the_source_alone(make):
    learner = make()
    learner._keyframes.clear()
    report = learner.step()
    assert (report.coverage, report.loss_geometric) == (0.0, 0.0)


def _scales(network, before):
    names = {id(m): n for n, m in network.named_modules()}
    return [(m, before[f"{names[id(m)]}.weight"]) for m in batch_norms(network)]


def _equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_without_averaging_the_last_steps_weights_serve(make):
    learner = make()
    assert learner.averaged is learner.network


def test_the_average_lags_behind_the_steps_and_its_weights_count_equally_at_first(make, settings):
    settings.learner.weight_average = 0.99
    learner = make()
    seen = []
    for _ in range(3):
        learner.step()
        seen.append(_flat(learner.network.state_dict()))
    expected = _flat(make().network.state_dict())
    for i, value in enumerate(seen, start=1):
        expected = expected * (i / (i + 10)) + value * (10 / (i + 10))
    torch.testing.assert_close(_flat(learner.averaged.state_dict()), expected, rtol=1e-4, atol=1e-5)


def test_loading_weights_restarts_the_average(make, settings, base):
    settings.learner.weight_average = 0.9
    learner = make()
    learner.step()
    state = load_checkpoint(base)[0].state_dict()
    learner.load_weights(state)
    assert _equal(learner.averaged.state_dict(), state)
    assert _equal(learner.network.state_dict(), state)


def _flat(state):
    return torch.cat([v.flatten() for v in state.values() if v.is_floating_point()])
