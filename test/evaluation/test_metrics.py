"""The four scores, against scikit-learn, torchmetrics and numbers worked out by hand."""

import numpy as np
import pytest
import torch

from s4net_core.errors import S4NetError, ShapeError
from s4net_core.evaluation.metrics import ConfusionMatrix, class_iou
from s4net_core.labels import LabelSpace


def confusion_matrix(classes, no_class=()):
    """Of so many classes."""
    names = tuple(f"class {id}" for id in range(1, classes + 1))
    return ConfusionMatrix(LabelSpace("test", names, ((0, 0, 0),) * classes, no_class=frozenset(no_class)))


def random_pair(seed, classes=5, shape=(20, 31), used=None):
    """Labels 0..classes (0 = unlabelled) and predictions that are right two times out of three."""
    rng = np.random.default_rng(seed)
    label = rng.choice(used or np.arange(classes + 1), shape).astype(np.uint8)
    noise = rng.integers(1, classes + 1, shape)
    prediction = np.where((rng.random(shape) < 0.66) & (label > 0), label, noise).astype(np.uint8)
    return label, prediction


def test_pooled_scores_equal_sklearn_on_the_labelled_pixels(sklearn_metrics):
    pairs = [random_pair(seed) for seed in range(4)]
    matrix = confusion_matrix(5)
    for pair in pairs:
        matrix.add(*pair)
    label = np.concatenate([true[true > 0] for true, _ in pairs])
    answer = np.concatenate([predicted[true > 0] for true, predicted in pairs])
    scores = matrix.pooled()
    assert scores.pixel_accuracy == pytest.approx(sklearn_metrics.accuracy_score(label, answer))
    assert scores.mean_accuracy == pytest.approx(sklearn_metrics.balanced_accuracy_score(label, answer))
    assert scores.miou == pytest.approx(sklearn_metrics.jaccard_score(label, answer, average="macro"))
    assert scores.fwiou == pytest.approx(sklearn_metrics.jaccard_score(label, answer, average="weighted"))


def test_pooled_scores_equal_torchmetrics(torchmetrics):
    label, answer = random_pair(0)
    matrix = confusion_matrix(5)
    matrix.add(label, answer)
    true, predicted = torch.from_numpy(label).long() - 1, torch.from_numpy(answer).long() - 1
    kwargs = {"num_classes": 5, "average": "macro", "ignore_index": -1}
    scores = matrix.pooled()
    assert scores.mean_accuracy == pytest.approx(
        torchmetrics.classification.multiclass_accuracy(predicted, true, **kwargs).item()
    )
    assert scores.miou == pytest.approx(
        torchmetrics.classification.multiclass_jaccard_index(predicted, true, **kwargs).item()
    )


def images_of(counts, rng):
    """Two images whose pixels together have these counts, each pixel in one of them at random."""
    true, predicted = np.nonzero(counts)
    true, predicted = (np.repeat(ids, counts[np.nonzero(counts)]).astype(np.uint8) for ids in (true, predicted))
    first = rng.random(true.size) < 0.4
    return [((true[part] + 1)[None], (predicted[part] + 1)[None]) for part in (first, ~first)]


def by_sklearn(sklearn_metrics, label, answer):
    """The four scores over the classes that are true somewhere."""
    label, answer = label.ravel(), answer.ravel()
    present = np.unique(label)
    iou = sklearn_metrics.jaccard_score(label, answer, labels=present, average=None)
    recall = sklearn_metrics.recall_score(label, answer, labels=present, average="macro", zero_division=0)
    frequency = np.array([(label == id).mean() for id in present])
    return [sklearn_metrics.accuracy_score(label, answer), recall, iou.mean(), (frequency * iou).sum()]


