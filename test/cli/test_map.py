"""`s4net map`: a network and a capture in; a map that the core loads, or a point cloud, and an honest score out."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import make_room_frames

from s4net_core.cli.main import EXIT_ERROR, main
from s4net_core.config import MapSettings, ModelSettings, from_values
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.keyframes import buffer_for
from s4net_core.labels import SUNRGBD37
from s4net_core.mapping import SemanticMap
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint
from s4net_core.models.segmenter import Segmenter

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained network, a capture with ground truth, and a bag of it without."""
    folder = tmp_path_factory.mktemp("map")
    torch.manual_seed(0)
    save_checkpoint(folder / "weights", build_network(MODEL), CheckpointInfo(model=MODEL))
    frames = make_room_frames(12, 80, 56)
    write_scene_folder(folder / "room", frames, quality=100)
    write_bag(folder / "bag", [replace(frame, label=None) for frame in frames])
    return folder


def map_it(folder, output, *options, capture="room"):
    weights = ("--checkpoint", f"{folder}/weights", "--device", "cpu")
    return main(["map", str(folder / capture), str(output), *weights, *options])


def test_the_map_is_that_of_the_keyframes_and_their_labels(folder, tmp_path, capsys):
    assert map_it(folder, tmp_path / "map.npz") == 0
    settings = from_values({"model.width": 64, "model.height": 48, "device": "cpu"})
    segmenter = Segmenter(folder / "weights", "cpu", settings)
    expected, keyframes = SemanticMap(SUNRGBD37, settings.map), buffer_for(settings, segmenter.depth)
    for frame in SceneFolder(folder / "room"):
        keyframes.offer(frame)
    for id in keyframes.ids():
        expected.set_label(id, segmenter.segment(keyframes.get(id).color).label)
    expected.update(keyframes)
    loaded = SemanticMap(SUNRGBD37, MapSettings())
    loaded.load(tmp_path / "map.npz")
    assert np.array_equal(loaded.points().xyz, expected.points().xyz)
    assert np.array_equal(loaded.points().label, expected.points().label)
    said = capsys.readouterr().out
    assert f"{len(expected)} voxels of {len(keyframes)} keyframes in " in said

    right, read_right, answered, pixels = 0, 0, 0, 0
    for frame in SceneFolder(folder / "room"):
        own = segmenter.segment(frame.color).label
        read = expected.read_back(frame.depth, frame.intrinsics, frame.T_world_camera)
        right += np.count_nonzero(own == frame.label)
        read_right += np.count_nonzero(np.where(read > 0, read, own) == frame.label)
        answered += np.count_nonzero(read)
        pixels += frame.label.size
    scores = [float(text) for text in re.findall(r"([\d.]+)%", said)]
    assert scores == pytest.approx([100 * n / pixels for n in (right, read_right, answered)], abs=0.06)


def test_a_bag_without_labels_becomes_a_point_cloud(folder, tmp_path, capsys):
    assert map_it(folder, tmp_path / "map.ply", capture="bag") == 0
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert int(re.search(r"(\d+) voxels", said)[1]) > 1000
    assert (tmp_path / "map.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex ")


def test_labels_of_other_classes_do_not_hinder_the_map(folder, tmp_path, capsys):
    write_scene_folder(tmp_path / "own", make_room_frames(4, 80, 56))
    (tmp_path / "own" / "classes.yaml").write_text("[zebra, giraffe]\n")
    assert map_it(folder, tmp_path / "map.npz", capture=tmp_path / "own") == 0
    said = capsys.readouterr().out
    assert "the map is not compared with labels" in said
    assert "zebra" in said


def test_a_full_map_says_what_to_raise(folder, tmp_path, capsys):
    assert map_it(folder, tmp_path / "map.npz", "--set", "map.max_voxels=1000") == 0
    said = capsys.readouterr().out
    assert "1000 voxels of" in said
    assert re.search(r"\d+ times a voxel was left out: raise map.max_voxels or map.voxel_size", said)


def test_what_cannot_become_a_map_is_said(folder, tmp_path, capsys):
    assert map_it(folder, tmp_path / "map.pcd") == EXIT_ERROR
    assert "ends neither in .npz nor in .ply" in capsys.readouterr().err
    assert map_it(folder, folder / "weights" / "map.npz", capture=tmp_path / "nowhere") == EXIT_ERROR
    assert "map.npz cannot be written" in capsys.readouterr().err
    frames = make_room_frames(3, 80, 56)
    for frame in frames:
        frame.depth[5:] = 0
    write_bag(tmp_path / "blind", frames)
    assert map_it(folder, tmp_path / "map.ply", capture=tmp_path / "blind") == EXIT_ERROR
    assert "no view became a keyframe" in capsys.readouterr().err
    assert not (tmp_path / "map.ply").exists()
