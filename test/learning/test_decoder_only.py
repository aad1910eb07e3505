"""Learning with a constant encoder: the same steps as with the whole network, from feature maps that are kept."""

import copy

import numpy as np
import pytest
import torch

from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.feature_cache import FeatureCache
from s4net_core.learning.learner import Learner
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import build_network, freeze_encoder

WIDTH, HEIGHT = 64, 48
NETWORKS = [
    ("deeplabv3plus", "never", False, {2, 5}),
    ("deeplabv3plus", "always", True, {2, 4, 5}),
    ("pspnet", "never", False, {5}),
    ("pspnet", "auto", True, {4, 5}),
]
"""Architecture, auxiliary branch, depth decoder, and the encoder's levels that all of these together read."""
CPU = torch.device("cpu")


def new_network(settings, architecture="deeplabv3plus", auxiliary="auto", depth=False, seed=3):
    """A network whose logits depend on the image: those of new weights hardly do."""
    settings.model.architecture, settings.model.auxiliary, settings.model.depth_decoder = architecture, auxiliary, depth
    torch.manual_seed(seed)
    network = build_network(settings.model)
    with torch.no_grad():
        network.body.segmentation_head[0].weight.mul_(20)
    return network


@pytest.fixture
def make(settings, source, frames):
    """`make(*network)`: a learner whose every batch holds the same two source images."""
    settings.learner.trained = "decoder"

    def make_learner(*network):
        keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
        for frame in frames:
            keyframes.offer(frame)
        rng = np.random.default_rng(0)
        batches = SourceBatches(source, 2, WIDTH, HEIGHT, False, rng, cache_megabytes=1, indices=[0, 1])
        learned = new_network(settings, *network)
        teacher = Teacher(copy.deepcopy(learned), settings, CPU)
        return Learner(learned, batches, torch.ones(37), teacher, keyframes, settings, CPU)

    return make_learner


@pytest.fixture
def images():
    return torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def encoded(network, monkeypatch):
    """A list that grows by the number of images whenever the network encodes some."""
    counts, encode = [], network.encode

    def counted(images):
        counts.append(len(images))
        return encode(images)

    monkeypatch.setattr(network, "encode", counted)
    return counts


def gradient(network):
    """Gradient of all weights that learn, as one vector, and whether any other has one."""
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.requires_grad])


@pytest.mark.parametrize(("architecture", "auxiliary", "depth", "levels"), NETWORKS)
def test_a_step_from_kept_features_is_that_of_the_whole_network(
    make, settings, monkeypatch, architecture, auxiliary, depth, levels
):
    """Dropout included: it is the same whatever is kept. Two steps: the second reads the source from the cache."""
    settings.learner.learning_rate = 1e-12
    kept, whole = make(architecture, auxiliary, depth), make(architecture, auxiliary, depth)
    whole._features = None
    counts = encoded(kept.network, monkeypatch)
    for _ in range(2):
        one, other = kept.step(), whole.step()
        for name in ("loss", "loss_source", "loss_geometric", "loss_auxiliary", "loss_depth_geometric"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-3), name
        assert one.coverage == other.coverage > 0
        expected = gradient(whole.network)
        assert (gradient(kept.network) - expected).norm() < 0.01 * expected.norm()
    assert counts[0] == 4
    assert sum(counts[1:]) <= 2  # targets that are new


def test_the_encoder_is_left_as_it_is_and_the_decoder_learns(make, settings):
    settings.learner.batch_norm, settings.learner.weight_average = "live", 0.9
    learner = make()
    before = copy.deepcopy(learner.network.state_dict())
    for _ in range(3):
        learner.step()
    for network in (learner.network, learner.averaged):
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert not {name for name in changed if ".encoder." in name}
        learning = {name for name in before if name.endswith((".weight", "running_mean")) and ".encoder." not in name}
        assert len(learning) > 10
        assert learning <= changed


