"""Labels out of colour, and weights that change between two frames."""

import itertools
import threading

import numpy as np
import pytest
import torch

from s4net_core.config import ModelSettings, Settings
from s4net_core.errors import BadFrame, CheckpointError, SettingsError
from s4net_core.inference import (
    Segmenter,
    forward,
    most_probable,
    pick_device,
    predict_labels,
    to_tensor,
)
from s4net_core.labels import UNLABELLED
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, save_checkpoint

MODEL = ModelSettings(encoder="tu-mobilenetv3_small_100", encoder_weights="none", width=64, height=48)
CPU = torch.device("cpu")


def new_settings(**segmentation):
    return Settings.model_validate({"model": MODEL.model_dump(), "segmentation": segmentation})


def new_network(seed=0):
    torch.manual_seed(seed)
    return build_network(MODEL).eval()


def saved(path, network, version=0):
    save_checkpoint(path, network, CheckpointInfo(model=MODEL, version=version))
    return path


def random_color(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def answer_by_two_layers(network, version):
    """Every pixel gets the class 2 * version, one half from the decoder and one from the head: a mixture shows."""
    norm, head = network.body.decoder.block2[1], network.body.segmentation_head[0]
    norm.weight.zero_()
    norm.bias.zero_()
    norm.bias[version] = 1.0
    head.weight.zero_()
    head.bias.zero_()
    for channel in range(37 - version):
        head.weight[channel + version - 1, channel] = 10.0
    return network


@pytest.fixture(scope="module")
def network():
    return new_network()


class TestSegmenter:
    def test_answers_at_the_size_of_the_image(self, tmp_path, network):
        segmenter = Segmenter(saved(tmp_path / "w", network, version=7), "cpu", new_settings())
        for height, width in ((48, 64), (30, 41), (120, 90)):
            result = segmenter.segment(random_color(height, width))
            assert result.label.shape == result.confidence.shape == (height, width)
            assert result.label.dtype == np.uint8
            assert result.confidence.dtype == np.float32
            assert result.version == 7
            assert 1 <= result.label.min() <= result.label.max() <= 37
            assert 1 / 37 <= result.confidence.min() <= result.confidence.max() <= 1

    def test_gives_the_class_and_probability_of_the_bare_network(self, tmp_path, network):
        color = random_color()
        result = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings()).segment(color)
        with torch.no_grad():
            probabilities = network(torch.tensor(color).permute(2, 0, 1)[None] / 255.0).softmax(1)[0].numpy()
        np.testing.assert_array_equal(result.label, probabilities.argmax(0) + 1)
        np.testing.assert_allclose(result.confidence, probabilities.max(0), rtol=1e-5)

    def test_pixels_below_the_smallest_confidence_are_unlabelled_from_the_next_frame_on(self, tmp_path, network):
        settings = new_settings()
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", settings)
        before = segmenter.segment(random_color())
        settings.segmentation.min_confidence = float(np.median(before.confidence))
        after = segmenter.segment(random_color())
        unsure = before.confidence < settings.segmentation.min_confidence
        assert 0.2 < unsure.mean() < 0.8
        assert (after.label[unsure] == 0).all()
        np.testing.assert_array_equal(after.label[~unsure], before.label[~unsure])

    def test_refused_weights_leave_the_old_ones_serving(self, tmp_path, network):
        segmenter = Segmenter(saved(tmp_path / "old", network, version=1), "cpu", new_settings())
        color = random_color()
        before = segmenter.segment(color)
        new = saved(tmp_path / "new", new_network(seed=1), version=2)
        (tmp_path / "cut").write_bytes(new.read_bytes()[:-10])
        for path, sha256 in ((tmp_path / "cut", ""), (tmp_path / "none", ""), (new, "0" * 64)):
            with pytest.raises(CheckpointError):
                segmenter.load(path, sha256)
            after = segmenter.segment(color)
            assert after.version == segmenter.info.version == 1
            np.testing.assert_array_equal(after.confidence, before.confidence)
        assert segmenter.load(new, file_sha256(new)).version == 2
        assert segmenter.segment(color).version == segmenter.info.version == 2

    def test_frame_never_sees_a_mixture_of_weights(self, tmp_path):
        """One thread changes the weights as fast as it can, another two label: each label fits its version."""
        versions = range(1, 7)
        paths = [saved(tmp_path / f"{v}", answer_by_two_layers(new_network(), v), v) for v in versions]
        segmenter = Segmenter(paths[0], "cpu", new_settings())
        color = random_color()
        results, stop = [], threading.Event()

        def label_on():
            while not stop.is_set():
                results.append(segmenter.segment(color))

        threads = [threading.Thread(target=label_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        for path in itertools.islice(itertools.cycle(paths), 40):
            segmenter.load(path)
        stop.set()
        for thread in threads:
            thread.join()
        assert len({result.version for result in results}) > 1
        for result in results:
            assert (result.label == 2 * result.version).all()

    def test_frames_are_answered_while_weights_are_read(self, tmp_path, network, monkeypatch):
        segmenter = Segmenter(saved(tmp_path / "w", network, version=1), "cpu", new_settings())
        reading, answered = threading.Event(), threading.Event()

        def slow_load(*_):
            reading.set()
            assert answered.wait(10)
            return CheckpointInfo(model=MODEL, version=2)

        monkeypatch.setattr("s4net_core.backends.load_weights", slow_load)
        loader = threading.Thread(target=segmenter.load, args=(tmp_path / "w",))
        loader.start()
        assert reading.wait(10)
        assert segmenter.segment(random_color()).version == 1
        answered.set()
        loader.join()
        assert segmenter.segment(random_color()).version == 2

    def test_image_of_another_kind_is_refused(self, tmp_path, network):
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings())
        for color in (random_color()[..., 0], random_color().astype(np.float32), random_color()[:0]):
            with pytest.raises(BadFrame, match="uint8 RGB") as caught:
                segmenter.segment(color)
            assert caught.value.reason == "color_format"

    def test_weights_of_another_label_space_are_refused(self, tmp_path, network):
        settings = new_settings()
        object.__setattr__(settings.model, "label_space", "ade20k")
        with pytest.raises(CheckpointError, match=r"predicts sunrgbd37 but model\.label_space is 'ade20k'"):
            Segmenter(saved(tmp_path / "w", network), "cpu", settings)


class TestDepth:
    def test_is_that_of_the_network_at_the_size_of_the_image(self, tmp_path):
        torch.manual_seed(0)
        network = build_network(MODEL.model_copy(update={"depth_decoder": True})).eval()
        torch.nn.init.normal_(network.depth_branch.head[0].weight)  # so that depth differs from place to place
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings())
        color = random_color()
        with torch.no_grad():
            expected = network.outputs(to_tensor([color], CPU)).depth[0, 0].numpy()
        np.testing.assert_allclose(segmenter.depth(color), expected, rtol=1e-5)
        larger = segmenter.depth(np.repeat(np.repeat(color, 2, axis=0), 3, axis=1))
        assert larger.shape == (96, 192)
        assert larger.dtype == np.float32
        assert (larger > 0).all()

    def test_weights_without_a_depth_decoder_are_refused_with_a_remedy(self, tmp_path, network):
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings())
        with pytest.raises(CheckpointError, match=r"no depth decoder.*model\.depth_decoder=true"):
            segmenter.depth(random_color())


