"""Depth errors, against torchmetrics, scikit-learn, a slow loop over pixels and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from s4net_core.errors import S4NetError, ShapeError
from s4net_core.evaluation.depth import DepthErrors


def random_pair(seed, shape=(12, 17)):
    """True depth 0.5..8 m with holes, and a prediction that is wrong by a random factor."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 8.0, shape).astype(np.float32)
    prediction = (truth * np.exp(rng.normal(0, 0.4, shape))).astype(np.float32)
    truth[rng.random(shape) < 0.2] = 0.0
    return truth, prediction


def slowly(pairs):
    """The definitions, one pixel after the other."""
    pixels = [
        (float(t), float(d)) for truth, answer in pairs for t, d in zip(truth.flat, answer.flat, strict=True) if t > 0
    ]
    n = len(pixels)
    deltas = [sum(max(t / d, d / t) < 1.25**power for t, d in pixels) / n for power in (1, 2, 3)]
    return [
        sum(abs(d - t) / t for t, d in pixels) / n,
        sum((d - t) ** 2 / t for t, d in pixels) / n,
        math.sqrt(sum((d - t) ** 2 for t, d in pixels) / n),
        math.sqrt(sum((math.log(d) - math.log(t)) ** 2 for t, d in pixels) / n),
        *deltas,
    ]


@pytest.fixture
def errors():
    return DepthErrors(0.1, 10.0)


def test_pooled_scores_equal_a_loop_over_all_pixels(errors):
    pairs = [random_pair(seed) for seed in range(3)]
    for pair in pairs:
        errors.add(*pair)
    assert list(errors.evaluation().pooled.as_dict().values()) == pytest.approx(slowly(pairs))


def test_per_image_scores_are_the_mean_of_each_image_s_own(errors):
    pairs = [random_pair(0), random_pair(1, (3, 90)), random_pair(2, (25, 4))]
    each = [errors.add(*pair) for pair in pairs]
    assert errors.add(np.zeros((4, 6), np.float32), np.ones((4, 6), np.float32)) is None
    found = errors.evaluation()
    assert found.frames == 3
    assert list(each[1].as_dict().values()) == pytest.approx(slowly(pairs[1:2]))
    assert list(found.per_image.as_dict().values()) == pytest.approx(np.mean([slowly([p]) for p in pairs], axis=0))
    assert found.per_image.rmse != pytest.approx(found.pooled.rmse)


def test_scores_equal_torchmetrics_and_sklearn_where_they_have_them(errors, sklearn_metrics, torchmetrics):
    truth, answer = random_pair(5)
    scores = errors.add(truth, answer)
    t, d = truth[truth > 0], answer[truth > 0]
    tensors = torch.from_numpy(d).double(), torch.from_numpy(t).double()
    assert scores.abs_rel == pytest.approx(torchmetrics.mean_absolute_percentage_error(*tensors).item())
    assert scores.rmse == pytest.approx(torchmetrics.mean_squared_error(*tensors, squared=False).item())
    # log1p(x - 1) = ln x
    assert scores.rmse_log == pytest.approx(
        math.sqrt(torchmetrics.mean_squared_log_error(*(x - 1 for x in tensors)).item())
    )
    weighted = sklearn_metrics.mean_squared_error(t, d, sample_weight=1 / t) * (1 / t.astype(np.float64)).mean()
    assert scores.sq_rel == pytest.approx(weighted, rel=1e-5)


def test_worked_example(errors):
    """1 m seen as 1.2, 2 m as 1 and 4 m as 8: factors of 1.2, 2 and 2."""
    scores = errors.add(np.array([[1, 2, 4]], np.float32), np.array([[1.2, 1, 8]], np.float32))
    assert scores.abs_rel == pytest.approx((0.2 + 0.5 + 1) / 3)
    assert scores.sq_rel == pytest.approx((0.04 + 0.5 + 4) / 3)
    assert scores.rmse == pytest.approx(math.sqrt((0.04 + 1 + 16) / 3))
    assert scores.rmse_log == pytest.approx(math.sqrt((math.log(1.2) ** 2 + 2 * math.log(2) ** 2) / 3))
    assert (scores.delta_1, scores.delta_2, scores.delta_3) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_a_factor_of_1_25_itself_is_too_much(errors):
    scores = errors.add(np.array([[1, 4]], np.float32), np.array([[1.25, 4]], np.float32))
    assert (scores.delta_1, scores.delta_2) == (0.5, 1.0)


def test_true_depth_scores_no_error(errors):
    truth, _ = random_pair(0)
    scores = errors.add(truth, np.maximum(truth, 0.1))
    assert list(scores.as_dict().values()) == [0, 0, 0, 0, 1, 1, 1]


def test_depth_outside_the_range_is_not_scored(errors):
    truth = np.array([[0.05, 2.0, 11.0]], np.float32)
    assert errors.add(truth, np.array([[9, 2, 1]], np.float32)).abs_rel == 0.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_prediction_that_is_no_depth_is_refused_where_it_counts(errors, bad):
    truth, prediction = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    prediction[0, 1] = bad
    with pytest.raises(S4NetError, match="positive and finite"):
        errors.add(truth, prediction)
    truth[0, 1] = 0.0
    assert errors.add(truth, prediction).rmse == 0.0


def test_sizes_that_differ_are_refused(errors):
    with pytest.raises(ShapeError, match="rescale"):
        errors.add(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32))


def test_nothing_known_is_refused_instead_of_scored(errors):
    with pytest.raises(S4NetError, match="no pixel of known depth"):
        errors.evaluation()
