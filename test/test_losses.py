"""Losses against slow NumPy versions written separately."""

import numpy as np
import pytest
import torch

from s4net_core.errors import S4NetError
from s4net_core.losses import geometric_loss, median_frequency_weights, supervised_loss


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
