"""Labels of images that are shown to one set of weights after another."""

import copy

import numpy as np
import pytest
import torch

from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.learning.labeller import Labeller
from s4net_core.learning.serving_weights import ServingWeights
from s4net_core.models.build import freeze_encoder
from s4net_core.models.predict import predict_labels, working_images

CPU = torch.device("cpu")


@pytest.fixture
def network(sure_network):
    """Its decoder alone learns."""
    freeze_encoder(sure_network)
    return sure_network


@pytest.fixture
def colors(frames):
    """Five images, of which one has another size."""
    colors = {i: frame.color for i, frame in enumerate(frames[:5])}
    return colors | {3: np.ascontiguousarray(np.repeat(colors[3], 2, axis=1))}


def counted(network, monkeypatch):
    counts, encode = [], network.encode
    monkeypatch.setattr(network, "encode", lambda images: counts.append(len(images)) or encode(images))
    return counts


def test_they_are_those_of_the_network_and_its_encoder_sees_each_image_once(settings, network, colors, monkeypatch):
    labeller, counts = Labeller(FeatureCache(network, 100), settings, CPU), counted(network, monkeypatch)
    learned = copy.deepcopy(network).train()
    with torch.no_grad():
        learned.body.segmentation_head[0].weight.add_(torch.randn(37, 1, 1, 1))
    for one in (network, learned):
        expected = predict_labels(one, list(colors.values()), settings, CPU)
        found = labeller.labels(one, colors)
        assert [label.shape for label in found] == [color.shape[:2] for color in colors.values()]
        assert all(label.dtype == np.uint8 for label in found)
        equal = np.concatenate([(a == b).ravel() for a, b in zip(found, expected, strict=True)])
        assert equal.mean() > 0.995  # features are kept in half precision
    assert len(np.unique(np.concatenate([label.ravel() for label in expected]))) > 5
    assert sum(counts) == len(colors)
    assert learned.training


def test_at_the_working_size_no_logits_of_whole_images_are_made(settings, network, frames, monkeypatch):
    colors = {i: frame.color for i, frame in enumerate(frames[:5])}
    size = (settings.model.height, settings.model.width)
    assert {color.shape[:2] for color in colors.values()} == {size}
    features = FeatureCache(network, 100)
    with torch.no_grad():
        maps = features.features(list(colors), working_images(list(colors.values()), settings, CPU))
        whole = network.eval().decode(maps, size).logits.argmax(dim=1) + 1
    assert len(whole.unique()) > 5
    monkeypatch.setattr(network, "decode", None)
    found = np.stack(Labeller(features, settings, CPU).labels(network, colors))
    assert (found == whole.numpy()).mean() > 0.9999  # rounding decides where two classes are equally probable


def test_a_network_with_another_encoder_sees_the_images_itself(settings, network, colors):
    labeller = Labeller(FeatureCache(network, 100), settings, CPU)
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.body.encoder.parameters()).mul_(1.5)
    expected = predict_labels(other, list(colors.values()), settings, CPU)
    assert not np.array_equal(expected[0], labeller.labels(network, colors)[0])
    for label, right in zip(labeller.labels(other, colors), expected, strict=True):
        assert np.array_equal(label, right)


def test_where_logits_are_no_numbers_there_is_no_label(settings, network, colors):
    with torch.no_grad():
        network.body.segmentation_head[0].bias.fill_(torch.nan)
    for label in Labeller(FeatureCache(network, 100), settings, CPU).labels(network, colors):
        assert not label.any()


def test_what_weights_have_said_is_forgotten_with_them(network):
    serving, said = ServingWeights(network), {4: np.ones((2, 3), np.uint8)}
    serving.take(network.state_dict(), said)
    assert serving.labels == said
    serving.take(network.state_dict())
    assert serving.labels == {}
    serving.take(network.state_dict(), said)
    serving.take_base()
    assert serving.labels == {}
