"""What a live run counts, when it stops, and what it says about itself."""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run `make build`")
pytest.importorskip("s4net_ros.msg", reason="the messages are not built: run `make build`")

from rich.console import Console

from s4net_core.config import Settings
from s4net_ros.replay import evaluation, report
from s4net_ros.replay.monitor import MAX_REPORTS, HandedOver, Record, StatusPoint
from s4net_ros.replay.plan import Limits, add_arguments, make_plan

NAN = math.nan
POINT = StatusPoint(0.0, "waiting", 0, 0, NAN, NAN, NAN, 0, 0, 0, NAN, NAN, NAN, NAN, NAN, NAN)


def point(step: int, handovers: int = 0, **values: object) -> StatusPoint:
    values = {"loss": 10.0 - step, "loss_source": 1.0, "loss_geometric": 2.0, "state": "learning", **values}
    return replace(POINT, seconds=step / 2, step=step, handovers=handovers, version=handovers, **values)


@pytest.fixture
def record() -> Record:
    """Steps 1 to 8, two versions handed over, then a refusal whose measurement must not count."""
    record = Record(frames=100, labelled=90, dropped={"segmentation": {"superseded": 10}, "adaptation": {}})
    for one in (
        POINT,
        *(point(step, keyframes=step) for step in range(1, 5)),
        point(5, 1, agreement=0.61, base_agreement=0.60),
        point(6, 1, agreement=0.61, base_agreement=0.60),
        point(7, 2, agreement=0.70, base_agreement=0.62),
        point(8, 2, agreement=0.10, base_agreement=0.63, refused=1, source_miou=0.3, base_source_miou=0.4),
    ):
        record.add(one)
    record.updates = [HandedOver(1.0, 0, "base", "a" * 64, NAN, NAN), HandedOver(2.5, 1, "one", "b" * 64, 0.4, 0.61)]
    record.last_refusal = "agreement fell"
    return record


def test_loss_is_a_mean_of_the_first_and_of_the_last_reports(record: Record) -> None:
    assert record.loss() == (pytest.approx((9 + 8 + 7 + 6) / 4), pytest.approx((5 + 4 + 3 + 2) / 4))


def test_a_step_that_is_reported_twice_counts_once() -> None:
    record = Record()
    for step in (1, 1, 3):
        record.add(point(step))
    assert record.loss() == (9.0, 7.0)


def test_agreement_is_of_the_last_weights_that_were_handed_over_not_of_refused_ones(record: Record) -> None:
    assert record.before_after("agreement") == (0.62, 0.70)
    assert all(map(math.isnan, record.before_after("source_miou")))


def test_a_run_of_days_is_recorded_in_bounded_memory_and_its_last_hand_over_is_known_exactly(record: Record) -> None:
    for step in range(9, 2 * 86_400):
        accepted = step == 100_000
        record.add(point(step, 2 + (step >= 100_000), agreement=0.8 if accepted else 0.1, base_agreement=0.62))
        assert record.status is not None
        assert record.status.step == step
    assert len(record.history.points) <= MAX_REPORTS
    assert record.history.points[0] == POINT
    assert record.before_after("agreement") == (0.62, 0.8)


def test_a_node_that_was_started_again_counts_from_zero(record: Record) -> None:
    record.add(point(9, 0))
    assert record.before_after("agreement") == (0.62, 0.70)
    record.add(point(10, 1, agreement=0.5, base_agreement=0.4))
    assert record.before_after("agreement") == (0.4, 0.5)


