"""Methods over rooms: gains, intervals and ranks against numbers worked out by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.evaluate import Evaluation
from s4net_core.evaluation.metrics import SegmentationScores
from s4net_core.evaluation.tables import to_markdown
from s4net_core.experiments.results import Learning, Point, Result
from s4net_core.experiments.rooms import bootstrap, curves_png, rank_correlation, rank_table, room_table, rooms_table


def scored(miou, accuracy=0.5):
    scores = SegmentationScores(accuracy, 0.5, miou, 0.5)
    return Evaluation(scores, scores, {1: miou}, 1, np.zeros((37, 38), np.int64))


def result(method, scene, miou, seed=None, learning=None, unseen=math.nan, base="b"):
    agreement = Agreement(math.nan, 0, 0)
    return Result(
        "N", method, scene, "Scan 2", scored(miou), agreement, seed=seed, base=base, unseen=unseen, learning=learning
    )


def curve(*mious, judged=None, seconds=10.0):
    judged = judged or mious
    points = [
        Point(10 * n, seconds * n, miou, 0.5, {"score": score}, True)
        for n, (miou, score) in enumerate(zip(mious, judged, strict=True), start=1)
    ]
    return Learning(seconds * len(mious), tuple(points), 0.75, 1.0)


@pytest.fixture
def results():
    """Two rooms; the method gains .1 and .02 in its two seeds of room A, and loses .04 in room B."""
    return [
        result("base", "A", 0.30, unseen=0.50),
        result("ours", "A", 0.40, 0, curve(0.35, 0.42, 0.40), unseen=0.49),
        result("ours", "A", 0.32, 1, curve(0.32), unseen=0.47),
        result("control", "A", 0.31, 0, curve(0.31), unseen=0.5),
        result("truth", "A", 0.50, 0, curve(0.50), unseen=0.5),
        result("base", "B", 0.20, unseen=0.50),
        result("ours", "B", 0.16, 0, curve(0.16), unseen=0.48),
        result("control", "B", 0.19, 0, curve(0.19), unseen=0.5),
        result("truth", "B", 0.30, 0, curve(0.30), unseen=0.5),
    ]


def row(table, method):
    (found,) = (cells for cells in table.rows if cells[0] == method)
    return dict(zip(table.columns, found, strict=True))


def test_the_room_is_the_unit(results):
    ours = row(rooms_table(results, "control", "truth"), "ours")
    assert ours["mIoU gain"] == pytest.approx((0.06 - 0.04) / 2)  # not the mean of three runs
    assert (ours["wins"], ours["worst run"]) == ("2 of 3", pytest.approx(-0.04))
    assert ours["over control"] == pytest.approx(((0.06 - 0.01) + (-0.04 + 0.01)) / 2)
    assert ours["share of oracle"] == pytest.approx(0.01 / 0.15)
    assert ours["unseen places"] == pytest.approx(-0.02)
    assert ours["regret"] == pytest.approx((0.02 + 0.0 + 0.04) / 3)  # in B the base model would have been best
    assert ours["s to 90 %"] == pytest.approx((20 + 10) / 2)  # .39 is passed at the second hand-over; B has no gain


def test_an_oracle_without_gain_is_no_ceiling(results):
    kept = [replace(r, evaluation=scored({"A": 0.3, "B": 0.2}[r.scene])) if r.method == "truth" else r for r in results]
    ours = row(rooms_table(kept, "control", "truth"), "ours")
    assert math.isnan(ours["share of oracle"])
    assert ours["mIoU gain"] == pytest.approx(0.01)


def test_methods_without_a_base_model_of_their_network_are_compared_with_nothing(results):
    others = [replace(r, network="M") if r.method in ("control", "truth") else r for r in results]
    ours = row(rooms_table(others, "control", "truth"), "ours")
    assert math.isnan(ours["over control"])
    assert math.isnan(ours["share of oracle"])


def test_few_rooms_give_no_interval(results):
    table = rooms_table(results)
    assert table.title.startswith("Over the rooms (2 rooms, pooled scores of their last scans, ")
    assert math.isnan(row(table, "ours")["95 % from"])
    more = [
        result(method, scene, miou, seed)
        for scene, gain in (("C", 0.1), ("D", 0.2), ("E", 0.3))
        for method, miou, seed in (("base", 0.2, None), ("ours", 0.2 + gain, 0))
    ]
    ours = row(rooms_table([*results, *more]), "ours")
    assert -0.04 < ours["95 % from"] < ours["mIoU gain"] < ours["to"] < 0.3


def test_the_note_says_what_the_numbers_do_not(results):
    """Weights of one's own have no learning and no judge, so the base model is not kept there."""
    learned = Learning(1.0)
    given = [result("mine", scene, miou, 0) for scene, miou in (("A", 0.3), ("B", 0.2))]
    served = [replace(r, versions=int(r.scene == "A")) if r.learning else r for r in results] + given
    note = rooms_table(served).note
    assert note == (
        "An interval needs 5 rooms. The base model was kept, which counts as a gain of 0: "
        "ours in 1 of 3 runs, control in 1 of 2 runs, truth in 1 of 2 runs."
    )
    assert note in to_markdown(rooms_table(served))
    rooms = [(name, seed, found) for name in "ABCDE" for seed, found in ((None, None), (0, learned))]
    many = [replace(result("ours", name, 0.3, seed, found), versions=1) for name, seed, found in rooms]
    assert not rooms_table(many).note


def test_each_room_has_a_row(results):
    table = room_table(results)
    assert row(table, "A")["ours"] == pytest.approx(0.06)
    assert row(table, "B")["base"] == pytest.approx(0.20)


def test_a_single_room_gives_no_table_over_rooms(results):
    assert not rooms_table([r for r in results if r.scene == "A"]).rows


def test_the_interval_of_equal_values_is_that_value_and_of_others_holds_the_mean():
    assert bootstrap([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1))
    low, high = bootstrap([0.0, 0.1, 0.2, 0.3])
    assert 0.0 < low < 0.15 < high < 0.3
    assert bootstrap([0.0, 0.1, 0.2, 0.3]) == (low, high)


@pytest.mark.parametrize(
    ("judged", "expected"), [((1, 2, 3), 1.0), ((3, 2, 1), -1.0), ((1, 1, 1), math.nan), ((1, 2, 2), 0.866)]
)
def test_ranks_are_compared_and_ties_share_theirs(judged, expected):
    points = curve(0.1, 0.2, 0.3, judged=judged).curve
    assert rank_correlation(points, "score") == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_all_methods_of_a_room_are_ranked_together(results):
    (cells,) = rank_table(results).rows
    assert cells[0] == "score"
    assert cells[1] == pytest.approx(1.0)


def test_what_is_stored_comes_back(results):
    for one in results:
        again = Result.from_dict(json.loads(json.dumps(one.as_dict(), allow_nan=False)))
        assert again.learning == one.learning
        assert again.unseen == pytest.approx(one.unseen, nan_ok=True)
    unknown = result("ours", "A", 0.4, 0, Learning(1.0, (Point(1, 1.0, 0.4, 0.5, {"score": math.nan}, True),)))
    again = Result.from_dict(json.loads(json.dumps(unknown.as_dict(), allow_nan=False)))
    assert math.isnan(again.unseen)
    assert math.isnan(again.learning.label_accuracy)
    assert math.isnan(again.learning.curve[0].metrics["score"])


def test_the_figure_is_a_picture(results):
    assert curves_png(results).startswith(b"\x89PNG")
