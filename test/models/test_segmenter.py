"""Labels out of colour, and weights that change between two frames."""

import itertools
import threading

import numpy as np
import pytest
import torch
from own_classes import NAMES, REST, five_classes

from s4net_core.config import ModelSettings, Settings
from s4net_core.errors import BadFrame, CheckpointError
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, save_checkpoint
from s4net_core.models.predict import to_tensor
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
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
    def test_works_at_the_size_of_the_weights_where_none_is_given(self, tmp_path, network):
        path, given = saved(tmp_path / "w", network), Settings()
        segmenter, color = Segmenter(path, "cpu", given), random_color(120, 90)
        assert (segmenter.settings.model.size, given.model.size) == ((64, 48), (0, 0))
        expected = Segmenter(path, "cpu", new_settings()).segment(color)
        np.testing.assert_array_equal(segmenter.segment(color).label, expected.label)
        given.segmentation.min_confidence = 1.0  # may change at any time
        assert not segmenter.segment(color).label.any()

    def test_says_which_device_computes(self, tmp_path, network):
        segmenter = Segmenter(saved(tmp_path / "w", network), "auto", new_settings())
        assert segmenter.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        segmenter.segment(random_color())
        assert segmenter.forward(torch.rand(1, 3, 48, 64)).device.type == segmenter.device.type

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

    def test_settings_that_name_another_network_are_told_and_the_file_decides(self, tmp_path, network, caplog):
        settings = new_settings()
        Segmenter(saved(tmp_path / "weights", network), "cpu", settings)
        assert not caplog.messages
        settings.model.architecture, settings.model.encoder = "pspnet", "resnet18"
        segmenter = Segmenter(tmp_path / "weights", "cpu", settings)
        assert [message.split(" has ")[1] for message in caplog.messages] == [
            f"architecture '{MODEL.architecture}': model.architecture 'pspnet' is not used",
            f"encoder '{MODEL.encoder}': model.encoder 'resnet18' is not used",
        ]
        assert segmenter.info.model.architecture == MODEL.architecture

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
            assert answered.wait(60)
            return CheckpointInfo(model=MODEL, version=2)

        monkeypatch.setattr("s4net_core.models.runtimes.load_weights", slow_load)
        loader = threading.Thread(target=segmenter.load, args=(tmp_path / "w",))
        loader.start()
        assert reading.wait(60)
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

    def test_classes_are_those_of_the_weights_whatever_the_settings_say(self, tmp_path):
        network = build_network(MODEL, label_space=five_classes(tmp_path))
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings())
        assert segmenter.info.label_space.names == NAMES
        assert segmenter.segment(random_color()).label.max() <= 5

    def test_what_means_no_class_is_unlabelled(self, tmp_path):
        network = build_network(MODEL, label_space=five_classes(tmp_path))
        with torch.no_grad():
            network.body.segmentation_head[0].bias[REST - 1] = 1000.0
        segmenter = Segmenter(saved(tmp_path / "w", network), "cpu", new_settings())
        assert not segmenter.segment(random_color()).label.any()


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
