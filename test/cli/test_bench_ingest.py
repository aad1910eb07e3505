"""`s4net bench ingest` reads the same images in both ways."""

import pytest

from s4net_core.bench import ingest
from s4net_core.cli.main import main
from s4net_core.errors import CaptureError


def test_rates_of_both_transports_stand_beside_raw_reading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ingest, "FRAMES", 4)
    rows = ingest.bench_ingest(repeats=1)
    assert [row.name.partition(":")[0] for row in rows] == ["raw images"] * 2 + ["JPEG and PNG"] * 2
    for raw, ours in (rows[:2], rows[2:]):
        assert raw.ratio is None
        assert ours.ratio == pytest.approx(ours.value / raw.value)
    assert main(["bench", "ingest", "--repeats", "1"]) == 0
    assert "JPEG and PNG: frames of the bag" in " ".join(capsys.readouterr().out.split())


def test_frames_that_are_missing_are_not_taken_for_speed() -> None:
    with pytest.raises(CaptureError, match=f"3 of {ingest.FRAMES} frames"):
        ingest._rate(iter("abc"))
