"""The comparison of S4-Net with its control: what is run, and the table that `s4net compare` prints."""

import math

import numpy as np

from s4net_core.config import from_values
from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.evaluate import Evaluation
from s4net_core.evaluation.metrics import SegmentationScores
from s4net_core.evaluation.tables import to_markdown
from s4net_core.experiments.comparison import comparison, comparison_table
from s4net_core.experiments.results import Result


def result(scan, method, miou, seed=None, agreement=math.nan):
    pooled, per_image = SegmentationScores(0.6, 0.0, miou, 0.0), SegmentationScores(0.0, 0.0, miou - 0.1, 0.0)
    evaluation = Evaluation(pooled, per_image, {}, 3, np.zeros((37, 38), np.int64))
    return Result("DeepLabV3+", method, "room", scan, evaluation, Agreement(agreement, 0, 0), seed=seed, versions=5)


def test_control_differs_from_s4net_in_the_losses_between_views_alone():
    given = {"learner.lambda_geometric": 0.5, "learner.neighbours": 2, "source.path": "~/source", "checkpoint": "base"}
    experiment = comparison(from_values(given), "room", {"room/scan2": "scan2"}, range(3, 5), poses="noisy.txt")
    s4net, control = (experiment.method_settings(method) for method in experiment.methods)
    assert (s4net.learner.lambda_geometric, control.learner.lambda_geometric) == (0.5, 0.0)
    assert control.learner.lambda_depth == 0.0
    control.learner.lambda_geometric, control.learner.lambda_depth = 0.5, s4net.learner.lambda_depth
    assert control == s4net == from_values({**given, "adaptation.offline_patience": 0})  # both make the same steps
    assert (experiment.bases, experiment.seeds) == ({"base": "base"}, (3, 4))
    assert not experiment.source.startswith("~")
    (scene,) = experiment.scenes
    assert (scene.capture, scene.scans, scene.poses) == ("room", {"room/scan2": "scan2"}, "noisy.txt")


def test_table_has_a_row_a_run_and_their_mean_and_range_scan_by_scan():
    results = [
        result(scan, "supervised", 0.31, agreement=agreement) for scan, agreement in (("a", 0.7), ("b", math.nan))
    ]
    for method, gain in (("S4-Net", 0.1), ("control (λ = 0)", 0.0)):
        for seed in (0, 1):
            results += [result(scan, method, 0.3 + gain + seed / 50, seed, 0.8) for scan in ("a", "b")]
    lines = to_markdown(comparison_table(results)).splitlines()
    assert lines[:6] == [
        "| scene | method | seed | pixel accuracy | mIoU | mIoU per image | agreement | versions (refused) |",
        "|---|---|---|---|---|---|---|---|",
        "| a | base | – | 0.600 | 0.310 | 0.210 | 0.700 | – |",
        "| a | S4-Net | 0 | 0.600 | 0.400 | 0.300 | 0.800 | 5 (0) |",
        "| a | S4-Net | 1 | 0.600 | 0.420 | 0.320 | 0.800 | 5 (0) |",
        "| a | S4-Net | mean (range) | **0.600** (0.600–0.600) | **0.410** (0.400–0.420) | **0.310** (0.300–0.320) "
        "| **0.800** (0.800–0.800) | |",
    ]
    assert [line.split(" | ")[:2] for line in lines[6:]] == [
        ["| a", "control (λ = 0)"], ["| a", "control (λ = 0)"], ["| a", "control (λ = 0)"], ["| b", "base"],
        ["| b", "S4-Net"], ["| b", "S4-Net"], ["| b", "S4-Net"], ["| b", "control (λ = 0)"],
        ["| b", "control (λ = 0)"], ["| b", "control (λ = 0)"],
    ]  # fmt: skip
    assert lines[9].endswith("| – | – |")


def test_a_single_run_has_no_mean():
    table = comparison_table([result("a", "S4-Net", 0.4, seed=0)])
    assert [row[2] for row in table.rows] == ["0"]
    assert table.rows[0][6] == "–"
