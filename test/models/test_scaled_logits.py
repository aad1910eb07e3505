"""Labels and confidence of scaled logits, against those of logits that are all interpolated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from s4net_core.config import load_settings
from s4net_core.io.images.files import read_color
from s4net_core.labels import UNLABELLED
from s4net_core.models import scaled_logits
from s4net_core.models.predict import working_images
from s4net_core.models.scaled_logits import ScaledLogits
from s4net_core.models.segmenter import Segmenter

DEMO = Path(__file__).resolve().parents[2] / "demo"
FRAMES = sorted((DEMO / "scan2" / "color").glob("*.jpg"))[::20]
CPU = torch.device("cpu")


def random_logits(height=48, width=64, classes=37, factor=3.0):
    return factor * torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(0))


def interpolated(logits, size):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]


@pytest.fixture(scope="module", params=[(160, 120), (480, 360)], ids=["160x120", "480x360"])
def demo_logits(request):
    """What the demo's network says about frames of the demo, at two sizes of its images."""
    width, height = request.param
    settings = load_settings(DEMO / "demo.yaml", [f"model.width={width}", f"model.height={height}", "device=cpu"])
    segmenter = Segmenter(DEMO / "weights" / "base.safetensors", "cpu", settings)
    return [segmenter.forward(working_images([read_color(path)], settings, CPU)) for path in FRAMES]


@pytest.mark.parametrize("size", [(480, 640), (480, 848), (90, 200)])
@pytest.mark.parametrize("everywhere", [False, True], ids=["between classes", "everywhere"])
def test_labels_of_the_demo_are_those_of_interpolated_logits(demo_logits, size, everywhere):
    for logits in demo_logits:
        expected = interpolated(logits, size).argmax(dim=0) + 1
        assert len(expected.unique()) > 5
        label = ScaledLogits(logits, size, everywhere=everywhere).label
        assert (label == expected).float().mean() >= 0.9999


@pytest.mark.parametrize(
    ("everywhere", "tolerance"), [(False, 0.02), (True, 1e-5)], ids=["between classes", "everywhere"]
)
def test_confidence_on_the_demo_is_that_of_interpolated_logits(demo_logits, everywhere, tolerance):
    for logits in demo_logits:
        expected = interpolated(logits, (480, 640)).softmax(dim=0).amax(dim=0)
        confidence = ScaledLogits(logits, (480, 640), everywhere=everywhere).confidence
        assert (confidence - expected).abs().max() < tolerance
        assert (confidence - expected).abs().mean() < tolerance / 20


