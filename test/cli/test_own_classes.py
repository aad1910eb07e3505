"""Five classes of a user's own through the commands: pre-training, adaptation, labelling, measuring, packing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from own_classes import NAMES, REST, five_classes, five_frames, five_images, write_five
from scenes import BED, CABINET, FLOOR, make_source_images
from scenes import write_source_set as write_37

from s4net_core import adapt, evaluate, load_model
from s4net_core.cli.main import main
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.label_files.labelme import write_labelme
from s4net_core.io.source_sets.files import write_source_set
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.labels import SUNRGBD37
from s4net_core.models.checkpoint import read_info

SETTINGS = {
    "device": "cpu",
    "model": {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": 64, "height": 48},
    "learner": {"source_batch": 2, "target_batch": 2, "neighbours": 2},
    "guard": {
        "holdout": 2,
        "agreement_views": 3,
        "max_source_drop": 1.0,
        "max_score_drop": 1.0,
        "max_class_share": 1.0,
    },
    "adaptation": {"min_keyframes": 4, "handover_every": 2, "max_steps": 2},
    "pretrain": {"steps": 3, "batch": 2, "workers": 0},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """File of classes, source set, capture, settings, and a network that was trained with them."""
    place = tmp_path_factory.mktemp("own")
    write_five(place)
    for number, image in enumerate(five_images(6)):  # as a user has it: no file says what the ids mean
        write_source_set(place / "source" / str(number), [image])
    write_scene_folder(place / "room", five_frames(16, seed=5))
    (place / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["pretrain", "source", "base", "--settings", "small.yaml", "--classes", "warehouse.yaml"]) == 0
    return place


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)


def test_pretraining_puts_them_into_the_weights():
    info = read_info("base")
    assert (info.label_space.name, info.label_space.names, info.label_space.no_class) == ("warehouse", NAMES, {REST})
    assert info.label_space.colors[1] == (200, 120, 40)


def test_they_go_on_through_adaptation_labelling_and_measuring(tmp_path, capsys):
    given = ["--settings", "small.yaml", "--checkpoint", "base"]
    assert main(["adapt", "room", str(tmp_path / "adapted"), "--source", "source", *given]) == 0
    assert read_info(tmp_path / "adapted").label_space == read_info("base").label_space
    files = ["--json", f"{tmp_path}/numbers.json", "--report", f"{tmp_path}/report.html"]
    assert main(["evaluate", "--capture", "room", *given, *files]) == 0
    assert "floor" in capsys.readouterr().out
    scored = json.loads((tmp_path / "numbers.json").read_text())["networks"]["network"]["class_iou"]
    assert set(scored) <= set(NAMES[:4])  # what means no class has no score
    report = (tmp_path / "report.html").read_text()
    assert "rgb(10, 20, 30)" in report
    assert "warehouse" in report
    assert "cabinet" not in report
    assert main(["label", "room", str(tmp_path / "labelled"), *given]) == 0
    again = list(open_capture(tmp_path / "labelled"))  # by the names in LabelMe's files, and classes.yaml
    assert all(frame.label.max() <= 4 for frame in again)
    shapes = [json.loads(file.read_text())["shapes"] for file in (tmp_path / "labelled" / "labelme").iterdir()]
    assert {shape["label"] for all_of_one in shapes for shape in all_of_one} <= {*NAMES[:4], "unlabelled"}


def test_the_python_interface_uses_them_too(tmp_path):
    model = load_model("base", **{**SETTINGS, "pretrain": {}})
    assert adapt(model, "room", "source").info.label_space == model.info.label_space
    assert evaluate(model, "room").names == NAMES


def test_other_labelled_data_lead_to_them_by_name_or_are_refused(tmp_path, capsys):
    frames = [replace(i, label=np.where(i.label == FLOOR, i.label, 0)) for i in make_source_images(4)]
    write_37(tmp_path / "floors", frames)
    named = tmp_path / "floors" / "classes.yaml"
    named.write_text("[wall, floor]")
    five = read_info("base").label_space
    assert set(np.unique(open_source_set(tmp_path / "floors", label_space=five).label(0))) == {0, 1}
    named.write_text("[wall, carpet]")
    words = ["adapt", "room", str(tmp_path / "out"), "--source", str(tmp_path / "floors"), "--checkpoint", "base"]
    assert main([*words, "--settings", "small.yaml"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "'floors' (2 classes: wall, carpet) cannot be used with classes 'warehouse' (5 classes: floor," in told
    assert "no counterpart of carpet" in told


def test_a_training_that_goes_on_from_weights_keeps_their_classes(tmp_path, capsys):
    words = ["pretrain", "source", str(tmp_path / "w"), "--from", "base", "--settings", "small.yaml"]
    assert main(words) == 0
    assert read_info(tmp_path / "w").label_space == read_info("base").label_space
    assert main([*words, "--force", "--classes", "warehouse.yaml"]) == 2
    assert "--classes warehouse.yaml was given with --from: leave it out" in " ".join(capsys.readouterr().err.split())
    assert main(["pretrain", "source", "base", "--from", "base", "--settings", "small.yaml", "--force"]) == 2
    assert "output base is the file that --from names: name another one" in " ".join(capsys.readouterr().err.split())


def test_a_packed_set_knows_its_classes(tmp_path, capsys):
    write_source_set(tmp_path / "five", five_images(3), label_space=five_classes(tmp_path))
    assert main(["pack", str(tmp_path / "five"), str(tmp_path / "five.s4pack"), "--settings", "small.yaml"]) == 0
    source = open_source_set(tmp_path / "five.s4pack")
    assert (source.label_space.name, source.label_space.names) == ("warehouse", NAMES)
    words = ["pretrain", str(tmp_path / "five.s4pack"), str(tmp_path / "w"), "--settings", "small.yaml"]
    assert main([*words, "--set", "guard.holdout=1"]) == 2  # without --classes: SUN RGB-D 37
    told = " ".join(capsys.readouterr().err.split())
    assert "'warehouse' (5 classes: floor, pallet, rack, person, rest) cannot be used with classes 'sunrgbd37'" in told
    assert main([*words, "--set", "guard.holdout=1", "--classes", "warehouse.yaml"]) == 0


def test_converted_labels_keep_their_classes(tmp_path):
    write_source_set(tmp_path / "five", five_images(2), label_space=five_classes(tmp_path))
    words = ["convert", str(tmp_path / "five"), str(tmp_path / "small"), "--format", "source-set", "--size", "32x24"]
    assert main(words) == 0
    assert open_source_set(tmp_path / "small").label_space.names == NAMES


def test_annotations_name_them(tmp_path):
    image = five_images(1)[0]
    (tmp_path / "a").mkdir()
    write_source_set(tmp_path / "a" / "set", [image])
    five = read_info("base").label_space
    write_labelme(tmp_path / "a/set/labelme/000000.json", image.label, "../color/000000.jpg", five)
    assert np.array_equal(open_source_set(tmp_path / "a", label_space=five).label(0), image.label)


def test_labels_that_a_learner_does_not_use_are_not_read(tmp_path):
    write_scene_folder(tmp_path / "room", five_frames(2))
    (tmp_path / "room" / "classes.yaml").write_text("[something, else]")
    capture = open_capture(tmp_path / "room", label_space=SUNRGBD37, with_labels=False)
    assert [frame.label for frame in capture] == [None, None]


def test_measuring_networks_of_different_classes_is_refused(tmp_path, capsys):
    write_37(tmp_path / "s", make_source_images(4))
    assert main(["pretrain", str(tmp_path / "s"), str(tmp_path / "37"), "--settings", "small.yaml"]) == 0
    words = ["evaluate", "--capture", "room", "--checkpoint", "base", "--settings", "small.yaml"]
    assert main([*words, "--baseline", str(tmp_path / "37")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "'adapted' has the classes 'warehouse' (5 classes" in told
    assert "'base' has 'sunrgbd37' (37 classes" in told


def test_a_bad_file_of_classes_ends_the_command_with_its_reason(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("[floor, floor]")
    assert main(["pretrain", "source", str(tmp_path / "w"), "--classes", str(tmp_path / "bad.yaml")]) == 2
    assert "'floor' names two classes" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "w").exists()


def test_furniture_is_what_the_room_is_labelled_with():
    """The premise of this module: its room has pixels of the classes that are learned."""
    labels = np.concatenate([image.label.ravel() for image in make_source_images(6)])
    assert {FLOOR, CABINET, BED} <= set(labels.tolist())
