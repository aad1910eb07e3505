"""Networks of transformers as base models: right classes, right normalisation, and nothing but the file needed."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from own_classes import five_classes
from torch.nn import functional as F

from s4net_core.config import ModelSettings, from_values
from s4net_core.errors import CheckpointError, S4NetError, SettingsError
from s4net_core.labels import ADE20K_NAMES, ADE20K_TO_SUNRGBD37, SUNRGBD37
from s4net_core.learning.learner import Learner
from s4net_core.losses import supervised_loss
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, load_checkpoint, load_weights, read_info, save_checkpoint
from s4net_core.models.onnx_model import OnnxModel, compare_with_torch, export_onnx
from s4net_core.models.predict import to_tensor
from s4net_core.models.transformers_body import TransformersBody, class_ids, fetch_body, native_space

transformers = pytest.importorskip("transformers")

WIDTH, HEIGHT = 96, 64


def settings_for(folder, **changes):
    return ModelSettings(architecture="transformers", encoder=str(folder), width=WIDTH, height=HEIGHT, **changes)


def write_segformer(folder, names=ADE20K_NAMES, **processor):
    """A tiny SegFormer with random weights, in the form in which the hub has the trained ones."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        initializer_range=0.4,  # answers that change from place to place
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(**processor).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_segformer(tmp_path_factory.mktemp("hub") / "tiny-segformer", image_mean=[0.4, 0.5, 0.6])


@pytest.fixture(scope="module")
def network(folder):
    return build_network(settings_for(folder)).eval()


def test_its_decoder_cannot_learn_alone(network):
    settings = from_values({"learner.trained": "decoder"})
    with pytest.raises(SettingsError, match=r"set learner\.trained to all"):
        Learner(copy.deepcopy(network), None, torch.ones(37), None, None, settings, torch.device("cpu"))


