"""Losses against slow NumPy versions written separately."""

import numpy as np
import pytest
import torch

from s4net_core.errors import S4NetError
from s4net_core.losses import (
    depth_supervised_loss,
    geometric_loss,
    median_frequency_weights,
    photometric_loss,
    supervised_loss,
)


def slow_cross_entropy(logits, labels, weights):
    """Σ w·ce / Σ w over labelled pixels, one pixel after another."""
    total = weight_sum = 0.0
    for b, y, x in np.ndindex(labels.shape):
        c = labels[b, y, x]
        if c == 0:
            continue
        scores = logits[b, :, y, x].astype(np.float64)
        log_probability = scores[c - 1] - np.log(np.exp(scores - scores.max()).sum()) - scores.max()
        total -= weights[c - 1] * log_probability
        weight_sum += weights[c - 1]
    return total / weight_sum


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 5, 4, 7)).astype(np.float32)
    labels = rng.integers(0, 6, (2, 4, 7))
    return logits, labels, rng.uniform(0.2, 5, 5).astype(np.float32)


def test_supervised_loss_is_the_weighted_mean_over_labelled_pixels(case):
    logits, labels, weights = case
    loss = supervised_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights))
    assert float(loss) == pytest.approx(slow_cross_entropy(logits, labels, weights), rel=1e-5)


def test_geometric_loss_is_unweighted_and_counts_valid_pixels_only(case):
    logits, labels, _ = case
    valid = np.random.default_rng(4).random((2, 1, 4, 7)) > 0.4
    loss = geometric_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(valid))
    assert float(loss) == pytest.approx(
        slow_cross_entropy(logits, np.where(valid[:, 0], labels, 0), np.ones(5)), rel=1e-5
    )


def test_geometric_loss_can_be_weighted_by_class(case):
    logits, labels, weights = case
    valid = np.random.default_rng(4).random((2, 1, 4, 7)) > 0.4
    loss = geometric_loss(*map(torch.tensor, (logits, labels, valid, weights)))
    assert float(loss) == pytest.approx(slow_cross_entropy(logits, np.where(valid[:, 0], labels, 0), weights), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_soft_labels_that_are_certain_are_hard_labels(case, weighted):
    logits, labels, weights = map(torch.tensor, case)
    certain = torch.nn.functional.one_hot(labels.clamp(min=1) - 1, 5).permute(0, 3, 1, 2).float()
    valid = (labels > 0)[:, None] & (torch.rand(2, 1, 4, 7, generator=torch.Generator().manual_seed(0)) > 0.4)
    chosen = weights if weighted else None
    hard, soft = (geometric_loss(logits, merged, valid, chosen) for merged in (labels, certain))
    torch.testing.assert_close(soft, hard)


def test_soft_labels_count_by_their_probability(case):
    logits = torch.tensor(case[0], requires_grad=True)
    probabilities = torch.rand(2, 5, 4, 7, generator=torch.Generator().manual_seed(1)).softmax(1)
    valid = torch.rand(2, 1, 4, 7, generator=torch.Generator().manual_seed(2)) > 0.4
    total = 0.0
    for b, y, x in np.argwhere(valid[:, 0].numpy()):
        scores = case[0][b, :, y, x].astype(np.float64)
        total -= (probabilities[b, :, y, x].numpy() * (scores - np.log(np.exp(scores).sum()))).sum()
    loss = geometric_loss(logits, probabilities, valid)
    assert float(loss.detach()) == pytest.approx(total / int(valid.sum()), rel=1e-5)
    loss.backward()
    assert torch.equal((logits.grad.abs().sum(1, keepdim=True) > 0), valid)


def test_depth_loss_is_the_mean_difference_in_metres_where_depth_is_known():
    predicted = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]], requires_grad=True)
    truth = torch.tensor([[[[1.5, 0.0, 3.0], [0.0, 4.0, -1.0]]]])
    loss = depth_supervised_loss(predicted, truth)
    assert float(loss.detach()) == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    depth_supervised_loss(predicted, torch.zeros_like(truth)).backward()
    assert torch.equal(predicted.grad, torch.zeros_like(truth))


