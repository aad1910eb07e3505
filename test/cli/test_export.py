"""`s4net export` and `s4net import-model` as a user runs them, on tiny networks."""

import pytest
import torch

from s4net_core.cli.main import main
from s4net_core.config import ModelSettings
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import read_info, save_checkpoint
from s4net_core.models.onnx_model import Comparison


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
    save_checkpoint("base.safetensors", build_network(model))
    return tmp_path / "base.safetensors"


def test_onnx_file_is_written_and_the_comparison_printed(checkpoint, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", "base.safetensors", "net.onnx", "--set", "model.width=80"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "opset 18, 80x48; 4 images against PyTorch" in text
    assert "100.000% of the labels are equal" in text
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 48, 80]  # the width of the settings, the height of the weights


def test_graph_that_answers_otherwise_is_not_written(checkpoint, capsys, monkeypatch):
    worse = Comparison(logit_error=1.0, largest_logit=2.0, equal_labels=0.4, images=4)
    for name, result in (("export_onnx", b"graph"), ("OnnxModel", None), ("compare_with_torch", worse)):
        monkeypatch.setattr(f"s4net_core.models.onnx_model.{name}", lambda *_, result=result: result)
    assert main(["export", "base.safetensors", "net.onnx"]) == 2
    assert "answers otherwise than PyTorch: logits of up to 2 differ by up to 1, 40.00%" in capsys.readouterr().err
    assert not (checkpoint.parent / "net.onnx").exists()


def test_network_of_transformers_becomes_a_base_model(tmp_path, capsys, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], num_labels=150
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained("segformer")
    transformers.SegformerImageProcessor().save_pretrained("segformer")
    assert main(["import-model", "segformer", "base.safetensors", "--set", "model.width=96"]) == 0
    text = capsys.readouterr().out
    assert "33 of 37 classes" in text
    assert "whiteboard" in text
    info = read_info("base.safetensors")
    assert (info.model.architecture, info.model.encoder, info.model.width) == ("transformers", "segformer", 96)


@pytest.mark.parametrize(
    ("classes", "known", "name"),
    [("native", "2 of 2 classes", "forest"), ("own.yaml", "1 of 2 classes", "own")],
)
def test_a_network_is_imported_with_its_own_classes_or_those_of_a_file(
    tmp_path, capsys, monkeypatch, classes, known, name
):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        id2label={0: "tree", 1: "path"},
        label2id={"tree": 0, "path": 1},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained("forest")
    transformers.SegformerImageProcessor().save_pretrained("forest")
    (tmp_path / "own.yaml").write_text("[{name: plant, synonyms: [tree]}, rock]")
    words = ["import-model", "forest", "base.safetensors", "--set", "model.width=96", "--set", "model.height=64"]
    assert main(words) == 2  # SUN RGB-D 37 by default
    assert "--classes native" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--classes", classes]) == 0
    assert known in " ".join(capsys.readouterr().out.split())
    assert read_info("base.safetensors").label_space.name == name