def test_features_are_not_those_of_an_encoder_that_was_there_before(make, settings):
    """A roll-back may lead to a version of which the whole network has learnt."""
    learner = make()
    learner.step()
    learner.load_weights(new_network(settings, seed=4).state_dict())
    source = learner._batches.next()
    kept = learner._outputs(source, None).logits
    with torch.random.fork_rng():
        torch.manual_seed((settings.seed << 32) + learner.steps)
        whole = learner.network.outputs(source.images).logits
    torch.testing.assert_close(kept, whole, rtol=1e-2, atol=0.02 * float(whole.detach().std()))


def test_weights_with_the_same_encoder_leave_the_features_alone(make, monkeypatch):
    """A refusal leads back to weights of which the decoder alone has learnt."""
    learner = make()
    before = copy.deepcopy(learner.network.state_dict())
    learner.step()
    learner.load_weights(before)
    monkeypatch.setattr(learner.network, "encode", pytest.fail)
    learner._outputs(learner._batches.next(), None)


def test_equal_keys_are_encoded_once(settings, images, monkeypatch):
    network = new_network(settings).eval()
    cache = FeatureCache(network, 100)
    counts = encoded(network, monkeypatch)
    cache.features(["a", "b", "a"], images[[0, 1, 0]])
    assert counts == [2]
    again = cache.features(["b", ("b", True), "a"], images[[1, 2, 0]])
    assert counts == [2, 1]
    order = network.body.encoder(network._prepare(images[[1, 2, 0]]))
    for level in (2, 5):
        torch.testing.assert_close(again[level], order[level], rtol=1e-3, atol=1e-3)
        assert again[level].dtype == torch.float32


def test_memory_stays_within_its_bound_and_the_least_recently_used_go_first(settings, images, monkeypatch):
    network = new_network(settings).eval()
    cache = FeatureCache(network, 1)
    cache.features([0], images[:1])
    each = cache.nbytes
    cache._cache.limit = 3 * each + each // 2
    counts = encoded(network, monkeypatch)
    for key in (1, 2, 0, 3, 0):  # the fourth image pushes out 1, because 0 has been used since
        cache.features([key], images[:1])
        held = [level.untyped_storage().nbytes() for maps in cache._cache._values.values() for level in maps]
        assert sum(held) == cache.nbytes <= cache._cache.limit
    assert counts == [1, 1, 1]
    assert list(cache._cache._values) == [2, 3, 0]
    cache._cache.limit = 0
    assert len(cache.features([7, 8], images[:2])[5]) == 2
    assert (cache.nbytes, len(cache._cache._values)) == (0, 0)


def test_a_batch_that_is_larger_than_the_memory_leaves_nothing_of_itself_behind(settings, images):
    cache = FeatureCache(new_network(settings).eval(), 100)
    cache.features([0, 1, 2], images)
    del cache._cache._values[0]
    for maps in cache._cache._values.values():
        assert all(level.untyped_storage().nbytes() == level.nbytes for level in maps)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("architecture", "auxiliary", "depth", "levels"), NETWORKS)
def test_only_levels_that_a_branch_reads_are_kept(settings, images, architecture, auxiliary, depth, levels, live):
    network = new_network(settings, architecture, auxiliary, depth)
    freeze_encoder(network)
    network.train(live)
    if not live:  # without training the auxiliary branch is not read
        levels = levels - {4}
    before = copy.deepcopy(network.state_dict())
    cache = FeatureCache(network, 100)
    features = cache.features([0, 1, 2], images)
    assert {i for i, level in enumerate(features) if level.numel()} == levels
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.manual_seed(1)
    kept = network.decode(features, (HEIGHT, WIDTH))
    torch.manual_seed(1)
    whole = network.outputs(images)
    for one, other in ((kept.logits, whole.logits), (kept.auxiliary, whole.auxiliary), (kept.depth, whole.depth)):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).norm() < 0.005 * other.norm()
    assert (whole.auxiliary is not None, whole.depth is not None) == (4 in levels, depth)
