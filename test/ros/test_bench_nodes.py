"""`s4net bench live --learning`, `start` and `soak`: their numbers, and one short run of each with a tiny network."""

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the nodes need rclpy")
pytest.importorskip("s4net_ros.msg", reason="messages are not built: run `make build`")

from scenes import make_room_frames, make_source_images, write_source_set

from s4net_core.cli import bench as command
from s4net_core.cli.main import main
from s4net_core.files import share_file
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_ros.replay import bench_learning, bench_soak, bench_start
from s4net_ros.replay.bench_learning import Turn
from s4net_ros.replay.bench_soak import Memory
from s4net_ros.replay.bench_start import Start
from s4net_ros.replay.monitor import Record, StatusPoint

SETTINGS = """
model: {encoder: tu-test_resnet, encoder_weights: none, width: 64, height: 48}
learner: {source_batch: 2, target_batch: 2, neighbours: 2}
guard: {holdout: 2, agreement_views: 4, max_source_drop: 1.0, max_score_drop: 1.0, max_class_share: 1.0,
        min_class_ratio: 0.0}  # after refusals the learner rests
adaptation: {min_keyframes: 4, handover_every: 2, duty_cycle: 0.5, niceness: 0}
stream: {color_reliability: reliable, depth_reliability: reliable}
threads: 1
"""


@pytest.fixture
def bench(tmp_path: Path, checkpoint: Path) -> Callable[..., str]:
    """`bench(module, number, changes)`: what a bench prints with a tiny network and capture, in one line."""
    settings, source, capture = (tmp_path / name for name in ("settings.yaml", "source", "capture"))
    settings.write_text(SETTINGS)
    write_source_set(source, make_source_images(8))
    write_scene_folder(capture, make_room_frames(24, 96, 72))

    def run(module: str, number: float, changes: str = "pass") -> str:
        program = f"import sys; from s4net_ros.replay import {module} as bench; {changes}; sys.exit(bench.main())"
        given = [settings, number, capture, f"checkpoint={checkpoint}", f"source.path={source}"]
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, given)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.replace("│", " ").split())

    return run


def test_labels_are_compared_with_those_of_the_turn_before() -> None:
    off = [Turn(10.0, [0.1] * 100, 0.0), Turn(20.0, [0.1] * 100, 0.0), Turn(40.0, [0.1] * 100, 0.0)]
    on = [Turn(9.0, [0.1] * 96 + [0.4] * 4, 1.0), Turn(18.0, [0.2] * 100, 2.0), Turn(20.0, [0.2] * 100, 3.0)]
    rate, kept, median, median_on, slow, slow_on, steps = bench_learning.rows(off, on)
    assert (rate.value, kept.value, kept.ratio) == (20.0, 18.0, pytest.approx(0.9))
    assert (median.value, median_on.value, median_on.ratio) == tuple(map(pytest.approx, (100.0, 200.0, 0.5)))
    assert (slow.value, slow_on.value, slow_on.ratio) == tuple(map(pytest.approx, (100.0, 400.0, 0.25)))
    assert steps.value == 2.0


def test_labels_are_measured_beside_a_learner_that_learns(ros: Any, bench: Callable[..., str]) -> None:
    text = bench("bench_learning", 3, "bench.ROUNDS = bench.SETTLE = 1")
    assert "learner off" in text
    assert "learner on, goal 0.67 times at least" in text
    assert float(text.partition("steps of the learner")[2].split()[0]) > 0


def test_what_the_parts_do_not_explain_is_the_nodes_own() -> None:
    parts = [{"Python": 1.0, "PyTorch": 2.0}, {"Python": 1.0, "PyTorch": 4.0}, {"Python": 1.0, "PyTorch": 2.5}]
    whole, process, *rows = bench_start.rows([Start(6.0, 5.0), Start(9.0, 8.0), Start(7.0, 5.5)], parts)
    assert (whole.value, process.value) == (7.0, 5.5)
    assert "6.0 to 9.0" in whole.name
    assert [row.value for row in rows] == [1.0, 2.5, pytest.approx(2.0)]


