"""The base model when nobody names one: fetched once, found again without a network, and what is said without it."""

import threading

import pytest
import torch

from s4net_core.config import ModelSettings, from_values
from s4net_core.errors import BaseModelMissing, CheckpointError, S4NetError
from s4net_core.labels import ADE20K_NAMES
from s4net_core.learning.learner import Learner
from s4net_core.models import base_model_file as module
from s4net_core.models import build
from s4net_core.models.base_model_file import AUTO, DEMO, PublicModel, base_model_file, public_model_file
from s4net_core.models.build import build_network, freeze_encoder
from s4net_core.models.checkpoint import file_sha256, load_checkpoint, read_info, save_checkpoint

transformers = pytest.importorskip("transformers")

MODEL = ModelSettings(width=96, height=64)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A tiny UPerNet with random weights, in the form in which the hub has the public model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub") / "upernet-convnext-tiny"
    backbone = transformers.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 12, 16, 24], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        num_labels=len(ADE20K_NAMES),
        id2label=dict(enumerate(ADE20K_NAMES)),
        label2id={name: index for index, name in enumerate(ADE20K_NAMES)},
        initializer_range=0.4,
    )
    transformers.UperNetForSemanticSegmentation(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def public(hub, monkeypatch):
    monkeypatch.setattr(module, "PUBLIC_MODEL", PublicModel(str(hub), "MIT", "random weights"))


def test_it_is_fetched_once_and_found_again_without_a_network(public, tmp_path, monkeypatch, caplog):
    file = base_model_file(AUTO, MODEL, tmp_path / "models")
    assert file == public_model_file(tmp_path / "models")
    model = read_info(file).model
    assert (model.architecture, model.size) == ("transformers", (480, 360))  # not the size of this start
    notice = file.with_suffix(".txt").read_text()
    for word in ("upernet-convnext-tiny", "MIT", str(file.stat().st_size), file_sha256(file)):
        assert word in notice
        assert word in caplog.text
    monkeypatch.setattr(build, "build_network", pytest.fail)
    assert base_model_file(AUTO, MODEL, tmp_path / "models") == file


def test_two_nodes_that_start_together_fetch_it_once(public, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(build, "build_network", lambda model: built.append(model) or build_network(model))
    nodes = [threading.Thread(target=base_model_file, args=(AUTO, MODEL, tmp_path)) for _ in range(2)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
    assert len(built) == 1
    assert load_checkpoint(public_model_file(tmp_path))


def test_what_a_killed_process_left_behind_is_removed(public, tmp_path):
    left = tmp_path / f".{public_model_file(tmp_path).name}.x7.tmp"
    left.write_bytes(b"half a file")
    base_model_file(AUTO, MODEL, tmp_path)
    assert not left.exists()


def test_without_a_network_it_says_what_to_run_and_where_to_copy_the_file(tmp_path, monkeypatch):
    def unknown(host, port):
        raise OSError("Name or service not known")

    monkeypatch.setattr(module, "PUBLIC_MODEL", PublicModel("nobody/net", "MIT", "missing"))
    monkeypatch.setattr(module, "getproxies", dict)
    monkeypatch.setattr(module.socket, "getaddrinfo", unknown)
    with pytest.raises(BaseModelMissing) as caught:
        base_model_file(AUTO, MODEL, tmp_path / "models")
    text = str(caught.value)
    assert "`s4net import-model nobody/net net.safetensors`" in text
    assert f"copy the file to {tmp_path / 'models'}" in text
    assert "checkpoint:=FILE (of a command: --checkpoint FILE), where FILE may be 'demo'" in text
    assert caught.value.file == tmp_path / "models" / "net.safetensors"
    assert "Name or service not known" in text
    assert "\n" not in text


def test_without_the_library_it_says_the_same_and_why(public, tmp_path, monkeypatch):
    def without_it(model):
        raise S4NetError("this network needs the library transformers") from ImportError("no transformers")

    monkeypatch.setattr(build, "build_network", without_it)
    with pytest.raises(BaseModelMissing, match=r"no transformers.*`s4net import-model"):
        base_model_file(AUTO, MODEL, tmp_path)


def test_a_file_is_taken_as_it_is_and_demo_means_the_one_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base_model_file("~/w.safetensors", MODEL) == tmp_path / "w.safetensors"
    assert read_info(base_model_file(DEMO, MODEL)).model.architecture == "deeplabv3plus"
    with pytest.raises(CheckpointError, match="checkpoint is empty"):
        base_model_file("", MODEL)


def test_its_licence_is_one_that_lets_everybody_use_it():
    assert module.PUBLIC_MODEL.licence in ("MIT", "Apache-2.0", "BSD-3-Clause")


# Its head learns alone, as config/adapt.yaml asks for.


@pytest.fixture
def network(hub):
    model = MODEL.model_copy(update={"architecture": "transformers", "encoder": str(hub)})
    return build_network(model).eval()


def test_its_answers_are_those_of_the_library(hub, network):
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(hub).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        logits = theirs(pixel_values=(images - network.mean) / network.std).logits
        expected = network.body._classes(logits)  # merged after scaling, ours before
        found = network(images)
    assert torch.corrcoef(torch.stack([expected.flatten(), found.flatten()]))[0, 1] > 0.98


def test_encoder_and_head_in_two_parts_give_what_the_whole_gives(network):
    images = torch.rand(2, 3, 50, 70)  # padded to a multiple of 32
    with torch.no_grad():
        parts = network.decode(network.encode(images), (50, 70)).logits
        torch.testing.assert_close(parts, network(images))


def test_a_frozen_encoder_leaves_the_head_to_learn(network):
    freeze_encoder(network)
    network.train()
    assert not network.body.model.backbone.training
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning
    assert not [name for name in learning if "backbone" in name]
    assert any("decode_head" in name for name in learning)


def test_the_learner_takes_it_with_the_settings_of_a_robot(network):
    settings = from_values({"learner.trained": "decoder"})
    Learner(network, None, torch.ones(37), None, None, settings, torch.device("cpu"))


def test_the_file_is_read_without_the_hub(network, tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", network)
    again, _ = load_checkpoint(tmp_path / "w.safetensors")
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(again(images), network(images))
