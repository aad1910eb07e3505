"""ONNX graphs: they answer as PyTorch does, say what they are, and are refused where they do not."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s4net_core.config import ModelSettings
from s4net_core.errors import ExportError, S4NetError, SettingsError
from s4net_core.labels import SUNRGBD37
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo
from s4net_core.models.onnx_model import (
    Comparison,
    OnnxModel,
    OnnxTemplate,
    compare_with_torch,
    export_onnx,
    pick_provider,
)

WIDTH, HEIGHT = 70, 46  # needs padding in both directions
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none")
CPU = torch.device("cpu")
INFO = CheckpointInfo(model=MODEL, version=5)


def new_network(model=MODEL):
    torch.manual_seed(0)
    network = build_network(model)
    network.train()(torch.rand(2, 3, 48, 80))  # statistics of batch norm other than those of a new network
    network.mean += 0.1
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return new_network()


@pytest.fixture(scope="module")
def template(network):
    return OnnxTemplate(network, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def graph(template, network):
    return template.fill(network, INFO, "abc123")


def test_a_plain_session_gives_the_logits_of_pytorch(graph, network):
    """As any other program would use the file: 0..1 in, normalisation and padding are in the graph."""
    image = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), np.float32)
    (found,) = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"image": image})
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert found.shape == (1, 37, HEIGHT, WIDTH)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_a_network_in_training_is_exported_as_it_answers_and_left_as_it_was():
    network = new_network(MODEL.model_copy(update={"architecture": "pspnet"})).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph = export_onnx(network, INFO, WIDTH, HEIGHT)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    compare_with_torch(OnnxModel(graph), network.eval(), images=1).check()


def test_the_file_says_what_it_was_made_from(graph):
    proto = onnx.load_from_string(graph)
    onnx.checker.check_model(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["s4net.labels"]) == list(SUNRGBD37.names)
    assert (metadata["s4net.width"], metadata["s4net.height"]) == (str(WIDTH), str(HEIGHT))
    assert (metadata["s4net.version"], metadata["s4net.sha256"]) == ("5", "abc123")
    assert metadata["s4net.network"] == "deeplabv3plus/tu-test_resnet"
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == 18


def test_other_weights_are_filled_in_without_exporting_or_optimising_again(template, network, monkeypatch):
    other = new_network()
    with torch.no_grad():
        for value in other.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.02).add_(0.001)
    monkeypatch.setattr(torch.onnx, "export", None)
    monkeypatch.setattr("onnxscript.optimizer.optimize", None)
    filled = OnnxModel(template.fill(other, INFO))
    compare_with_torch(filled, other).check()
    with pytest.raises(ExportError):
        compare_with_torch(filled, network).check()


def test_several_images_are_answered_in_their_order(graph, network):
    images = torch.rand(3, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(graph).logits(images), network(images), rtol=1e-3, atol=1e-4)


def test_an_image_of_another_size_is_refused_with_a_remedy(graph):
    with pytest.raises(ExportError, match=r"\(1, 3, 48, 64\).*model\.width"):
        OnnxModel(graph).logits(torch.rand(1, 3, 48, 64))


def test_a_graph_of_other_weights_is_noticed_with_the_numbers(graph, network):
    compare_with_torch(OnnxModel(graph), network).check()
    other = new_network()
    with torch.no_grad():
        other.body.segmentation_head[0].bias += torch.linspace(0, 0.5, 37)
    compared = compare_with_torch(OnnxModel(graph), other)
    assert compared.logit_error == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ExportError, match=r"differ by up to 0\.5.*of the labels are equal"):
        compared.check()


@pytest.mark.parametrize(("error", "equal"), [(float("nan"), 1.0), (0.02, 1.0), (0.0, 0.9)])
def test_more_than_rounding_is_refused(error, equal):
    Comparison(logit_error=0.009, largest_logit=10.0, equal_labels=0.9995, images=1).check()
    with pytest.raises(ExportError):
        Comparison(logit_error=error, largest_logit=10.0, equal_labels=equal, images=1).check()


def test_rounding_on_a_gpu_may_be_coarser():
    numbers = {"logit_error": 0.05, "largest_logit": 10.0, "equal_labels": 0.995, "images": 1}
    Comparison(**numbers, provider="CUDAExecutionProvider").check()
    with pytest.raises(ExportError):
        Comparison(**numbers).check()


def test_what_is_no_graph_is_refused():
    with pytest.raises(ExportError, match="export it again"):
        OnnxModel(b"no graph")


class TestProvider:
    def test_auto_is_cuda_only_for_images_on_a_gpu_and_where_there_is_one(self, monkeypatch):
        there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
        assert pick_provider("auto", torch.device("cuda")) == "CUDAExecutionProvider"
        assert pick_provider("auto", CPU) == "CPUExecutionProvider"
        assert pick_provider(there[0], CPU) == there[0]
        there = there[2:]
        assert pick_provider("auto", torch.device("cuda")) == "CPUExecutionProvider"

    def test_one_that_is_not_there_is_refused_with_those_that_are(self, graph):
        with pytest.raises(SettingsError, match=r"'FastProvider' but this ONNX Runtime has .*CPUExecutionProvider"):
            OnnxModel(graph, "FastProvider")

    def test_tensorrt_gets_the_number_of_the_gpu_and_the_cpu_for_what_it_cannot_compute(self, graph, monkeypatch):
        """The results of TensorRT need a GPU; this test checks the options that it is given."""
        asked = {}

        class Session:
            def __init__(self, graph, options, providers):
                asked["providers"] = providers

            def get_providers(self):
                return ["TensorrtExecutionProvider", "CPUExecutionProvider"]

            def get_outputs(self):
                return [SimpleNamespace(shape=[1, 37, HEIGHT, WIDTH])]

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        model = OnnxModel(graph, "TensorrtExecutionProvider", torch.device("cuda", 1))
        assert asked["providers"] == [("TensorrtExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]
        assert model.size == (HEIGHT, WIDTH)
        assert model.device == torch.device("cuda", 1)

    def test_on_the_cpu_it_computes_there_wherever_images_come_from(self, graph):
        assert OnnxModel(graph, "CPUExecutionProvider", torch.device("cuda")).device == CPU

    def test_one_that_does_not_start_is_refused_instead_of_falling_back(self, graph, monkeypatch):
        plain = onnxruntime.InferenceSession
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
        monkeypatch.setattr(
            onnxruntime, "InferenceSession", lambda graph, options, providers: plain(graph, options, providers[-1:])
        )
        with pytest.raises(SettingsError, match="CUDAExecutionProvider does not start"):
            OnnxModel(graph, "CUDAExecutionProvider")


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_a_message_with_the_extra(library, monkeypatch, network, graph):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(S4NetError, match=rf"{library}.*pip install onnx"):
        OnnxModel(graph) if library == "onnxruntime" else export_onnx(network, INFO, WIDTH, HEIGHT)
