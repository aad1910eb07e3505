"""Every example runs on the demo's data, in shortened form, and says what its first lines promise."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from s4net_core.io.images.files import read_color
from s4net_core.models.checkpoint import read_info

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
ACCURACY, MIOU = re.search(r"\| base model \| (0\.\d+) \| (0\.\d+)", (ROOT / "README.md").read_text()).groups()
"""What README says of the base model."""


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """`run(name, *arguments)` as from the command line, in an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield start
    torch.set_num_threads(threads)


def test_segment_image(run):
    out = run("segment_image.py")
    assert "floor" in out
    assert "labels.png: labels of version 0" in out
    assert read_color(Path("labels.png")).shape == (180, 240, 3)


def test_evaluate_model(run):
    out = run("evaluate_model.py")
    assert "60 frames with labels" in out
    assert f"pooled: pixel accuracy {ACCURACY}" in out
    assert f"mIoU {MIOU}" in out
    assert "worst: " in out


def test_adapt_to_capture(run):
    out = run("adapt_to_capture.py", 2)
    assert "version 1: agreement between views 0." in out
    assert f"before: pixel accuracy {ACCURACY}, mIoU {MIOU}" in out
    assert "after : pixel accuracy" in out
    info = read_info("adapted.safetensors")
    assert (info.version, info.step) == (1, 2)


def test_own_frames(run):
    out = run("own_frames.py", 20, 1)
    assert "before: pixel accuracy" in out
    assert "after : pixel accuracy" in out


def test_there_is_a_test_for_every_example():
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} <= set(globals())
