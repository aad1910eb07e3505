"""`s4net label`: a network and a capture in; ids, pictures and annotations out, which are labels again."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scenes import make_room_frames

from s4net_core.cli.main import main
from s4net_core.config import ModelSettings, from_values
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.images.files import read_color
from s4net_core.io.label_files.labelme import read_labelme, write_labelme
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.labels import SUNRGBD37
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained network and a capture with ground truth."""
    folder = tmp_path_factory.mktemp("label")
    torch.manual_seed(0)
    save_checkpoint(folder / "weights", build_network(MODEL), CheckpointInfo(model=MODEL))
    write_scene_folder(folder / "room", make_room_frames(4, 80, 56), quality=100)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What the network answers to every frame."""
    segmenter = Segmenter(folder / "weights", "cpu", from_values({"model.width": 64, "model.height": 48}))
    return [segmenter.segment(frame.color) for frame in SceneFolder(folder / "room")]


def label(folder, output, *options, capture="room"):
    options = tuple(map(str, options))
    return main(
        ["label", f"{folder}/{capture}", str(output), "--checkpoint", f"{folder}/weights", "--device", "cpu", *options]
    )


@pytest.fixture(scope="module")
def labelled(folder, expected):
    assert label(folder, folder / "labelled", "--quality", 100) == 0
    return folder / "labelled"


def test_a_bag_of_a_camera_without_depth_is_labelled(folder, tmp_path):
    write_bag(folder / "colors", [replace(frame, depth=None) for frame in make_room_frames(3, 80, 56)])
    predicted = ("--set", "geometry.depth=predicted")
    assert label(folder, tmp_path / "out", "--write", *predicted, capture="colors") == 0
    read = list(open_capture(tmp_path / "out"))
    assert len(read) == 3
    assert all(frame.depth is None and frame.label is not None for frame in read)


def test_the_output_is_a_capture_with_the_networks_labels_and_all_else_as_it_was(folder, labelled, expected):
    read = list(open_capture(labelled))
    assert len(read) == 4
    for frame, original, answer in zip(read, SceneFolder(folder / "room"), expected, strict=True):
        assert np.array_equal(frame.label, answer.label)
        assert np.array_equal(frame.color, original.color)
        assert np.array_equal(frame.depth, original.depth)
        assert np.array_equal(frame.T_world_camera, original.T_world_camera)
        assert (frame.stamp, frame.intrinsics) == (original.stamp, original.intrinsics)


def test_ids_and_annotations_are_each_the_networks_labels(labelled, expected):
    for index, answer in enumerate(expected):
        ids = cv2.imread(str(labelled / f"label/{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(ids, answer.label)
        assert np.array_equal(read_labelme(labelled / f"labelme/{index:06d}.json", SUNRGBD37), answer.label)


def test_annotations_name_the_image_beside_them(labelled):
    content = json.loads((labelled / "labelme/000002.json").read_text())
    image = read_color(labelled / "labelme" / content["imagePath"])
    assert image.shape[:2] == (content["imageHeight"], content["imageWidth"]) == (56, 80)


def test_pictures_show_the_colours_of_the_classes(labelled, expected):
    color = SceneFolder(labelled)[1].color
    picture = read_color(labelled / "label_color/000001.png")
    assert np.array_equal(picture, SUNRGBD37.colorize(expected[1].label))
    overlay = read_color(labelled / "overlay/000001.jpg").astype(float)
    assert np.abs(overlay - (color.astype(float) + picture) / 2).mean() < 6


def test_the_output_is_a_source_set_too(labelled, expected):
    source = open_source_set(labelled, with_depth=True)
    assert len(source) == 4
    assert np.array_equal(source[3].label, expected[3].label)
    assert source[3].depth is not None


def test_what_is_corrected_by_hand_counts(labelled, tmp_path, expected):
    corrected = np.full((56, 80), 3, np.uint8)
    path = labelled / "labelme/000000.json"
    automatic = path.read_text()
    write_labelme(path, corrected, "../color/000000.png", SUNRGBD37)
    assert np.array_equal(open_capture(labelled)[0].label, corrected)
    path.write_text(automatic)


def test_a_network_is_evaluated_on_the_few_images_that_were_annotated(folder, tmp_path, expected):
    """As the paper's "Room": 20 images of a scan are annotated."""
    frames = [replace(frame, label=None) for frame in SceneFolder(folder / "room")]
    write_scene_folder(tmp_path / "room", frames, quality=100)
    wrong = expected[2].label.copy()
    wrong[:7], wrong[-7:] = 37, 0
    write_labelme(tmp_path / "room/annotations/000001.json", expected[1].label, "../color/000001.png", SUNRGBD37)
    write_labelme(tmp_path / "room/annotations/000002.json", wrong, "../color/000002.png", SUNRGBD37)
    files = ("--capture", f"{tmp_path}/room", "--checkpoint", f"{folder}/weights", "--json", f"{tmp_path}/out.json")
    assert main(["evaluate", *files, "--device", "cpu"]) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())["networks"].values()
    assert found["frames"] == 2
    assert found["per_image"]["pixel_accuracy"] == pytest.approx((1 + 42 / 49) / 2)