def slow_photometric(image, warped, valid):
    """0.85 (1 - SSIM) / 2 + 0.15 |difference|, one pixel and colour after another, over whole valid 3x3 windows."""
    errors = []
    _, _, height, width = image.shape
    for b, y, x in np.ndindex(len(image), height, width):
        rows, columns = slice(y - 1, y + 2), slice(x - 1, x + 2)
        if not (0 < y < height - 1 and 0 < x < width - 1) or not valid[b, 0, rows, columns].all():
            continue
        for c in range(3):
            p, q = image[b, c, rows, columns].ravel(), warped[b, c, rows, columns].ravel()
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            ssim = (2 * p.mean() * q.mean() + 0.01**2) * (2 * covariance + 0.03**2)
            ssim /= (p.mean() ** 2 + q.mean() ** 2 + 0.01**2) * (p.var() + q.var() + 0.03**2)
            errors.append(0.85 * (1 - ssim) / 2 + 0.15 * abs(image[b, c, y, x] - warped[b, c, y, x]))
    return np.mean(errors)


def test_photometric_loss_equals_the_slow_one_and_reads_nothing_that_is_not_valid():
    rng = np.random.default_rng(5)
    image, warped = rng.random((2, 2, 3, 9, 14))
    valid = rng.random((2, 1, 9, 14)) > 0.1
    loss = photometric_loss(*map(torch.tensor, (image, warped, valid)))
    assert float(loss) == pytest.approx(slow_photometric(image, warped, valid), rel=1e-9)
    other = np.where(valid, warped, 7.0)
    assert float(photometric_loss(*map(torch.tensor, (image, other, valid)))) == pytest.approx(float(loss), rel=1e-9)


def test_equal_images_have_no_photometric_loss_and_without_valid_pixels_there_is_none():
    image = torch.rand(1, 3, 6, 9)
    assert float(photometric_loss(image, image, torch.ones(1, 1, 6, 9, dtype=torch.bool))) == pytest.approx(0, abs=1e-6)
    warped = torch.rand(1, 3, 6, 9, requires_grad=True)
    loss = photometric_loss(image, warped, torch.zeros(1, 1, 6, 9, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(warped.grad, torch.zeros_like(warped))


def test_nothing_labelled_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(1, 3, 2, 5, requires_grad=True)
    nothing = torch.zeros(1, 2, 5, dtype=torch.int64)
    loss = supervised_loss(logits, nothing, torch.ones(3)) + geometric_loss(
        logits, nothing + 1, torch.zeros(1, 1, 2, 5, dtype=torch.bool)
    )
    loss.backward()
    assert float(loss) == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_median_frequency_weights_by_hand():
    # class 1: 6 of (8 + 4) pixels; class 2: 2 of 8; class 3: 4 of ... images that contain it
    first = np.array([[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 0, 0]], np.uint8)
    second = np.array([[3, 3, 3, 3]], np.uint8)
    weights = median_frequency_weights([first, second], 4)
    frequency = np.array([6 / 8, 2 / 8, 4 / 4])
    assert weights[:3].numpy() == pytest.approx(np.median(frequency) / frequency)
    assert weights[3] == 1.0


def test_median_frequency_weights_refuse_a_set_without_labels():
    with pytest.raises(S4NetError, match="no image of the source set"):
        median_frequency_weights([np.zeros((3, 4), np.uint8)], 4)


@pytest.mark.parametrize("soft", [False, True])
def test_nothing_to_learn_from_is_no_loss_in_half_precision_either(soft):
    """The logits of a few images add up to more than float16 holds."""
    logits = torch.full((1, 37, 48, 64), 10.0, dtype=torch.float16, requires_grad=True)
    nothing = torch.zeros(1, 48, 64, dtype=torch.int64)
    merged = torch.zeros(1, 37, 48, 64) if soft else nothing
    loss = supervised_loss(logits, nothing, torch.ones(37))
    loss = loss + geometric_loss(logits, merged, torch.zeros(1, 1, 48, 64, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("known", [0, 3])
def test_depth_that_is_no_number_counts_as_none(known):
    truth = torch.full((1, 1, 4, 6), torch.nan)
    truth[0, 0, 0, :known] = 2.0
    depth = torch.full((1, 1, 4, 6), 3.0, requires_grad=True)
    loss = depth_supervised_loss(depth, truth)
    loss.backward()
    assert loss == (1.0 if known else 0.0)
    assert torch.isfinite(depth.grad).all()
    assert int((depth.grad != 0).sum()) == known
