"""Without a source set: the base model's own predictions keep the network from forgetting."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from s4net_core.learning.learner import Learner
from s4net_core.learning.source_free import SourceFree
from s4net_core.learning.source_loss import distillation_loss
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import median_frequency_weights
from s4net_core.models.build import Outputs
from s4net_core.models.checkpoint import load_checkpoint

CPU = torch.device("cpu")
CLASSES = 37


@pytest.fixture
def make(settings, base, keyframes):
    def make_learner():
        network, _ = load_checkpoint(base)
        teacher = Teacher(copy.deepcopy(network), settings, CPU)
        source = SourceFree(copy.deepcopy(network), teacher, settings.learner)
        return Learner(network, source, torch.ones(CLASSES), teacher, keyframes, settings, CPU)

    return make_learner


def test_the_distillation_loss_is_the_cross_entropy_against_the_base_models_probabilities(settings):
    settings.learner.distillation = 2.0
    generator = torch.Generator().manual_seed(0)
    logits, auxiliary = torch.randn(2, 2, CLASSES, 3, 4, generator=generator)
    probabilities = torch.randn(2, CLASSES, 3, 4, generator=generator).softmax(dim=1)
    loss = distillation_loss(Outputs(logits, auxiliary), probabilities, None, settings.learner)
    segmentation, of_auxiliary = (functional.cross_entropy(x, probabilities) for x in (logits, auxiliary))
    torch.testing.assert_close(loss.segmentation, segmentation)
    torch.testing.assert_close(loss.total, 2 * (segmentation + settings.learner.auxiliary_weight * of_auxiliary))
    assert loss.depth == 0


def test_depth_is_distilled_where_both_networks_predict_it(settings):
    logits, depth = torch.zeros(1, CLASSES, 2, 2), torch.full((1, 1, 2, 2), 3.0)
    loss = distillation_loss(Outputs(logits, None, depth), logits.softmax(dim=1), depth - 0.5, settings.learner)
    assert loss.depth == pytest.approx(0.5)
    assert loss.total == pytest.approx(loss.segmentation + 0.5)


def test_distillation_holds_the_network_near_its_base(make, settings):
    settings.learner.learning_rate = 0.01

    def distance(weight):
        settings.learner.distillation = weight
        learner = make()
        return [learner.step().loss_source for _ in range(6)][-1]

    assert distance(100.0) < 0.98 * distance(0.0)


def test_class_weights_follow_from_the_labels_of_all_views_each_counted_once(make, settings, monkeypatch):
    settings.learner.class_weight_power = 0.5
    learner = make()
    labels = [label for _, label in learner.targets()]
    assert len(labels) > settings.learner.target_batch
    expected = median_frequency_weights(labels, CLASSES) ** 0.5
    assert expected.unique().numel() > 2
    weights = []
    monkeypatch.setattr(
        "s4net_core.learning.learner.geometric_loss", lambda *args: weights.append(args[3]) or args[0].sum()
    )
    settings.learner.target_batch = 4  # so many views are counted at each step
    for _ in range(len(labels)):
        learner.step()
    assert not torch.equal(weights[0], expected)
    torch.testing.assert_close(weights[-1], expected)


def test_views_that_were_evicted_no_longer_count(make, settings, keyframes):
    settings.learner.target_batch = len(keyframes)  # all views are counted at the first step
    learner = make()
    learner.step()
    labels, gone = {view.id: label for view, label in learner.targets()}, keyframes.ids()[0]
    before = learner._geometric_weights
    keyframes._pairing.remove(gone)
    learner.step()
    left = [label for id, label in labels.items() if id != gone]
    expected = median_frequency_weights(left, CLASSES) ** settings.learner.class_weight_power
    torch.testing.assert_close(learner._geometric_weights, expected)
    assert not torch.equal(learner._geometric_weights, before)


def test_a_view_that_has_moved_is_counted_anew_and_a_restart_forgets_all(settings, base, keyframes):
    network, _ = load_checkpoint(base)
    source = SourceFree(network, Teacher(copy.deepcopy(network), settings, CPU), settings.learner)
    settings.learner.class_weight_power = 1.0
    view = keyframes.get(keyframes.ids()[0])
    moved = replace(view, revision=1)
    label, other = np.uint8([[1, 1, 1, 2]]), np.uint8([[1, 3, 3, 3]])
    source.count(view, label)
    assert (source.is_counted(view), source.is_counted(moved)) == (True, False)
    source.count(moved, other)
    torch.testing.assert_close(source.class_weights, median_frequency_weights([other], CLASSES))
    source.forget()
    assert not source.is_counted(moved)
    assert (source.class_weights == 1).all()


def test_what_serves_lies_between_the_base_model_and_what_was_learned(make, settings, base):
    settings.learner.base_share = 0.25
    learner = make()
    learner.step()
    start, learned, served = (n.state_dict() for n in (load_checkpoint(base)[0], learner.averaged, learner.result()))
    name = next(name for name in start if not torch.equal(start[name], learned[name]))
    torch.testing.assert_close(served[name], 0.25 * start[name] + 0.75 * learned[name])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_learning_goes_on_from_what_was_learned_and_not_from_what_served(make, settings, share):
    settings.learner.base_share = share
    learner = make()
    learner.step()
    learned, served = (copy.deepcopy(network.state_dict()) for network in (learner.averaged, learner.result()))
    learner.load_weights(served, learner.base_share)
    expected = served if share == 1 else learned  # a pure base model says nothing of what was learned
    for network, state in ((learner.averaged, expected), (learner.result(), served)):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-6)


def test_target_images_take_the_place_of_the_source_images(make, settings):
    settings.learner.source_batch, settings.learner.target_batch = 5, 2
    learner = make()
    assert len(learner._draw_targets().views) == 5
