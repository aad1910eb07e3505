"""What a network says about images: labels, probabilities, depth, and the device on which it works."""

import numpy as np
import pytest
import torch

from s4net_core.config import ModelSettings, Settings
from s4net_core.errors import BadFrame, SettingsError
from s4net_core.labels import UNLABELLED
from s4net_core.models import predict
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint
from s4net_core.models.predict import (
    forward,
    most_probable,
    pick_device,
    predict_labels,
    to_tensor,
    working_images,
)
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-mobilenetv3_small_100", encoder_weights="none", width=64, height=48)
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


def test_logits_are_scaled_before_the_class_is_taken():
    """Between a sure and an unsure pixel the border lies nearer to the unsure one."""
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, :, 0, 0], logits[0, :, 0, 1] = torch.tensor([9.0, 0.0]), torch.tensor([0.0, 1.0])
    label, confidence = most_probable(logits, (1, 20))
    assert (label[0, 0] == 1).sum() == 14  # 9 (1 - x) > x for x < 0.9; x = (i + 0.5) / 10 - 0.5
    assert confidence[0, 0, 0].item() == pytest.approx(1 / (1 + np.exp(-9)))


def test_class_and_probability_are_those_of_a_softmax_and_the_first_of_equals_wins():
    logits = torch.randn(2, 37, 41, 30, generator=torch.Generator().manual_seed(0)).mul(3).round()
    label, confidence = most_probable(logits, (41, 30))
    probabilities = logits.double().softmax(dim=1).numpy()
    assert label.dtype == torch.uint8
    np.testing.assert_array_equal(label.numpy(), logits.numpy().argmax(axis=1) + 1)
    np.testing.assert_allclose(confidence.numpy(), probabilities.max(axis=1), rtol=1e-6)


def test_pixels_without_a_finite_answer_are_unlabelled_and_no_class_beyond_the_last():
    logits = torch.zeros(1, 37, 5, 7)
    logits[:, 30] = 1.0
    logits[:, :, 2, 3] = torch.nan  # e.g. overflow in mixed precision
    label, _ = most_probable(logits, (5, 7))
    assert label[0, 2, 3] == UNLABELLED
    assert (label == 31).sum() == 34


def test_auto_is_a_device_of_this_machine():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_unknown_or_missing_device_is_refused_with_a_remedy():
    for name in ("gpu", "cuda:99"):
        with pytest.raises(SettingsError, match=f"'{name}'.*use auto"):
            pick_device(name)


@pytest.mark.parametrize("size", [(48, 64), (97, 131), (90, 64), (48, 100), (31, 40), (33, 200), (1, 1)])
def test_logits_scaled_in_strips_give_the_labels_of_logits_scaled_at_once(size):
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 37, 48, 64)
    label, confidence = most_probable(logits, size)
    whole = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(dim=1)
    highest, expected = whole.max(dim=1)
    torch.testing.assert_close(confidence, highest)
    second = whole.topk(2, dim=1).values[:, 1]
    assert torch.equal(label[highest - second > 1e-5].long(), expected[highest - second > 1e-5] + 1)
    assert (highest - second > 1e-5).float().mean() > 0.99


def test_the_logits_of_a_large_image_never_exist_at_once(monkeypatch):
    seen = []
    look_up = predict._most_probable
    monkeypatch.setattr(predict, "_most_probable", lambda strip: seen.append(strip.shape) or look_up(strip))
    monkeypatch.setattr(predict.F, "interpolate", None)
    label, _ = most_probable(torch.randn(1, 5, 48, 64), (500, 700))
    assert label.shape == (1, 500, 700)
    assert {shape[2] for shape in seen} == {predict.STRIP_ROWS, 500 % predict.STRIP_ROWS}


def test_a_device_that_pytorch_knows_but_nobody_here_has_tried_is_refused():
    with pytest.raises(SettingsError, match="device is 'xla'"):
        pick_device("xla")