class TestPrediction:
    def test_colours_become_channels_between_0_and_1(self):
        colors = [random_color(seed=s) for s in range(2)]
        images = to_tensor(colors, CPU)
        assert images.shape == (2, 3, 48, 64)
        np.testing.assert_allclose(images[1, 2, 5, 7].item(), colors[1][5, 7, 2] / 255, rtol=1e-6)

    def test_probabilities_are_constants_that_sum_to_1(self, network):
        probabilities = forward(network, to_tensor([random_color()], CPU)).softmax(dim=1)
        assert probabilities.shape == (1, 37, 48, 64)
        assert not probabilities.requires_grad
        torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 48, 64))

    def test_network_in_training_predicts_in_evaluation_mode_and_goes_on_training(self, network):
        images = to_tensor([random_color()], CPU)
        expected = forward(network, images)
        learning = new_network().train()
        before = {key: value.clone() for key, value in learning.state_dict().items()}
        torch.testing.assert_close(forward(learning, images), expected)
        assert learning.training
        assert all(torch.equal(before[key], value) for key, value in learning.state_dict().items())

    def test_labels_equal_those_of_the_segmenter_for_images_of_any_size(self, tmp_path, network):
        settings = new_settings()
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", settings)
        colors = [random_color(30 + 7 * i, 90 - 5 * i, seed=i) for i in range(6)]
        for color, label in zip(colors, predict_labels(network, colors, settings, CPU), strict=True):
            np.testing.assert_array_equal(label, segmenter.segment(color).label)

    def test_logits_are_scaled_before_the_class_is_taken(self):
        """Between a sure and an unsure pixel the border lies nearer to the unsure one."""
        logits = torch.zeros(1, 2, 1, 2)
        logits[0, :, 0, 0], logits[0, :, 0, 1] = torch.tensor([9.0, 0.0]), torch.tensor([0.0, 1.0])
        label, confidence = most_probable(logits, (1, 20))
        assert (label[0, 0] == 1).sum() == 14  # 9 (1 - x) > x for x < 0.9; x = (i + 0.5) / 10 - 0.5
        assert confidence[0, 0, 0].item() == pytest.approx(1 / (1 + np.exp(-9)))

    def test_class_and_probability_are_those_of_a_softmax_and_the_first_of_equals_wins(self):
        logits = torch.randn(2, 37, 41, 30, generator=torch.Generator().manual_seed(0)).mul(3).round()
        label, confidence = most_probable(logits, (41, 30))
        probabilities = logits.double().softmax(dim=1).numpy()
        assert label.dtype == torch.uint8
        np.testing.assert_array_equal(label.numpy(), logits.numpy().argmax(axis=1) + 1)
        np.testing.assert_allclose(confidence.numpy(), probabilities.max(axis=1), rtol=1e-6)

    def test_pixels_without_a_finite_answer_are_unlabelled_and_no_class_beyond_the_last(self):
        logits = torch.zeros(1, 37, 5, 7)
        logits[:, 30] = 1.0
        logits[:, :, 2, 3] = torch.nan  # e.g. overflow in mixed precision
        label, _ = most_probable(logits, (5, 7))
        assert label[0, 2, 3] == UNLABELLED
        assert (label == 31).sum() == 34


class TestDevice:
    def test_auto_is_a_device_of_this_machine(self):
        assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_unknown_or_missing_device_is_refused_with_a_remedy(self):
        for name in ("gpu", "cuda:99"):
            with pytest.raises(SettingsError, match=f"'{name}'.*use auto"):
                pick_device(name)
