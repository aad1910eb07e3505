"""What a network says about images: labels, probabilities, depth, and the device on which it works."""

import numpy as np
import pytest
import torch

from s4net_core.config import ModelSettings, Settings
from s4net_core.errors import BadFrame, SettingsError
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint
from s4net_core.models.predict import (
    forward,
    pick_device,
    predict_labels,
    to_tensor,
    working_images,
)
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
SETTINGS = Settings.model_validate({"model": MODEL.model_dump()})
CPU = torch.device("cpu")


def new_network(seed=0):
    torch.manual_seed(seed)
    return build_network(MODEL).eval()


def random_color(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    return new_network()


def test_colours_become_channels_between_0_and_1():
    colors = [random_color(seed=s) for s in range(2)]
    images = to_tensor(colors, CPU)
    assert images.shape == (2, 3, 48, 64)
    np.testing.assert_allclose(images[1, 2, 5, 7].item(), colors[1][5, 7, 2] / 255, rtol=1e-6)


def test_images_of_any_size_are_brought_to_the_working_size():
    images = working_images([random_color(), np.full((30, 90, 3), 51, np.uint8)], SETTINGS, CPU)
    assert images.shape == (2, 3, 48, 64)
    np.testing.assert_array_equal(images[:1], to_tensor([random_color()], CPU))
    np.testing.assert_allclose(images[1], 0.2, rtol=1e-6)


def test_one_image_of_another_kind_among_many_is_refused(network):
    with pytest.raises(BadFrame, match="uint8 RGB") as caught:
        predict_labels(network, [random_color(), random_color()[..., 0]], SETTINGS, CPU)
    assert caught.value.reason == "color_format"


def test_probabilities_are_constants_that_sum_to_1(network):
    probabilities = forward(network, to_tensor([random_color()], CPU)).softmax(dim=1)
    assert probabilities.shape == (1, 37, 48, 64)
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 48, 64))


def test_network_in_training_predicts_in_evaluation_mode_and_goes_on_training(network):
    images = to_tensor([random_color()], CPU)
    expected = forward(network, images)
    learning = new_network().train()
    before = {key: value.clone() for key, value in learning.state_dict().items()}
    torch.testing.assert_close(forward(learning, images), expected)
    assert learning.training
    assert all(torch.equal(before[key], value) for key, value in learning.state_dict().items())


def test_labels_equal_those_of_the_segmenter_for_images_of_any_size(tmp_path, network):
    save_checkpoint(tmp_path / "w", network, CheckpointInfo(model=MODEL))
    segmenter = Segmenter(tmp_path / "w", "cpu", SETTINGS)
    colors = [random_color(30 + 7 * i, 90 - 5 * i, seed=i) for i in range(6)]
    for color, label in zip(colors, predict_labels(network, colors, SETTINGS, CPU), strict=True):
        np.testing.assert_array_equal(label, segmenter.segment(color).label)


def test_auto_is_a_device_of_this_machine():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_unknown_or_missing_device_is_refused_with_a_remedy():
    for name in ("gpu", "cuda:99"):
        with pytest.raises(SettingsError, match=f"'{name}'.*use auto"):
            pick_device(name)


def test_a_device_that_pytorch_knows_but_nobody_here_has_tried_is_refused():
    with pytest.raises(SettingsError, match="device is 'xla'"):
        pick_device("xla")
