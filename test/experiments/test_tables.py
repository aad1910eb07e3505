"""Tables in the paper's layout: which number stands where, and what is averaged over what."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from s4net_core.config import from_values
from s4net_core.errors import S4NetError
from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.depth import DepthErrors
from s4net_core.evaluation.evaluate import Evaluation
from s4net_core.evaluation.metrics import ConfusionMatrix, SegmentationScores
from s4net_core.experiments.provenance import Provenance, data_sha256, settings_of
from s4net_core.experiments.report import ExperimentReport, joined, write_experiment_report
from s4net_core.experiments.results import Result, ResultStore
from s4net_core.experiments.tables import (
    agreement_table,
    class_table,
    depth_table,
    seed_table,
    segmentation_table,
    summed_counts,
)
from s4net_core.labels import SUNRGBD37


def evaluation(value, seed=0):
    """Scores with distinct digits, and the counts of a small random image."""
    rng = np.random.default_rng(seed)
    matrix = ConfusionMatrix(SUNRGBD37)
    matrix.add(rng.integers(1, 4, (6, 9), np.uint8), rng.integers(0, 5, (6, 9), np.uint8))
    per_image, pooled = (SegmentationScores(v, v + 0.01, v + 0.02, v + 0.03) for v in (value, value + 0.005))
    return Evaluation(pooled, per_image, matrix.class_iou(), 1, matrix.counts)


def result(method="S4-Net", scene="A", scan="Scan 1", value=0.5, **more):
    more = {"network": "DeepLabV3+", "agreement": Agreement(value, 10, 2), **more}
    return Result(method=method, scene=scene, scan=scan, evaluation=evaluation(value, round(1000 * value)), **more)


def depth(errors=(0.1, 0.3)):
    sums = DepthErrors(0.1, 10)
    for error in errors:
        sums.add(np.full((2, 3), 2, np.float32), np.full((2, 3), 2 + error, np.float32))
    return sums.evaluation()


@pytest.fixture
def results():
    """Two methods on two scenes, each scanned twice; the scores are method + scene + scan."""
    return [
        result(method, scene, scan, m + s + n)
        for scene, s in (("A", 0.0), ("B", 0.2))
        for method, m in (("supervised", 0.1), ("S4-Net", 0.3))
        for scan, n in (("Scan 1", 0.0), ("Scan 2", 0.04))
    ]


class TestLayout:
    def test_rows_are_scenes_and_methods_and_their_mean_and_columns_the_scans(self, results):
        table = segmentation_table(results, "per_image")
        assert table.groups == [("", 3), ("Scan 1", 4), ("Scan 2", 4)]
        assert table.headings[3] == "Scan 1 pixel accuracy"
        assert table.headings[9] == "Scan 2 mIoU"
        assert [row[:3] for row in table.rows] == [
            [scene, "DeepLabV3+", method] for scene in ("A", "B", "mean") for method in ("supervised", "S4-Net")
        ]
        assert table.rows[3][3:] == pytest.approx([0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57])
        assert table.rows[5][5] == pytest.approx((0.32 + 0.52) / 2)

    def test_the_convention_is_named_and_is_the_one_shown(self, results):
        for convention, name, value in (("per_image", "per image", 0.1), ("pooled", "pooled", 0.105)):
            table = segmentation_table(results, convention)
            assert name in table.title
            assert table.rows[0][3] == pytest.approx(value)

    def test_seeds_are_averaged_before_scenes(self):
        """Scene A has seeds with 0.2 and 0.4, scene B one with 0.6: (0.3 + 0.6) / 2."""
        runs = [result(value=v, seed=i) for i, v in enumerate((0.2, 0.4))] + [result(scene="B", value=0.6, seed=0)]
        table = segmentation_table(runs, "per_image")
        assert [row[3] for row in table.rows] == pytest.approx([0.3, 0.6, 0.45])
        spread = seed_table(runs, "per_image")
        assert [row[2] for row in spread.rows] == ["0", "1"]
        assert [row[3] for row in spread.rows] == pytest.approx([(0.22 + 0.62) / 2, 0.42])
        assert seed_table(runs[:1], "per_image").rows == []

    def test_the_paper_s_numbers_stand_below_the_mean_of_their_method(self, results):
        published = {"DeepLabV3+": {"S4-Net": {"Scan 2": {"miou": 0.593}}}}
        table = segmentation_table(results, "per_image", published)
        assert table.rows[-1][:3] == ["paper", "DeepLabV3+", "S4-Net"]
        assert table.rows[-2][:3] == ["mean", "DeepLabV3+", "S4-Net"]
        assert table.rows[-1][9] == 0.593
        assert math.isnan(table.rows[-1][3])
        assert segmentation_table(results, "pooled", published).rows[-1][0] == "mean"
        alone = segmentation_table([r for r in results if r.scene == "A"], "per_image", published)
        assert [row[0] for row in alone.rows] == ["A", "A", "paper"]

    def test_networks_stand_below_each_other(self, results):
        both = [*results, result(network="PSPNet", value=0.7), result(network="PSPNet", scene="B", value=0.9)]
        rows = [row[:3] for row in segmentation_table(both, "per_image").rows]
        assert rows[-3:] == [
            ["mean", "DeepLabV3+", "supervised"],
            ["mean", "DeepLabV3+", "S4-Net"],
            ["mean", "PSPNet", "S4-Net"],
        ]

    def test_a_mean_over_scenes_of_which_one_is_missing_is_not_shown(self, results):
        table = segmentation_table([r for r in results if (r.scene, r.scan) != ("B", "Scan 2")], "per_image")
        assert not math.isnan(table.rows[-1][5])
        assert math.isnan(table.rows[-1][9])

    def test_depth_errors_are_shown_for_networks_that_predict_it(self, results):
        assert depth_table(results, "pooled").rows == []
        table = depth_table([*results, result("predicted", depth=depth())], "pooled")
        (row,) = (row for row in table.rows if row[0] == "A")
        assert row[:3] == ["A", "DeepLabV3+", "predicted"]
        assert row[3] == pytest.approx(0.1)  # 0.1 and 0.3 m of 2 m
        assert row[5] == pytest.approx(math.sqrt((0.01 + 0.09) / 2))
        assert depth_table([result(depth=depth())], "per_image").rows[0][5] == pytest.approx(0.2)

    def test_agreement_has_its_own_table(self, results):
        rows = agreement_table(results).rows
        assert rows[1] == ["A", "DeepLabV3+", "S4-Net", pytest.approx(0.3), pytest.approx(0.34)]

    def test_class_iou_is_that_of_all_scenes_together(self, results):
        table = class_table(results)
        assert table.groups == [("", 1), ("Scan 1", 2), ("Scan 2", 2)]
        second = [r for r in results if r.scan == "Scan 2"]
        counts = summed_counts(second, "DeepLabV3+", "S4-Net")
        both = [r for r in second if r.method == "S4-Net"]
        assert (counts == sum(r.evaluation.counts for r in both)).all()
        right, true, said = counts[1, 2], counts[1].sum(), counts[:, 2].sum()
        floor = next(row for row in table.rows if row[0] == "floor")
        assert floor[4] == pytest.approx(right / (true + said - right))


def test_results_survive_json(results):
    kept = [*results, result(value=0.7, depth=depth(), seed=3, weights="abc", agreement=Agreement(math.nan, 0, 0))]
    for one in kept:
        text = json.dumps(one.as_dict(), allow_nan=False)
        again = Result.from_dict(json.loads(text))
        assert json.dumps(again.as_dict()) == text
        assert again.evaluation == one.evaluation
        assert (again.evaluation.counts == one.evaluation.counts).all()
        assert again.depth == one.depth


class TestStore:
    """`ResultStore` makes each result once and reads it afterwards."""

    def test_results_are_made_once_for_what_they_follow_from(self, results, tmp_path):
        made = []

        def make():
            made.append(len(made))
            return results[:2]

        store = ResultStore(tmp_path / "runs")
        first = store.once({"seed": 1, "scans": {"Scan 1": "ab"}}, make)
        again = ResultStore(tmp_path / "runs").once({"scans": {"Scan 1": "ab"}, "seed": 1}, make)
        assert made == [0]
        assert [found.as_dict() for found in again] == [found.as_dict() for found in first]
        store.once({"seed": 2, "scans": {"Scan 1": "ab"}}, make)
        assert made == [0, 1]

    @pytest.mark.parametrize(
        "content", ["", "{}", '{"results": [{"network": "PSPNet"}]}', '{"results": [3]}', "[" * 9999]
    )
    def test_a_damaged_file_is_made_again(self, results, tmp_path, content):
        store = ResultStore(tmp_path)
        store.once({"seed": 1}, lambda: results)
        (file,) = tmp_path.iterdir()
        file.write_text(content)
        assert len(store.once({"seed": 1}, lambda: results[:1])) == 1
        assert len(store.once({"seed": 1}, list)) == 1

    def test_what_fails_leaves_nothing(self, tmp_path):
        def fail():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ResultStore(tmp_path / "runs").once({}, fail)
        assert not (tmp_path / "runs").exists()


def test_a_score_that_was_not_measured_is_nan():
    known = result(value=0.4, depth=depth())
    assert known.score("miou", "per_image") == pytest.approx(0.42)
    assert known.score("miou") == pytest.approx(0.425)
    assert known.score("abs_rel") == pytest.approx(0.1)
    assert known.score("agreement") == 0.4
    assert math.isnan(result().score("abs_rel"))


class TestProvenance:
    def test_hash_follows_names_and_contents(self, tmp_path):
        def folder(name, **files):
            for file, text in files.items():
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / file).write_text(text)
            return data_sha256(tmp_path / name)

        first = folder("a", x="1", y="2")
        assert folder("b", y="2", x="1") == first
        assert len({first, folder("c", x="1", z="2"), folder("d", x="1", y="3"), folder("e", x="12", y="")}) == 4
        for name in ("f", "g"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "linked").symlink_to(tmp_path / {"f": "c", "g": "d"}[name])
        assert data_sha256(tmp_path / "f") != data_sha256(tmp_path / "g")
        with pytest.raises(S4NetError, match="does not exist"):
            data_sha256(tmp_path / "nothing")

    def test_settings_that_change_numbers_are_told_and_paths_are_not(self):
        settings = from_values({"learner.neighbours": 8, "checkpoint": "/home/somebody/base", "threads": 3})
        told = settings_of(settings)
        assert told["learner"]["neighbours"] == 8
        assert not {"checkpoint", "state_dir", "threads", "device", "source", "cockpit", "map"} & set(told)
        assert told["adaptation"]["max_steps"] == 0
        origin = Provenance.of(settings, weights={"base": "ab" * 32}, data={})
        assert origin.settings == told
        assert origin.shown()["weights: base"] == "sha256 abababababab"
        assert origin.shown()["learner.neighbours"] == 8
        assert "learner.merge" not in origin.shown()

    def test_settings_without_effect_leave_the_provenance_as_it_is(self):
        without = {"cockpit.token": "secret", "adaptation.niceness": 3, "pretrain.workers": 0, "registration.loops": 1}
        paths = {"checkpoint": "/home/somebody/base", "source.path": "/home/somebody/images"}
        changed = Provenance.of(from_values(without | paths | {"seed": 4}), weights={}, data={})
        plain = Provenance.of(from_values({"seed": 4}), weights={}, data={})
        assert (changed.settings, changed.changed) == (plain.settings, {"seed": 4})


class TestFiles:
    @pytest.fixture
    def report(self, results):
        predicted = result("predicted", value=0.45, depth=depth())
        origin = Provenance({"seed": 4}, {"learner.neighbours": 8}, (4,), {"base": "ab" * 32}, {"room": "cd" * 32})
        published = {"DeepLabV3+": {"S4-Net": {"Scan 1": {"miou": 0.59}}}}
        return ExperimentReport(
            "Two rooms", [predicted, *results], {"Two rooms": origin}, published, ["On <two> rooms."]
        )

    def test_all_formats_say_the_same_and_where_it_comes_from(self, report, tmp_path):
        write_experiment_report(tmp_path, report)
        markdown, page = ((tmp_path / name).read_text() for name in ("results.md", "results.html"))
        assert "| mean | DeepLabV3+ | S4-Net | 0.400 |" in markdown
        assert "| paper | DeepLabV3+ | S4-Net | – | – | 0.590 |" in markdown
        assert "per image" in markdown
        assert "pooled" in markdown
        for text in (markdown, page):
            assert "learner.neighbours" in text
            assert "abababababab" in text
        assert "<th colspan=4 class=group>Scan 2</th>" in page
        for method in ("supervised", "S4-Net"):
            assert f"<h2>Confusion: DeepLabV3+, {method}, Scan 2</h2>" in page
        lines = (tmp_path / "results.csv").read_text().splitlines()
        comments = [line for line in lines if line.startswith("#")]
        assert "# Two rooms: data: room: sha256 cdcdcdcdcdcd" in comments
        rows = list(csv.DictReader(lines[len(comments) :]))
        (mean,) = (r for r in rows if (r["scores"], r["scene"], r["method"]) == ("per_image", "mean", "S4-Net"))
        assert float(mean["Scan 2 mIoU"]) == pytest.approx(0.46)
        lines = (tmp_path / "runs.csv").read_text().splitlines()
        assert lines[: len(comments)] == comments
        runs = list(csv.DictReader(lines[len(comments) :]))
        for run, expected in zip(runs, report.results, strict=True):
            assert (run["method"], run["scene"], run["scan"]) == (expected.method, expected.scene, expected.scan)
            assert float(run["mIoU"]) == expected.score("miou")
            assert run["seed"] == ("" if expected.seed is None else str(expected.seed))
        assert (runs[0]["RMSE [m]"] != "", runs[1]["RMSE [m]"]) == (True, "")
        numbers = json.loads((tmp_path / "results.json").read_text())
        assert numbers["provenance"]["Two rooms"]["data"] == {"room": "cd" * 32}
        assert numbers["provenance"]["Two rooms"]["settings"] == {"seed": 4}
        assert len(numbers["results"]) == len(report.results)
        assert (tmp_path / "depth.csv").is_file()

    def test_confusions_are_of_the_scan_that_comes_last_and_not_of_the_last_name(self, report, results, tmp_path):
        more = [result(scene="C", scan=scan) for scan in ("walk 2", "walk 10")]
        write_experiment_report(tmp_path, replace(report, results=[*results, *more]))
        page = (tmp_path / "results.html").read_text()
        assert "<h2>Confusion: DeepLabV3+, S4-Net, Scan 2, walk 10</h2>" in page

    def test_reports_of_one_table_are_joined_without_repetition(self, report, results):
        other = ExperimentReport("PSPNet", [result(network="PSPNet"), results[0]], {"PSPNet": Provenance({}, {})})
        joint = joined("Both", [report, other])
        assert len(joint.results) == len(report.results) + 1
        assert list(joint.provenance) == ["Two rooms", "PSPNet"]
        assert joint.published == report.published
        assert joined("Both", [report]) is report

    @pytest.mark.parametrize(
        ("first", "second", "both"), [("own", "", "own"), ("own", "own", "own"), ("own", "other", ""), ("", "", "")]
    )
    def test_a_joined_report_compares_with_what_its_parts_compare_with(self, report, first, second, both):
        parts = [replace(report, control=name, oracle=name) for name in (first, second)]
        joint = joined("Both", parts)
        assert (joint.control, joint.oracle) == (both, both)

    def test_a_folder_that_cannot_be_written_is_named(self, report, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(S4NetError, match="cannot be written"):
            write_experiment_report(tmp_path / "file", report)
