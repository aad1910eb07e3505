"""The picture of a confusion matrix."""

import cv2
import numpy as np
import pytest

from s4net_core.errors import S4NetError
from s4net_core.evaluation.confusion import CELL, DOTS, confusion_png, row_shares
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.labels import SUNRGBD37


def test_rows_are_shares_of_the_true_class():
    """Class 2: three right, one without answer. Class 5 is only predicted."""
    matrix = ConfusionMatrix(SUNRGBD37)
    matrix.add(np.array([[2, 2, 2, 2, 3, 3]], np.uint8), np.array([[2, 2, 2, 0, 5, 3]], np.uint8))
    ids, shares = row_shares(matrix.counts)
    assert ids == [2, 3, 5]
    np.testing.assert_allclose(shares[:2], [[0.75, 0, 0, 0.25], [0, 0.5, 0.5, 0]])
    assert np.isnan(shares[2]).all()


@pytest.mark.parametrize("classes", [2, 9])
def test_picture_has_a_cell_for_each_class_that_occurs(classes):
    counts = np.zeros((37, 38), np.int64)
    counts[range(classes), range(1, classes + 1)] = 7
    height, width = cv2.imdecode(np.frombuffer(confusion_png("T", counts), np.uint8), cv2.IMREAD_COLOR).shape[:2]
    side = round(CELL * classes * DOTS)
    assert (width, height) == pytest.approx((side + 2.6 * DOTS, side + 1.9 * DOTS), abs=1)


def test_nothing_counted_is_refused():
    with pytest.raises(S4NetError, match="'T' is empty"):
        confusion_png("T", np.zeros((37, 38), np.int64))
