"""``s4net evaluate`` from the command line to the files that it writes."""

import json
from dataclasses import replace

import pytest
import torch
from scenes import make_room_frames

from s4net_core.cli.main import main
from s4net_core.config import ModelSettings
from s4net_core.io.scene_folder import write_scene_folder
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint

MODEL = ModelSettings(encoder="tu-mobilenetv3_small_100", encoder_weights="none", width=64, height=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks and a capture with and without labels."""
    folder = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("base", "adapted")):
        torch.manual_seed(seed)
        save_checkpoint(folder / name, build_network(MODEL), CheckpointInfo(model=MODEL, version=seed))
    frames = make_room_frames(10)
    write_scene_folder(folder / "room", frames)
    write_scene_folder(folder / "unlabelled", [replace(frame, label=None) for frame in frames])
    write_scene_folder(folder / "nothing", [replace(frame, label=None, depth=None) for frame in frames])
    return folder


def evaluate(folder, capture, *options):
    always = ("--device", "cpu", "--set", "keyframes.min_sharpness=0.0")
    return main(
        ["evaluate", "--checkpoint", f"{folder}/adapted", "--capture", f"{folder}/{capture}", *always, *options]
    )


def test_two_networks_are_compared_in_json_and_report(folder, tmp_path, capsys):
    files = ("--report", f"{tmp_path}/report.html", "--json", f"{tmp_path}/numbers.json", "--pictures", "2")
    assert evaluate(folder, "room", "--baseline", f"{folder}/base", *files) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert list(numbers["networks"]) == ["base", "adapted"]
    for version, found in enumerate(numbers["networks"].values()):
        assert found["version"] == version
        assert found["frames"] == 10
        assert set(found["pooled"]) == set(found["per_image"]) == {"pixel_accuracy", "mean_accuracy", "miou", "fwiou"}
        assert "wall" in found["class_iou"]
        assert 0 <= found["agreement"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figcaption>before") == page.count("<figcaption>changes") == 2
    assert f"{numbers['networks']['adapted']['pooled']['miou']:.3f}" in page
    assert "mIoU" in capsys.readouterr().out


def test_capture_without_labels_gives_the_agreement_alone(folder, tmp_path, capsys):
    assert evaluate(folder, "unlabelled", "--json", f"{tmp_path}/numbers.json", "--markdown") == 0
    (found,) = json.loads((tmp_path / "numbers.json").read_text())["networks"].values()
    assert "pooled" not in found
    assert found["agreement_pixels"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert "| network | agreement | pixels | pairs of views |" in lines


def test_capture_in_which_nothing_can_be_measured_is_an_error(folder, capsys):
    assert evaluate(folder, "nothing") == 2
    assert "neither labels nor overlapping views" in capsys.readouterr().err


def test_missing_weights_are_an_error_that_names_the_file(folder, capsys):
    assert evaluate(folder, "room", "--baseline", f"{folder}/none") == 2
    assert f"{folder}/none cannot be read" in capsys.readouterr().err
