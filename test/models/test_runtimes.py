"""The segmenter on ONNX Runtime: the same labels, and the same promises while weights change."""

import itertools
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


from s4net_core.config import ModelSettings, from_values
from s4net_core.errors import CheckpointError, ExportError, SettingsError
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, save_checkpoint
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
COLOR = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


def new_settings(runtime="onnx", provider="auto"):
    return from_values({"segmentation": {"runtime": runtime, "execution_provider": provider}})


def saved(path, version=0, model=MODEL):
    """Random weights: their labels change from place to place."""
    torch.manual_seed(version)
    network = build_network(model)
    with torch.no_grad():
        network.body.segmentation_head[0].weight.mul_(50)
    save_checkpoint(path, network, CheckpointInfo(model=model, version=version))
    return path


def saved_class(path, version):
    """Weights that label every pixel with 2 * version, half of it from the decoder and half from the head."""
    torch.manual_seed(0)
    network = build_network(MODEL)
    norm, head = network.body.decoder.block2[1], network.body.segmentation_head[0]
    with torch.no_grad():
        for values in (norm.weight, norm.bias, head.weight, head.bias):
            values.zero_()
        norm.bias[version] = 1.0
        for channel in range(37 - version):
            head.weight[channel + version - 1, channel] = 10.0
    save_checkpoint(path, network, CheckpointInfo(model=MODEL, version=version))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights") / "first.safetensors", version=1)


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return Segmenter(checkpoint, "cpu", new_settings())


def test_labels_are_those_of_the_torch_runtime(segmenter, checkpoint):
    expected = Segmenter(checkpoint, "cpu", new_settings("torch")).segment(COLOR)
    result = segmenter.segment(COLOR)
    assert len(np.unique(expected.label)) > 3
    assert segmenter.device == torch.device("cpu")
    np.testing.assert_array_equal(result.label, expected.label)
    np.testing.assert_allclose(result.confidence, expected.confidence, rtol=1e-3)
    assert result.version == 1


def test_refused_weights_leave_the_old_ones_serving(segmenter, tmp_path, monkeypatch):
    before = segmenter.segment(COLOR)
    new = saved(tmp_path / "new", version=2)
    (tmp_path / "cut").write_bytes(new.read_bytes()[:-10])
    other = saved(tmp_path / "other", version=3, model=MODEL.model_copy(update={"encoder": "tu-test_efficientnet"}))
    for path, sha256 in ((tmp_path / "cut", ""), (tmp_path / "none", ""), (new, "0" * 64), (other, "")):
        with pytest.raises(CheckpointError):
            segmenter.load(path, sha256)
    with monkeypatch.context() as patch:
        patch.setattr("s4net_core.models.onnx_model.MAX_LOGIT_ERROR", -1.0)  # no graph is exact enough
        with pytest.raises(ExportError, match="otherwise than PyTorch"):
            segmenter.load(new)
    after = segmenter.segment(COLOR)
    assert after.version == segmenter.info.version == 1
    np.testing.assert_array_equal(after.confidence, before.confidence)
    assert segmenter.forward(torch.zeros(2, 3, 48, 64)).shape == (2, 37, 48, 64)


def test_frame_never_sees_a_mixture_and_frames_come_while_weights_are_loaded(segmenter, checkpoint, tmp_path):
    paths = [saved_class(tmp_path / f"{version}", version) for version in (1, 2, 3)]
    segmenter.load(paths[0])
    results, stop = [], threading.Event()

    def label_on():
        while not stop.is_set():
            results.append(segmenter.segment(COLOR))

    threads = [threading.Thread(target=label_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for path in itertools.islice(itertools.cycle(paths[1:]), 3):
            answered = len(results)
            segmenter.load(path, file_sha256(path))
            assert len(results) > answered + 3
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        segmenter.load(checkpoint)
    assert {result.version for result in results} >= {1, 2, 3}
    for result in results:
        assert (result.label == 2 * result.version).all()


def test_unknown_provider_is_refused_with_those_that_this_machine_has(checkpoint):
    with pytest.raises(SettingsError, match=r"execution_provider is 'Fastest' but .*CPUExecutionProvider"):
        Segmenter(checkpoint, "cpu", new_settings(provider="Fastest"))