def test_nothing_measured_is_nan_and_none_in_json(tmp_path: Path) -> None:
    empty = Record()
    empty.add(POINT)
    assert all(map(math.isnan, (*empty.loss(), *empty.before_after("agreement"))))
    summary = report.summarise(empty, "interrupted", 3.0, tmp_path)
    report.write(summary, empty, tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert written["loss"] == {"first": None, "last": None}
    assert written["history"][0]["loss"] is None


def test_a_record_without_any_report_can_be_summarised(tmp_path: Path) -> None:
    summary = report.summarise(Record(), "interrupted", 3.0, tmp_path)
    assert summary["keyframes"] == 0
    assert summary["agreement"] == {"before": None, "after": None}


@pytest.mark.parametrize(
    ("limits", "seconds", "reason"),
    [
        (Limits(), 1e6, ""),
        (Limits(seconds=5), 4.9, ""),
        (Limits(seconds=5), 5.0, "5 seconds"),
        (Limits(versions=3, steps=9), 0.0, ""),
        (Limits(versions=2), 0.0, "2 versions handed over"),
        (Limits(steps=8), 0.0, "8 steps"),
    ],
)
def test_the_first_limit_that_is_reached_ends_the_run(
    record: Record, limits: Limits, seconds: float, reason: str
) -> None:
    assert limits.reached(record, seconds) == reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["bag"], "learning finished after 9 steps"),
        (["--seconds", "1000"], "learning finished after 9 steps"),
        ([], ""),
    ],
)
def test_a_learner_that_has_finished_ends_the_run_unless_a_camera_is_labelled_until_ctrl_c(
    record: Record, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str
) -> None:
    monkeypatch.setattr("s4net_ros.replay.plan._bag_transports", lambda *_: [])
    monkeypatch.setattr("s4net_ros.replay.plan._check_topics", lambda *_: None)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    record.add(point(9, 2, state="finished"))
    assert make_plan(parser.parse_args(words)).limits.reached(record, 1.0) == reason


def test_what_was_missed_is_named(record: Record) -> None:
    assert Limits(versions=3).missed(record) == "only 2 of 3 versions were handed over"
    assert Limits(steps=10).missed(record) == "only 8 of 10 steps were made"
    assert Limits(versions=2, steps=8, seconds=1).missed(record) == ""


def test_the_table_shows_every_number_that_matters(record: Record, tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=(tmp_path / "log").open("w"))
    console.print(report.table(report.summarise(record, "2 versions", 12.0, tmp_path)))
    text = console.export_text()
    for words in ("100", "90", "10 superseded", "0.620 -> 0.700", "7.500 -> 3.500", "1 (last: agreement fell)"):
        assert words in text


@pytest.mark.parametrize(
    ("labelled", "superseded", "shown"),
    [
        (100, {}, "0"),
        (90, {"superseded": 10}, "10: 10 superseded"),
        (90, {"superseded": 3}, "10: 7 overtaken or lost on the way, 3 superseded"),
    ],
)
def test_every_frame_without_a_mask_is_accounted_for(
    record: Record, tmp_path: Path, labelled: int, superseded: dict[str, int], shown: str
) -> None:
    record.labelled, record.dropped["segmentation"] = labelled, superseded
    assert ("frames dropped", shown) in report.rows(report.summarise(record, "2 versions", 12.0, tmp_path))


def test_the_panel_and_the_line_show_the_same_state(record: Record, tmp_path: Path) -> None:
    record.values = {"segmentation": {"message": "labelling"}}
    console = Console(width=120, record=True, file=(tmp_path / "log").open("w"))
    console.print(report.panel(record, 30.0, ""))
    panel, line = console.export_text(), report.line(record, 30.0, "")
    for words in ("100 in, 90 labelled (3.0/s)", "step 8", "version 2 (2 handed over, 1 refused)", "0.620 -> 0.700"):
        assert words in panel
        assert words in line
    assert "10 superseded" in panel
    assert "labelling" in panel


def test_a_run_without_a_labelled_scene_still_gets_its_page(record: Record, tmp_path: Path) -> None:
    settings = Settings(seed=7)
    (tmp_path / "before_after.png").write_bytes(b"of an earlier run")
    files = evaluation.write_pages(tmp_path, settings, record, [("frames in", "100")], None)
    assert files == list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    page = files[0].read_text()
    assert page.count("<img") == 3  # losses, agreement, hold-out
    assert "frames in" in page
    assert "seed" in page
