"""``s4net evaluate`` from the command line to the files that it writes."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from scenes import make_room_frames

from s4net_core import __version__
from s4net_core.cli.main import main
from s4net_core.config import ModelSettings
from s4net_core.experiments.provenance import data_sha256
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)


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
        ["evaluate", "--checkpoint", f"{folder}/adapted", "--capture", str(folder / capture), *always, *options]
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
    assert "is not accuracy" not in page
    assert "mIoU" in capsys.readouterr().out


def test_frames_that_do_not_count_are_told_with_the_reason_and_the_file(folder, tmp_path, capsys):
    shutil.copytree(folder / "room", tmp_path / "room")
    (tmp_path / "room/color/000003.jpg").write_bytes(b"cut off")
    files = ("--report", f"{tmp_path}/report.html", "--json", f"{tmp_path}/numbers.json", "--pictures", "0")
    assert evaluate(folder, tmp_path / "room", *files) == 0
    told = capsys.readouterr()
    assert re.search(r"left out: 1 (\w+), e\.g\. .*000003\.jpg", told.err)
    assert "left out" not in told.out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert sum(numbers["left_out"].values()) == 1
    assert numbers["networks"]["network"]["frames"] == 9
    assert re.search(r"left out: 1 \w+\.", (tmp_path / "report.html").read_text())


def test_numbers_carry_where_they_come_from(folder, tmp_path):
    files = ("--json", f"{tmp_path}/n.json", "--csv", f"{tmp_path}/n.csv", "--report", f"{tmp_path}/n.html")
    assert evaluate(folder, "room", "--seed", "3", *files) == 0
    origin = json.loads((tmp_path / "n.json").read_text())["provenance"]
    sha256 = hashlib.sha256((folder / "adapted").read_bytes()).hexdigest()
    assert origin["weights"] == {"network": sha256}
    assert origin["package"] == f"s4net {__version__}"
    assert origin["settings"]["seed"] == 3
    assert origin["settings"]["keyframes"]["min_sharpness"] == 0.0
    (room,) = origin["data"].values()
    assert room == data_sha256(folder / "room")
    for text in ((tmp_path / "n.csv").read_text(), (tmp_path / "n.html").read_text()):
        assert sha256[:12] in text
        assert room[:12] in text
    assert "Confusion: network" in (tmp_path / "n.html").read_text()


def test_network_with_a_depth_decoder_gets_depth_errors(folder, tmp_path, capsys):
    torch.manual_seed(0)
    model = MODEL.model_copy(update={"depth_decoder": True})
    save_checkpoint(tmp_path / "depth", build_network(model))
    always = ("--device", "cpu", "--capture", f"{folder}/room", "--json", f"{tmp_path}/n.json", "--markdown")
    assert main(["evaluate", "--checkpoint", f"{tmp_path}/depth", *always]) == 0
    found = json.loads((tmp_path / "n.json").read_text())["networks"]["network"]["depth"]
    assert found["frames"] == 10
    assert found["pooled"]["rmse"] > 0
    assert "| network | errors | AbsRel |" in capsys.readouterr().out


def test_networks_and_scenes_make_the_paper_s_table(folder, tmp_path, capsys):
    shutil.copy(folder / "adapted", tmp_path / "A.safetensors")
    shutil.copy(folder / "base", tmp_path / "B.safetensors")
    networks = ("--network", f"supervised={folder}/base", "--network", f"S4-Net={tmp_path}/{{scene}}.safetensors")
    scenes = ("--scene", f"A={folder}/room,{folder}/room", "--scene", f"B={folder}/room")
    assert main(["evaluate", *networks, *scenes, "--device", "cpu", "--markdown", "--out", f"{tmp_path}/out"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert sum(row.startswith("| A | DeepLabV3+ | S4-Net") for row in rows) == 3
    supervised, adapted = (
        [row.split("|")[4:] for row in rows if row.startswith(f"| B | DeepLabV3+ | {m} |")]
        for m in ("supervised", "S4-Net")
    )
    assert supervised == adapted  # scene B is measured with the base model's weights
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(r["method"], r["scene"], r["scan"]) for r in numbers["results"]] == [
        ("supervised", "A", "Scan 1"), ("supervised", "A", "Scan 2"), ("S4-Net", "A", "Scan 1"),
        ("S4-Net", "A", "Scan 2"), ("supervised", "B", "Scan 1"), ("S4-Net", "B", "Scan 1"),
    ]  # fmt: skip


def test_a_network_of_a_table_may_be_named_as_everywhere(folder, capsys):
    words = ["--network", "base=demo", "--scene", f"A={folder}/room", "--device", "cpu", "--markdown"]
    assert main(["evaluate", *words, "--set", "model.width=64", "--set", "model.height=48"]) == 0
    assert "| A | DeepLabV3+ | base |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give --checkpoint and --capture"),
        (["--network", "a=b"], "give --network and --scene"),
        (["--network", "a=b", "--scene", "room"], "--scene is 'room': write NAME=VALUE"),
        (["--network", "a=b", "--network", "a=c", "--scene", "a=b"], "--network names 'a' twice"),
        (["--network", "a=b", "--scene", "a=b", "--csv", "a.csv"], "--csv cannot go with --network and --scene"),
        (["--checkpoint", "a", "--capture", "b", "--out", "c"], "--out belongs to --network and --scene"),
        (["--network", "a=b", "--scene", "a=b", "--out", "/dev/null/c"], "results.md cannot be written"),
        (["--checkpoint", "a", "--capture", "b", "--report", "/dev/null/c.html"], "/dev/null/c.html cannot be written"),
    ],
)
def test_options_that_are_not_enough_or_have_no_effect_are_told(options, problem, capsys):
    assert main(["evaluate", *options]) == 2
    assert problem in capsys.readouterr().err


def test_capture_without_labels_gives_the_agreement_alone(folder, tmp_path, capsys):
    files = ("--json", f"{tmp_path}/numbers.json", "--report", f"{tmp_path}/report.html", "--pictures", "0")
    assert evaluate(folder, "unlabelled", *files, "--markdown") == 0
    assert "agreement between views is not accuracy" in (tmp_path / "report.html").read_text()
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