@pytest.mark.parametrize("size", [(48, 64), (97, 131), (90, 64), (48, 100), (31, 40), (33, 200), (1, 1)])
@pytest.mark.parametrize("everywhere", [False, True], ids=["between classes", "everywhere"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_labels_of_random_logits_are_those_of_interpolated_logits(size, everywhere, memory_format):
    logits = random_logits()
    whole = interpolated(logits, size).softmax(dim=0)
    first, second = whole.topk(2, dim=0).values
    clear = first - second > 1e-5  # rounding decides about the others
    assert clear.float().mean() > 0.99
    scaled = ScaledLogits(logits.to(memory_format=memory_format), size, everywhere=everywhere)
    assert torch.equal(scaled.label[clear].long(), whole.argmax(dim=0)[clear] + 1)


@pytest.mark.parametrize("size", [(52, 76), (50, 73), (1, 1)])
@pytest.mark.parametrize("everywhere", [False, True], ids=["between classes", "everywhere"])
def test_upsampled_corners_onto_corners_and_cut_they_are_those_of_interpolated_logits(size, everywhere):
    logits = random_logits(13, 19, classes=2)
    height, width = size
    whole = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)[0, :, :height, :width].softmax(0)
    clear = whole.amax(dim=0) > 0.5 + 1e-5  # rounding decides about the others
    scaled = ScaledLogits(logits, size, upsampling=4.0, everywhere=everywhere)
    assert clear.float().mean() > 0.99
    assert torch.equal(scaled.label[clear].long(), whole.argmax(dim=0)[clear] + 1)
    torch.testing.assert_close(scaled.confidence, whole.amax(dim=0), rtol=0, atol=1e-3)


def test_confidence_of_two_classes_is_exact_up_to_rounding():
    logits = random_logits(classes=2)
    expected = interpolated(logits, (97, 131)).softmax(dim=0).amax(dim=0)
    torch.testing.assert_close(ScaledLogits(logits, (97, 131)).confidence, expected, rtol=0, atol=1e-3)


def test_at_their_own_size_they_are_those_of_a_softmax_and_the_first_of_equals_wins():
    logits = random_logits(41, 30).round()
    scaled = ScaledLogits(logits, (41, 30))
    probabilities = logits[0].double().softmax(dim=0).numpy()
    assert scaled.label.dtype == torch.uint8
    np.testing.assert_array_equal(scaled.label.numpy(), logits[0].numpy().argmax(axis=0) + 1)
    np.testing.assert_allclose(scaled.confidence.numpy(), probabilities.max(axis=0), rtol=1e-6)


def test_between_a_sure_and_an_unsure_pixel_the_border_lies_nearer_to_the_unsure_one():
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, :, 0, 0], logits[0, :, 0, 1] = torch.tensor([9.0, 0.0]), torch.tensor([0.0, 1.0])
    scaled = ScaledLogits(logits, (1, 20))
    assert (scaled.label[0] == 1).sum() == 14  # 9 (1 - x) > x for x < 0.9; x = (i + 0.5) / 10 - 0.5
    assert scaled.confidence[0, 0].item() == pytest.approx(1 / (1 + np.exp(-9)))


@pytest.mark.parametrize("everywhere", [False, True])
def test_pixels_without_a_finite_answer_are_unlabelled_and_no_class_beyond_the_last(everywhere):
    logits = torch.zeros(1, 37, 5, 7)
    logits[:, 30] = 1.0
    logits[:, :, 2, 3] = torch.nan  # e.g. overflow in mixed precision
    label = ScaledLogits(logits, (5, 7), everywhere=everywhere).label
    assert label[2, 3] == UNLABELLED
    assert (label == 31).sum() == 34
    larger = ScaledLogits(logits, (10, 14), everywhere=everywhere)
    unlabelled = interpolated(logits, (10, 14)).isnan().any(dim=0)
    assert torch.equal(larger.label == UNLABELLED, unlabelled)
    assert torch.equal(larger.confidence.isnan(), unlabelled)


def test_where_four_logits_agree_nothing_is_interpolated(monkeypatch):
    seen = []
    of_pixels = ScaledLogits._logits_at
    monkeypatch.setattr(ScaledLogits, "_logits_at", lambda self, pixels: seen.append(pixels) or of_pixels(self, pixels))
    logits = torch.zeros(1, 5, 48, 64)
    logits[:, 2, :, :32], logits[:, 3, :, 32:] = 1.0, 2.0
    label = ScaledLogits(logits, (480, 640)).label
    assert set(torch.cat(seen).remainder(640).tolist()) == set(range(315, 325))  # columns between the two classes
    assert set(label[:, :315].unique().tolist()) == {3}
    assert set(label[:, 325:].unique().tolist()) == {4}


def test_the_logits_of_a_large_image_never_exist_at_once(monkeypatch):
    seen = []
    most_probable = scaled_logits._most_probable
    monkeypatch.setattr(scaled_logits, "_most_probable", lambda rows: seen.append(len(rows)) or most_probable(rows))
    ScaledLogits(random_logits(), (500, 700), everywhere=True)
    assert sum(seen) == 500 * 700
    assert max(seen) == scaled_logits.PIXELS_AT_ONCE["cpu"]
