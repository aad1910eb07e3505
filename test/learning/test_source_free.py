"""Without a source set: the base model's own predictions keep the network from forgetting."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from s4net_core.keyframes import KeyframeBuffer
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
def keyframes(settings, frames):
    buffer = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames:
        buffer.offer(frame)
    return buffer


@pytest.fixture
def make(settings, base, keyframes):
    def make_learner():
        network, _ = load_checkpoint(base)
        teacher = Teacher(copy.deepcopy(network), settings, CPU)
        source = SourceFree(teacher, CLASSES, settings.learner)
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


def test_class_weights_follow_from_each_views_labels_once(make, settings, keyframes):
    settings.learner.class_weight_power = 0.5
    source = make()._source_free
    views = list(keyframes.views(keyframes.ids()[:2]).values())
    labels = np.ones((2, 4, 4), np.int64)
    labels[0, 0], labels[1, :2, 0] = 2, 0
    expected = median_frequency_weights(labels.astype(np.uint8), CLASSES) ** 0.5
    for _ in range(2):
        torch.testing.assert_close(source.class_weights(views, torch.from_numpy(labels)), expected)


def test_target_images_take_the_place_of_the_source_images(make, settings):
    settings.learner.source_batch, settings.learner.target_batch = 5, 2
    learner = make()
    assert len(learner._draw_targets().views) == 5
