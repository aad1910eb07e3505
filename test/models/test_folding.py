"""Batch norms as parts of convolutions: the same outputs, whatever the architecture."""

import pytest
import torch
from torch import nn

from s4net_core.config import ModelSettings
from s4net_core.models.build import batch_norms, build_network
from s4net_core.models.decoders import ARCHITECTURES
from s4net_core.models.folding import Folding, folded
from s4net_core.models.predict import all_outputs


def trained(model):
    """A network whose batch norms do something, as after training."""
    torch.manual_seed(0)
    network = build_network(model)
    for norm in batch_norms(network):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    return network


def assert_equal_but_for_rounding(values, expected):
    """Differences count as shares of the largest value, because they come from sums of such values."""
    assert (values - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "tu-test_efficientnet"])
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"dpt"}))
def test_outputs_are_those_of_the_network(architecture, encoder):
    model = ModelSettings(architecture=architecture, encoder=encoder, encoder_weights="none", depth_decoder=True)
    network = trained(model)
    images = torch.rand(2, 3, 70, 90)
    copy = folded(network)
    outputs, expected = all_outputs(copy, images), all_outputs(network, images)
    assert_equal_but_for_rounding(outputs.logits, expected.logits)
    assert_equal_but_for_rounding(outputs.depth, expected.depth)
    assert not copy.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    left = len(batch_norms(copy))
    assert left < len(batch_norms(network)) / 2
    if architecture == "deeplabv3plus":
        assert left == 0


def test_the_network_stays_as_it_was():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_convolution_that_others_read_before_its_batch_norm_keeps_the_network_whole():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))

    class ReadTwice(nn.Module):
        def __init__(self, inner, channels):
            super().__init__()
            self.inner, self.convolution, self.norm = inner, nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
            nn.init.normal_(self.norm.bias)

        def forward(self, values):
            seen = self.convolution(self.inner(values))
            return seen + self.norm(seen)

    network.body.segmentation_head[0] = ReadTwice(network.body.segmentation_head[0], network.num_classes)
    images = torch.rand(1, 3, 64, 64)
    copy = folded(network)
    assert len(batch_norms(copy)) == len(batch_norms(network))
    torch.testing.assert_close(all_outputs(copy, images).logits, all_outputs(network, images).logits)


def test_a_network_that_takes_images_of_one_size_is_folded_as_well():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=96, height=64))

    def refuses_others(encoder, inputs):
        assert inputs[0].shape[2:] == (64, 96)

    network.body.encoder.register_forward_pre_hook(refuses_others)
    assert not batch_norms(folded(network))


def test_memory_is_shared_but_for_convolutions_that_were_folded():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))
    copy = folded(network)
    last, first = "body.segmentation_head.0.weight", "body.encoder.model.conv1.0.weight"
    own, other = dict(network.named_parameters()), dict(copy.named_parameters())
    assert other[last].data_ptr() == own[last].data_ptr()
    assert other[first].data_ptr() != own[first].data_ptr()


def test_a_layer_that_is_used_twice_keeps_its_batch_norm():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))
    channels = network.num_classes
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.running_mean)
    shared = nn.Sequential(nn.Conv2d(channels, channels, 1), norm)
    network.body.segmentation_head[0] = nn.Sequential(network.body.segmentation_head[0], shared, nn.ReLU(), shared)
    images = torch.rand(1, 3, 64, 64)
    copy = folded(network)
    assert len(batch_norms(copy)) == 1
    assert_equal_but_for_rounding(all_outputs(copy, images).logits, all_outputs(network, images).logits)


def test_other_weights_in_the_same_memory_are_folded_anew():
    model = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", depth_decoder=True)
    network, other = trained(model), trained(model)
    for value in other.state_dict().values():
        if value.is_floating_point():
            value.mul_(1.5)
    images = torch.rand(1, 3, 64, 64)
    folding = Folding(network)
    before = all_outputs(folding.network, images)
    network.load_state_dict(other.state_dict())
    folding.renew()
    outputs, expected = all_outputs(folding.network, images), all_outputs(other, images)
    assert_equal_but_for_rounding(outputs.logits, expected.logits)
    assert_equal_but_for_rounding(outputs.depth, expected.depth)
    assert not any(parameter.requires_grad for parameter in folding.network.parameters())
    assert (before.logits - expected.logits).abs().max() > 0.1 * expected.logits.abs().max()


class Remembers(nn.Module):
    """As attention of timm's: what follows from its weights is kept while it predicts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.kept = None

    def forward(self, values):
        if self.kept is None:
            self.kept = 2 * self.weight
        return self.kept * values

    def train(self, mode=True):
        if mode:
            self.kept = None
        return super().train(mode)


def test_layers_keep_nothing_of_the_weights_before():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))
    network.body.segmentation_head[0] = nn.Sequential(network.body.segmentation_head[0], Remembers())
    remembers = network.body.segmentation_head[0][1]
    images = torch.rand(1, 3, 64, 64)
    folding = Folding(network)
    assert folding.network.body.segmentation_head[0][1].kept is None
    before = all_outputs(folding.network, images).logits
    with torch.no_grad():
        remembers.weight.fill_(3.0)
    folding.renew()
    assert_equal_but_for_rounding(all_outputs(folding.network, images).logits, 3 * before)
    assert not any(module.training for module in folding.network.modules())


def test_a_batch_norm_without_statistics_stays():
    network = trained(ModelSettings(encoder="tu-test_resnet", encoder_weights="none"))
    norm = nn.BatchNorm2d(network.num_classes, track_running_stats=False)
    network.body.segmentation_head[0] = nn.Sequential(network.body.segmentation_head[0], norm)
    copy = folded(network)
    assert len(batch_norms(copy)) == 1
    images = torch.rand(1, 3, 64, 64)
    assert_equal_but_for_rounding(all_outputs(copy, images).logits, all_outputs(network, images).logits)