def test_the_start_is_timed_with_its_parts(ros: Any, bench: Callable[..., str]) -> None:
    text = bench("bench_start", 1)
    for words in (
        "to the first mask",
        "torch._dynamo, which torchvision loads",
        "first image",
        "parameters and topics",
    ):
        assert words in text


def test_scipy_is_not_loaded_before_the_first_mask() -> None:
    program = (
        "import sys, s4net_ros.segmentation_node, s4net_core.models.base_model_file, s4net_core.models.segmenter; "
        "print([name for name in sys.modules if name.partition('.')[0] == 'scipy'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_that_grows_after_the_warm_up_is_told_and_what_caches_take_before_is_not() -> None:
    times = list(range(0, 900, 15))
    first = len(times) // 3
    flat = [Memory(pss=min(n, first) * 1_000_000 + 80_000_000, rss=90_000_000) for n in range(len(times))]
    leaking = [Memory(pss=100_000_000 + 1000 * t, rss=200_000_000) for t in times]
    record = Record(frames=7)
    for seconds, keyframes in ((100.0, 3), (301.0, 5), (800.0, 9)):
        record.add(_point(seconds=seconds, keyframes=keyframes))
    table = {row.name: row for row in bench_soak.rows(times, {"flat": flat, "leaking": leaking}, record)}
    rises = {name.partition(",")[0]: row.value for name, row in table.items() if "rise" in name}
    assert rises["flat: PSS"] == pytest.approx(0.0, abs=1e-6)
    assert rises["leaking: PSS"] == pytest.approx(100 * 585_000 / 100_300_000)
    assert rises["leaking: RSS"] == pytest.approx(0.0, abs=1e-6)
    assert table["leaking: PSS, rise in 0.65 h of the bag, goal 2 at most, +0.6 MB"].unit == "%"
    assert table["frames in the whole run"].value == 7
    assert table["keyframes at the end; 5 after the warm-up"].value == 9


def _point(**values: Any) -> StatusPoint:
    return StatusPoint(**{**dict.fromkeys((field.name for field in fields(StatusPoint)), 0), **values})


def test_memory_is_that_of_the_process() -> None:
    def grown() -> tuple[int, int]:
        before = bench_soak.memory_of(os.getpid())
        fresh = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # malloc may have room left
        np.frombuffer(fresh, np.uint8)[:] = 1
        after = bench_soak.memory_of(os.getpid())
        return after.rss - before.rss, after.pss - before.pss

    expected = pytest.approx((64 << 20, 64 << 20), rel=0.1)
    # PSS also changes when another process that shares libraries, e.g. of another test, starts or ends meanwhile.
    assert any(grown() == expected for _ in range(20))


def test_a_soak_plays_the_capture_again_and_again(ros: Any, bench: Callable[..., str]) -> None:
    text = bench("bench_soak", 0.1, "bench.SAMPLES = 6")
    for name in ("segmentation", "adaptation", "player"):
        assert f"{name}: PSS, rise in 0.0" in text
    assert float(text.partition("frames in the whole run")[2].split()[0]) > 24


def test_each_case_starts_its_own_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[list[str]] = []

    class Started(Exception):
        pass

    def execv(program: str, words: list[str]) -> None:
        started.append(words[2:5])
        raise Started

    monkeypatch.setattr(command.os, "execv", execv)
    demo = str(share_file("demo", "demo.yaml"))
    for words in (["live"], ["live", "--learning"], ["start", "--repeats", "3"], ["soak", "--minutes", "2"]):
        with pytest.raises(Started):
            main(["bench", *words])
    names = ("bench", "bench_learning", "bench_start", "bench_soak")
    numbers = ("20", "20", "3", "2")
    assert started == [[f"s4net_ros.replay.{name}", demo, n] for name, n in zip(names, numbers, strict=True)]
    assert main(["bench", "stream", "--learning"]) == 2
    assert "--learning belongs to the case live, not to stream" in capsys.readouterr().err
