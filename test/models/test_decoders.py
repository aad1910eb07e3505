"""Every decoder of segmentation-models-pytorch: it is built, learns, is saved, loaded, divided and exported."""

from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from s4net_core.config import ModelSettings
from s4net_core.config.groups import Architecture
from s4net_core.errors import SettingsError
from s4net_core.losses import supervised_loss
from s4net_core.models.build import build_network, freeze_encoder
from s4net_core.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from s4net_core.models.decoders import ARCHITECTURES
from s4net_core.models.onnx_model import OnnxModel, compare_with_torch, export_onnx

HEIGHT, WIDTH = 48, 80
CLASSES = 37


def settings_for(architecture, **changes):
    encoder = "tu-test_vit" if architecture == "dpt" else "tu-test_resnet"
    size = {"width": WIDTH, "height": HEIGHT}
    return ModelSettings(architecture=architecture, encoder=encoder, encoder_weights="none", **size, **changes)


def new_network(architecture, **changes):
    torch.manual_seed(0)
    return build_network(settings_for(architecture, **changes))


def test_the_setting_offers_what_the_library_has():
    assert set(get_args(Architecture)) == {*ARCHITECTURES, "transformers"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_learns_from_one_image_and_is_the_same_after_saving(architecture, tmp_path):
    network = new_network(architecture, depth_decoder=True).train()
    outputs = network.outputs(torch.rand(1, 3, HEIGHT, WIDTH))
    assert outputs.logits.shape == (1, CLASSES, HEIGHT, WIDTH)
    assert outputs.depth.shape == (1, 1, HEIGHT, WIDTH)
    loss = supervised_loss(outputs.logits, torch.randint(1, CLASSES + 1, (1, HEIGHT, WIDTH)), torch.ones(CLASSES))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    (loss + outputs.depth.mean()).backward()
    for part in (network.body.encoder, network.body.decoder, network.body.segmentation_head, network.depth_branch):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    optimiser.step()
    save_checkpoint(tmp_path / "w", network.eval())
    again, _ = load_checkpoint(tmp_path / "w")
    for height, width in ((HEIGHT, WIDTH), (20, 33)):  # any size, also below what the decoder needs
        images = torch.rand(2, 3, height, width)
        with torch.no_grad():
            found = again(images)
            assert found.shape == (2, CLASSES, height, width)
            assert torch.isfinite(found).all()
            torch.testing.assert_close(found, network(images))


def test_taps_that_lie_outside_of_a_small_map_are_left_out_of_predictions(monkeypatch):
    network = new_network("deeplabv3plus").eval()
    dilated = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.dilation[0] >= 12]
    assert [module.dilation for module in dilated] == [(12, 12), (24, 24), (36, 36)]
    computed, conv = [], nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, map: computed.append(self) or conv(self, map))
    for shape, taps_inside in (((8, 12), 0), ((12, 12), 0), ((3, 13), 1), ((25, 13), 2), ((40, 50), 3)):
        for module in dilated:
            map = torch.randn(2, module.in_channels, *shape)
            expected = functional.conv2d(
                map, module.weight, padding=module.padding, dilation=module.dilation, groups=len(map[0])
            )
            with torch.no_grad():
                assert torch.equal(module(map), expected)
        assert len(computed) == taps_inside
        computed.clear()
    dilated[0].train()(torch.randn(2, dilated[0].in_channels, 8, 12))
    assert computed == [dilated[0]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_decoder_alone_learns_on_features(architecture):
    network = new_network(architecture).train()
    freeze_encoder(network)
    network.eval()
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        features = network.encode(images)
        torch.testing.assert_close(network.decode(features, (HEIGHT, WIDTH)).logits, network(images))
    network.train().decode(features, (HEIGHT, WIDTH)).logits.square().mean().backward()
    assert all(p.grad is None for p in network.body.encoder.parameters())
    assert any(p.grad is not None for p in network.body.decoder.parameters())


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "dpt"])
def test_it_can_have_an_auxiliary_branch(architecture):
    outputs = new_network(architecture, auxiliary="always").train().outputs(torch.rand(1, 3, HEIGHT, WIDTH))
    assert outputs.auxiliary.shape == outputs.logits.shape == (1, CLASSES, HEIGHT, WIDTH)


def test_dpt_has_no_auxiliary_branch():
    with pytest.raises(SettingsError, match=r"dpt has no auxiliary branch: set it to auto"):
        new_network("dpt", auxiliary="always")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_exported_to_onnx(architecture):
    pytest.importorskip("onnxscript")
    network = new_network(architecture).eval()
    graph = export_onnx(network, CheckpointInfo(model=network.settings), WIDTH, HEIGHT)
    compare_with_torch(OnnxModel(graph), network, images=1).check()


@pytest.mark.parametrize(
    ("architecture", "encoder", "remedy"),
    [
        ("dpt", "resnet18", "vision transformer of timm"),
        ("dpt", "tu-test_resnet", "vision transformer of timm"),
        ("unetplusplus", "mit_b0", "another encoder, e.g. resnet50"),
    ],
)
def test_encoders_that_do_not_fit_are_refused_with_some_that_do(architecture, encoder, remedy):
    model = ModelSettings(architecture=architecture, encoder=encoder, encoder_weights="none")
    with pytest.raises(SettingsError, match=rf"{architecture} cannot be built on encoder '{encoder}' .*{remedy}"):
        build_network(model)


def test_an_architecture_that_the_installed_library_lacks_is_named(monkeypatch):
    monkeypatch.delitem(ARCHITECTURES, "dpt")
    with pytest.raises(SettingsError, match=r"'dpt', which segmentation-models-pytorch .* lacks: use one of unet,"):
        new_network("dpt")