@pytest.mark.parametrize("seed", range(6))
def test_random_confusion_matrices_score_as_in_sklearn_and_torchmetrics(sklearn_metrics, torchmetrics, seed):
    """7 classes; in some of the matrices one is never true, one never predicted, one neither."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, (7, 7)) + np.diag(rng.integers(0, 200, 7))
    if seed % 2:
        counts[2] = 0
        counts[:, 3] = 0
        counts[4], counts[:, 4] = 0, 0
    images = images_of(counts, rng)
    matrix = confusion_matrix(7)
    for image in images:
        matrix.add(*image)
    np.testing.assert_array_equal(matrix.counts[:, 1:], counts)
    label, answer = (np.concatenate(parts, axis=1) for parts in zip(*images, strict=True))
    assert list(matrix.pooled().as_dict().values()) == pytest.approx(by_sklearn(sklearn_metrics, label, answer))
    per_image = np.mean([by_sklearn(sklearn_metrics, *image) for image in images], axis=0)
    assert list(matrix.per_image_mean().as_dict().values()) == pytest.approx(per_image)
    true, predicted = (torch.from_numpy(ids).long() - 1 for ids in (label, answer))
    iou = torchmetrics.classification.multiclass_jaccard_index(predicted, true, num_classes=7, average="none")
    assert matrix.class_iou() == pytest.approx({i + 1: iou[i].item() for i in range(7) if counts[i].sum()}, abs=1e-6)
    assert class_iou(matrix.counts) == matrix.class_iou()


def test_per_image_scores_equal_those_of_torchmetrics_for_each_image(torchmetrics):
    pairs = [random_pair(seed, used=[1, 2, 3, 4, 5]) for seed in range(3)]
    matrix = confusion_matrix(5)
    for pair in pairs:
        matrix.add(*pair)
    label, answer = (torch.from_numpy(np.stack(part)).long() - 1 for part in zip(*pairs, strict=True))
    ious = torchmetrics.segmentation.mean_iou(answer, label, num_classes=5, per_class=False, input_format="index")
    assert matrix.per_image_mean().miou == pytest.approx(ious.mean().item(), abs=1e-6)


def test_worked_example():
    """Class 1: 3 of 4 right, class 2: 1 of 2 right; class 3 is predicted once but never true."""
    matrix = confusion_matrix(3)
    matrix.add(np.array([[1, 1, 1, 1], [2, 2, 0, 255]], np.uint8), np.array([[1, 1, 1, 3], [2, 1, 2, 2]], np.uint8))
    scores = matrix.pooled()
    assert scores.pixel_accuracy == pytest.approx(4 / 6)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.miou == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert scores.fwiou == pytest.approx((4 * 3 / 5 + 2 * 1 / 2) / 6)
    assert matrix.class_iou() == pytest.approx({1: 3 / 5, 2: 1 / 2})


def test_per_image_scores_are_averaged_over_images_with_labels():
    pairs = [random_pair(1), random_pair(2, shape=(7, 90)), random_pair(3, used=[2])]
    matrix = confusion_matrix(5)
    each = [matrix.add(*pair) for pair in pairs]
    unlabelled = np.zeros((4, 6), np.uint8)
    assert matrix.add(unlabelled, unlabelled + 1) is None
    assert matrix.images == 3
    mean = matrix.per_image_mean()
    assert mean.miou == pytest.approx(np.mean([scores.miou for scores in each]))
    assert mean.fwiou == pytest.approx(np.mean([scores.fwiou for scores in each]))
    assert mean.miou != pytest.approx(matrix.pooled().miou)
    alone = confusion_matrix(5)
    alone.add(*pairs[1])
    assert each[1] == alone.pooled()


def test_what_lies_under_unlabelled_pixels_never_counts():
    label, answer = random_pair(0)
    changed = answer.copy()
    changed[label == 0] = 200
    with_255 = np.where(label == 0, 255, label).astype(np.uint8)
    scores = []
    for true, predicted in ((label, answer), (label, changed), (with_255, answer)):
        matrix = confusion_matrix(5)
        scores.append(matrix.add(true, predicted))
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("no_answer", [0, 255])
def test_labelled_pixel_without_answer_is_wrong(no_answer):
    matrix = confusion_matrix(3)
    matrix.add(np.array([[1, 1, 2]], np.uint8), np.array([[1, no_answer, 2]], np.uint8))
    assert matrix.pooled().pixel_accuracy == pytest.approx(2 / 3)
    assert matrix.class_iou() == pytest.approx({1: 1 / 2, 2: 1.0})


def test_what_means_no_class_counts_as_unlabelled_in_the_truth_and_as_no_answer_in_the_prediction():
    matrix = confusion_matrix(3, no_class=[3])
    matrix.add(np.array([[1, 1, 2, 3, 3]], np.uint8), np.array([[1, 3, 2, 3, 1]], np.uint8))
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_perfect_answer_scores_1():
    label, _ = random_pair(0)
    matrix = confusion_matrix(5)
    assert set(matrix.add(label, label).as_dict().values()) == {1.0}


def test_ids_outside_the_label_space_are_refused():
    matrix = confusion_matrix(5)
    good, bad = np.ones((2, 3), np.uint8), np.full((2, 3), 6, np.uint8)
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(S4NetError, match=r"class id 6 .* 5 classes"):
            matrix.add(*pair)
    assert matrix.images == 0


def test_sizes_that_differ_are_refused():
    with pytest.raises(ShapeError, match="rescale"):
        confusion_matrix(5).add(np.ones((2, 3), np.uint8), np.ones((3, 2), np.uint8))


def test_nothing_labelled_is_refused_instead_of_scored():
    matrix = confusion_matrix(5)
    for score in (matrix.pooled, matrix.per_image_mean):
        with pytest.raises(S4NetError, match="no labelled pixel"):
            score()


@pytest.mark.parametrize("wrong", [np.full((2, 2), -1), np.ones((2, 2))])
def test_what_is_no_class_id_is_refused(wrong):
    good = np.ones((2, 2), np.uint8)
    for label, prediction in ((wrong, good), (good, wrong)):
        with pytest.raises(S4NetError, match="class ids are uint8, 0 = none"):
            confusion_matrix(3).add(label, prediction)
