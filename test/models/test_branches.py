"""Auxiliary branch and depth decoder: which networks have them, what they share, and when they run."""

import copy

import pytest
import torch
from torch import nn

from s4net_core.config import ModelSettings
from s4net_core.models.build import batch_norms, build_network, freeze_batch_norm
from s4net_core.models.checkpoint import load_checkpoint, save_checkpoint

ENCODERS = ("resnet18", "tu-tf_efficientnet_lite0", "tu-mobilenetv3_small_050")


def new_network(architecture="deeplabv3plus", encoder="tu-mobilenetv3_small_050", **more):
    torch.manual_seed(0)
    return build_network(ModelSettings(architecture=architecture, encoder=encoder, encoder_weights="none", **more))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("architecture", ["deeplabv3plus", "pspnet"])
def test_every_network_can_have_both_branches_and_takes_one_image_in_training(architecture, encoder):
    network = new_network(architecture, encoder, auxiliary="always", depth_decoder=True).train()
    for height, width in ((37, 61), (5, 3)):
        outputs = network.outputs(torch.rand(1, 3, height, width))
        assert outputs.logits.shape == outputs.auxiliary.shape == (1, 37, height, width)
        assert outputs.depth.shape == (1, 1, height, width)
    (outputs.logits.mean() + outputs.auxiliary.mean() + outputs.depth.mean()).backward()
    for branch in (network.auxiliary_head, network.depth_branch):
        assert all(torch.isfinite(p.grad).all() for p in branch.parameters())


@pytest.mark.parametrize(
    ("architecture", "auxiliary", "has_it"),
    [
        ("pspnet", "auto", True),
        ("pspnet", "never", False),
        ("deeplabv3plus", "auto", False),
        ("deeplabv3plus", "always", True),
    ],
)
def test_pspnet_has_an_auxiliary_branch_unless_told_otherwise(architecture, auxiliary, has_it):
    network = new_network(architecture, auxiliary=auxiliary)
    assert (network.auxiliary_head is not None) == has_it
    assert (network.outputs(torch.rand(1, 3, 48, 64)).auxiliary is not None) == has_it


def test_the_auxiliary_branch_looks_at_stage_4_of_the_encoder():
    network = new_network("pspnet", "resnet18")
    assert network.auxiliary_head[0].in_channels == 256  # layer3 of ResNet-18; layer4 has 512
    images = torch.rand(2, 3, 48, 64)
    network.outputs(images).auxiliary.mean().backward()
    assert network.body.encoder.layer3[0].conv1.weight.grad.abs().sum() > 0
    assert network.body.encoder.layer4[0].conv1.weight.grad is None


def test_outside_training_there_is_no_auxiliary_prediction():
    network = new_network("pspnet", depth_decoder=True).eval()
    outputs = network.outputs(torch.rand(1, 3, 48, 64))
    assert outputs.auxiliary is None
    assert outputs.depth is not None


def test_the_encoder_runs_once_and_the_logits_are_those_of_forward(monkeypatch):
    network = new_network("pspnet", depth_decoder=True).eval()
    images = torch.rand(2, 3, 40, 60)
    expected = network(images)
    runs = []
    network.body.encoder.register_forward_hook(lambda *args: runs.append(1))
    torch.testing.assert_close(network.outputs(images).logits, expected)
    assert len(runs) == 1


def test_forward_runs_none_of_the_branches():
    network = new_network("pspnet", depth_decoder=True).train()

    def fail(*args):
        raise AssertionError("ran")

    network.depth_branch.register_forward_pre_hook(fail)
    network.auxiliary_head.register_forward_pre_hook(fail)
    network(torch.rand(1, 3, 48, 64))


def test_a_seed_gives_the_same_segmentation_with_and_without_branches():
    plain, full = new_network(), new_network(auxiliary="always", depth_decoder=True)
    for key, value in plain.state_dict().items():
        assert torch.equal(full.state_dict()[key], value), key


def test_the_depth_decoder_has_the_same_architecture_and_no_parameter_of_the_segmentations_decoder():
    network = new_network(depth_decoder=True)
    ours, theirs = network.depth_branch.decoder, network.body.decoder
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    assert not {id(p) for p in ours.parameters()} & {id(p) for p in network.body.parameters()}
    convolutions = [(a, b) for a, b in zip(ours.modules(), theirs.modules(), strict=True) if isinstance(a, nn.Conv2d)]
    assert all(not torch.equal(a.weight, b.weight) for a, b in convolutions), "its weights are its own from the start"


def test_predicted_depth_starts_near_two_metres_and_stays_positive_and_finite():
    network = new_network(depth_decoder=True).train()
    depth = network.outputs(torch.rand(2, 3, 48, 64)).depth
    assert depth.dtype == torch.float32
    assert ((depth > 1.5) & (depth < 2.5)).all()
    for extreme in (-1e4, 1e4):
        nn.init.constant_(network.depth_branch.head[0].bias, extreme)
        depth = network.outputs(torch.rand(1, 3, 48, 64)).depth
        assert ((depth > 0.05) & (depth < 101)).all()


def test_the_depth_decoder_learns_a_depth():
    network = new_network(depth_decoder=True).eval()
    images, truth = torch.rand(1, 3, 48, 64), torch.linspace(1, 4, 64).expand(1, 1, 48, 64)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    errors = []
    for _ in range(25):
        error = (network.outputs(images).depth - truth).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.6 * errors[0]


def test_frozen_batch_norm_covers_the_branches():
    network = new_network("pspnet", depth_decoder=True)
    freeze_batch_norm(network)
    before = copy.deepcopy(network.state_dict())
    network.train().outputs(torch.rand(2, 3, 48, 64))
    assert set(batch_norms(network.depth_branch)) <= set(batch_norms(network))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_outputs_are_split_between_source_and_target():
    network = new_network("pspnet", depth_decoder=True).train()
    outputs = network.outputs(torch.rand(3, 3, 48, 64))
    first, rest = outputs.split(1)
    for name in ("logits", "auxiliary", "depth"):
        whole = getattr(outputs, name)
        assert torch.equal(torch.cat([getattr(first, name), getattr(rest, name)]), whole)
        assert len(getattr(first, name)) == 1
    assert new_network().train().outputs(torch.rand(2, 3, 48, 64)).split(1)[1].depth is None


def test_a_weights_file_holds_the_branches(tmp_path):
    network = new_network("pspnet", depth_decoder=True).eval()
    save_checkpoint(tmp_path / "a.safetensors", network)
    again, info = load_checkpoint(tmp_path / "a.safetensors")
    assert (info.model.auxiliary, info.model.depth_decoder) == ("always", True)
    images = torch.rand(1, 3, 48, 64)
    torch.testing.assert_close(again.outputs(images).depth, network.outputs(images).depth)
    torch.testing.assert_close(again.auxiliary_head[0].weight, network.auxiliary_head[0].weight)