def test_only_what_is_asked_for_is_written(folder, tmp_path, expected):
    assert label(folder, tmp_path / "few", "--stride", 3, "--write", "overlay") == 0
    assert sorted(path.name for path in (tmp_path / "few").iterdir() if path.is_dir()) == [
        *("color", "depth", "label", "overlay")
    ]
    assert [frame.stamp for frame in open_capture(tmp_path / "few")] == [
        frame.stamp for frame in list(SceneFolder(folder / "room"))[::3]
    ]
    assert label(folder, tmp_path / "ids", "--write") == 0
    assert not (tmp_path / "ids/labelme").exists()
    assert np.array_equal(SceneFolder(tmp_path / "ids")[3].label, expected[3].label)


def test_uncertain_pixels_stay_unlabelled(folder, tmp_path, expected, capsys):
    threshold = float(np.median(expected[0].confidence))
    assert label(folder, tmp_path / "sure", "--min-confidence", threshold, "--quality", 100) == 0
    frames = list(open_capture(tmp_path / "sure"))
    for frame, answer in zip(frames, expected, strict=True):
        assert np.array_equal(frame.label, np.where(answer.confidence < np.float32(threshold), 0, answer.label))
    share = np.mean([frame.label != 0 for frame in frames])
    assert f"4 frames, {share:.1%} of the pixels labelled" in capsys.readouterr().out


def test_nothing_is_replaced_unless_forced_and_never_the_capture_itself(folder, tmp_path, capsys):
    assert label(folder, tmp_path / "out", "--write") == 0
    missing = ("--checkpoint", tmp_path / "gone")  # the output is looked at before a network is loaded
    assert label(folder, tmp_path / "out", "--write", *missing) == 2
    assert "--force" in capsys.readouterr().err
    assert label(folder, tmp_path / "out", "--write", "--force", "--stride", 2) == 0
    assert len(open_capture(tmp_path / "out")) == 2
    assert label(folder, folder / "room", "--force") == 2
    assert "holds the source" in capsys.readouterr().err


def test_a_failure_leaves_nothing_behind(folder, tmp_path, capsys):
    assert label(folder, tmp_path / "out", "--poses", "lost.txt") == 2
    assert label(folder, tmp_path / "out", "--min-confidence", 2) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_capture_without_poses_is_refused_as_the_help_says(folder, tmp_path, capsys):
    shutil.copytree(folder / "room", folder / "unposed")
    (folder / "unposed/poses.txt").unlink()
    assert label(folder, tmp_path / "out", capture="unposed") == 2
    assert "s4net register" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["label", "--help"])
    assert "capture of any format, with poses" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("option", [("--write", "film"), ("--stride", "0"), ("--quality", "0")])
def test_options_out_of_range_are_refused(folder, tmp_path, option):
    with pytest.raises(SystemExit):
        label(folder, tmp_path / "out", *option)