def random_color(height=HEIGHT, width=WIDTH):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_probability_of_a_class_is_the_sum_over_its_members(folder, network):
    """Against the library itself, with its own image processor, and sums taken by hand."""
    color = random_color()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        pixels = processor(color, do_resize=False, return_tensors="pt")["pixel_values"]
        probabilities = theirs(pixel_values=pixels).logits[0].double().softmax(0).numpy()
        ours = network(to_tensor([color], torch.device("cpu")))[0].softmax(0).numpy()
    sums = np.zeros((38, *probabilities.shape[1:]))
    for index, id in enumerate(ADE20K_TO_SUNRGBD37):
        sums[id] += probabilities[index]
    present = sorted(set(ADE20K_TO_SUNRGBD37) - {0})
    logs = np.log(np.maximum(sums, sums[present].min(0))[1:])  # a class without members: as the least probable one
    scaled = F.interpolate(torch.from_numpy(logs)[None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(ours, scaled[0].softmax(0).numpy(), atol=1e-5)
    assert len(np.unique(ours.argmax(0))) > 3


def test_classes_that_it_does_not_have_never_win(network):
    absent = network.body.without_members
    assert {SUNRGBD37.names[id - 1] for id in absent} == {"paper", "shower_curtain", "whiteboard", "night_stand"}
    with torch.no_grad():
        logits = network(torch.rand(2, 3, HEIGHT, WIDTH))
    assert torch.isfinite(logits).all()
    others = [c for c in range(37) if c + 1 not in absent]
    assert (logits[:, [id - 1 for id in absent]].amax(1) <= logits[:, others].amin(1) + 1e-4).all()


def test_hopeless_members_do_not_tie_with_each_other():
    """A class far below one that has no counterpart here is still told from one farther below."""
    body = TransformersBody(torch.nn.Identity(), [0, 1, 2], num_classes=3)
    merged = body._merge(torch.tensor([1000.0, -200.0, -210.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(merged.view(3), torch.tensor([-200.0, -210.0, -210.0]))


@pytest.mark.parametrize("half", [False, True])
def test_weights_file_alone_builds_it_again(folder, network, tmp_path, half, monkeypatch):
    path = tmp_path / "base.safetensors"
    save_checkpoint(path, network, half=half)
    for kind in (transformers.AutoModelForSemanticSegmentation, transformers.AutoImageProcessor):
        monkeypatch.setattr(kind, "from_pretrained", None)
    loaded, info = load_checkpoint(path)
    assert info == read_info(path)
    assert info.model.encoder == "tiny-segformer"
    assert str(folder) not in info.model_dump_json()
    images = torch.rand(1, 3, 50, 70)  # any size
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images), atol=0.1 if half else 1e-5, rtol=1e-3)
        loaded.mean.zero_()
    load_weights(loaded, path)
    torch.testing.assert_close(loaded.mean.view(3), torch.tensor([0.4, 0.5, 0.6]), atol=1e-3, rtol=1e-3)


def test_training_reaches_every_layer_and_learns_a_class_that_it_did_not_have(folder):
    network = build_network(settings_for(folder)).train()
    paper = SUNRGBD37.names.index("paper") + 1
    images, labels = torch.rand(2, 3, HEIGHT, WIDTH), torch.full((2, HEIGHT, WIDTH), paper)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        outputs = network.outputs(images)
        assert outputs.auxiliary is None
        assert outputs.depth is None
        loss = supervised_loss(outputs.logits, labels, torch.ones(37))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_it_can_be_exported_to_onnx(network):
    pytest.importorskip("onnxscript")
    graph = export_onnx(network, CheckpointInfo(model=network.settings), WIDTH, HEIGHT)
    compare_with_torch(OnnxModel(graph), network).check()


class TestClasses:
    def test_names_lead_to_ids_however_they_are_written(self):
        assert class_ids(["Wall ", "floor", "sky", "night stand", "shower_curtain"]) == [1, 2, 0, 32, 28]

    def test_every_name_of_ade20k_leads_where_its_table_says(self):
        assert class_ids(ADE20K_NAMES) == list(ADE20K_TO_SUNRGBD37)

    def test_150_numbers_are_those_of_ade20k(self):
        assert class_ids([f"LABEL_{i}" for i in range(150)]) == list(ADE20K_TO_SUNRGBD37)

    @pytest.mark.parametrize("names", [("road", "wall", "person"), tuple(f"LABEL_{i}" for i in range(21))])
    def test_network_for_something_else_than_rooms_is_refused(self, names, tmp_path):
        write_segformer(tmp_path / "outdoors", names)
        with pytest.raises(SettingsError, match=rf"{len(names)} classes \({names[0]}, .*use one for ADE20K"):
            build_network(settings_for(tmp_path / "outdoors"))


class TestOwnClasses:
    """Classes other than SUN RGB-D's: the network's own, or those of a file."""

    def test_native_classes_are_the_networks_own(self, tmp_path):
        folder = write_segformer(tmp_path / "forest", ("tree", "path", "background"))
        network = build_network(settings_for(folder, label_space="native")).eval()
        space = network.label_space
        assert (space.name, space.names, space.no_class) == ("forest", ("tree", "path", "background"), {3})
        assert network.body.members.tolist() == torch.eye(3).tolist()
        save_checkpoint(tmp_path / "w", network)
        again, info = load_checkpoint(tmp_path / "w")
        assert again.label_space == info.label_space == space
        images = torch.rand(1, 3, HEIGHT, WIDTH)
        with torch.no_grad():
            torch.testing.assert_close(again(images), network(images))

    def test_150_native_numbers_have_the_names_of_ade20k(self):
        assert native_space("net", [f"LABEL_{i}" for i in range(150)]).names == ADE20K_NAMES

    @pytest.mark.parametrize(
        ("names", "problem"),
        [
            (["LABEL_0", "LABEL_1"], "without names: give a file of classes"),
            (["tree", "Tree"], "'tree' names two classes"),
            ([f"thing {i}" for i in range(300)], "at most 254"),
        ],
    )
    def test_native_classes_that_cannot_be_told_apart_are_refused(self, names, problem):
        with pytest.raises(SettingsError, match=problem):
            native_space("org/net", names)

    def test_classes_of_a_file_are_found_by_name_and_synonym(self, tmp_path):
        five = five_classes(tmp_path)
        assert class_ids(["skid", "Floors", "sky", "rack", "wall"], five) == [2, 1, 0, 3, 5]

    def test_numbers_are_taken_in_the_order_of_the_file(self, tmp_path):
        five = five_classes(tmp_path)
        assert class_ids([f"LABEL_{i}" for i in range(5)], five) == [1, 2, 3, 4, 5]
        with pytest.raises(SettingsError, match=r"4 classes \(LABEL_0.*none of the classes 'warehouse'"):
            class_ids([f"LABEL_{i}" for i in range(4)], five)

    def test_a_network_that_knows_none_of_them_is_refused(self, tmp_path):
        with pytest.raises(SettingsError, match=r"\(tree, path\) knows none of the classes 'warehouse' \(5 classes"):
            class_ids(["tree", "path"], five_classes(tmp_path))


class TestNormalisation:
    """mean and std are for RGB in 0..1, in whichever form the image processor gives them."""

    @pytest.mark.parametrize(
        ("processor", "mean", "std"),
        [
            ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)),
            ({"do_normalize": False}, (0, 0, 0), (1, 1, 1)),
            ({"do_normalize": False, "do_rescale": False}, (0, 0, 0), (1 / 255,) * 3),
            ({"do_rescale": False, "image_mean": [51.0] * 3, "image_std": [25.5] * 3}, (0.2,) * 3, (0.1,) * 3),
        ],
    )
    def test_of_the_image_processor(self, processor, mean, std, tmp_path):
        folder = write_segformer(tmp_path / "network", **processor)
        _, found_mean, found_std, _ = fetch_body(settings_for(folder), SUNRGBD37)
        np.testing.assert_allclose(found_mean, mean, atol=1e-7)
        np.testing.assert_allclose(found_std, std, atol=1e-7)

    def test_without_an_image_processor_it_is_that_of_imagenet_and_said(self, tmp_path, caplog):
        write_segformer(tmp_path / "network")
        (tmp_path / "network" / "preprocessor_config.json").unlink()
        _, mean, _, _ = fetch_body(settings_for(tmp_path / "network"), SUNRGBD37)
        assert mean == (0.485, 0.456, 0.406)
        assert "does not say how images are normalised" in caplog.text

    def test_order_of_channels_other_than_rgb_is_refused(self, tmp_path):
        write_segformer(tmp_path / "network")
        transformers.MobileViTImageProcessor().save_pretrained(tmp_path / "network")
        with pytest.raises(SettingsError, match="blue, green, red"):
            fetch_body(settings_for(tmp_path / "network"), SUNRGBD37)


class TestRefusals:
    def test_name_that_is_neither_there_nor_on_a_hub(self, monkeypatch):
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError, match=r"some/network cannot be loaded.*hf download some/network"):
            build_network(settings_for("some/network"))

    def test_folder_without_a_network(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"folder .* cannot be loaded by transformers"):
            build_network(settings_for(tmp_path))

    def test_encoder_without_a_trained_head(self, tmp_path):
        config = json.loads((write_segformer(tmp_path / "whole") / "config.json").read_text())
        transformers.SegformerModel(transformers.SegformerConfig(**config)).save_pretrained(tmp_path / "encoder")
        with pytest.raises(CheckpointError, match=r"no complete segmentation network.*decode_head"):
            build_network(settings_for(tmp_path / "encoder"))

    def test_size_that_the_network_cannot_take(self, folder, monkeypatch):
        def refuse(self, pixel_values):
            raise ValueError(f"no images of {pixel_values.shape[3]} pixels")

        monkeypatch.setattr(transformers.SegformerForSemanticSegmentation, "forward", refuse)
        with pytest.raises(SettingsError, match=r"96x64 .*no images of 96 pixels.*set model\.width"):
            build_network(settings_for(folder))

    @pytest.mark.parametrize("branch", [{"auxiliary": "always"}, {"depth_decoder": True}])
    def test_branches_that_it_does_not_have(self, folder, branch):
        with pytest.raises(SettingsError, match="has neither: leave them out"):
            build_network(settings_for(folder, **branch))

    def test_library_that_is_not_installed(self, folder, network, tmp_path, monkeypatch):
        save_checkpoint(tmp_path / "w", network)
        monkeypatch.setitem(sys.modules, "transformers", None)
        for use in (lambda: build_network(settings_for(folder)), lambda: load_checkpoint(tmp_path / "w")):
            with pytest.raises(S4NetError, match=r"pip install transformers"):
                use()

    def test_description_that_this_version_of_the_library_does_not_know(self, network):
        with pytest.raises(CheckpointError, match=r"newnet.*install version 9\.1"):
            build_network(network.settings, {"model_type": "newnet", "transformers_version": "9.1"})
