"""`s4net pretrain`, `adapt`, `compare` and `bench step` as a user runs them, on a tiny network and room."""

import re
import shutil
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from scenes import make_room_frames, make_source_images, write_source_set

from s4net_core.bench.step import _rows
from s4net_core.cli.main import main
from s4net_core.config import from_values
from s4net_core.errors import S4NetError
from s4net_core.files import FolderLock
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.images.files import write_color, write_label
from s4net_core.keyframes.store import read
from s4net_core.models.checkpoint import load_checkpoint, read_info
from s4net_core.models.predict import predict_labels

SETTINGS = {
    "device": "cpu",
    "model": {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": 64, "height": 48},
    # With so small a rate, new weights of this untrained network score as the old ones, and are handed over.
    "learner": {"source_batch": 2, "target_batch": 2, "neighbours": 2, "learning_rate": 1e-5},
    "guard": {"holdout": 2, "agreement_views": 3, "max_source_drop": 1.0, "max_score_drop": 1.0},
    "adaptation": {"min_keyframes": 4, "handover_every": 2, "max_steps": 4},
    "pretrain": {"steps": 4, "batch": 2, "workers": 0},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with all that the commands need, and a copy in which `s4net pretrain` has made a base model."""
    data, trained = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("trained")
    write_source_set(data / "source", make_source_images(6))
    write_scene_folder(data / "room", make_room_frames(20, seed=5))
    write_scene_folder(data / "second", make_room_frames(4, seed=5))
    (data / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    shutil.copytree(data, trained, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        assert main(["pretrain", "source", "base.safetensors", "--settings", "small.yaml"]) == 0
    return data, trained


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    """A copy of the prepared folder; commands run inside it."""
    shutil.copytree(prepared[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def base(prepared, place):
    """The base model of the prepared folder, with what belongs to it."""
    shutil.copytree(prepared[1], place, dirs_exist_ok=True)
    return place / "base.safetensors"


GIVEN = ["--checkpoint", "base.safetensors", "--source", "source", "--settings", "small.yaml"]


def test_pretrain_writes_a_base_model_with_its_metrics(base):
    info = read_info(base)
    assert (info.version, info.step, info.parent) == (0, 4, "")
    assert 0 <= info.metrics["source_miou"] <= 1
    assert info.model.encoder == SETTINGS["model"]["encoder"]


def test_pretrain_is_repeatable(base, place):
    assert main(["pretrain", "source", "again.safetensors", "--settings", "small.yaml"]) == 0
    assert read_info(place / "again.safetensors").metrics == read_info(base).metrics


def test_pretrain_in_half_precision_is_half_the_size(base, place):
    assert main(["pretrain", "source", "half.safetensors", "--settings", "small.yaml", "--half"]) == 0
    assert (place / "half.safetensors").stat().st_size < 0.6 * base.stat().st_size


def test_pretrain_measures_on_the_official_test_images(place, capsys):
    for split, count in (("train", 5), ("test", 3)):
        for number, image in enumerate(make_source_images(count, seed=40)):
            for name in ("image", "label37"):
                (place / "sun" / name / split).mkdir(parents=True, exist_ok=True)
            write_color(place / "sun/image" / split / f"img-{number:06d}.jpg", image.color)
            write_label(place / "sun/label37" / split / f"img-{number:06d}.png", image.label)
    assert main(["pretrain", "sun", "base.safetensors", "--settings", "small.yaml"]) == 0
    assert "on 3 test images" in capsys.readouterr().out


def test_pretrain_goes_on_only_when_asked(base, place, capsys):
    again = ["pretrain", "source", "base.safetensors", "--settings", "small.yaml", "--set", "pretrain.steps=6"]
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*again, "--resume", "--set", "pretrain.evaluate_every=2"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "step 6: mIoU" in told
    assert "step 4: mIoU" not in told
    assert main([*again, "--force"]) == 0


def test_curves_of_both_trainings_are_written_where_somebody_asks(base, place):
    assert main(["pretrain", "source", "b.safetensors", "--settings", "small.yaml", "--log", "curves/base"]) == 0
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--log", "curves/room"]) == 0
    assert {"loss/segmentation", "test/miou"} <= curves(place / "curves" / "base").keys()
    room = curves(place / "curves" / "room")
    assert room["loss/geometric"] == [1, 2, 3, 4]
    assert room["agreement/adapted"] == room["agreement/base"] == [2, 4]


def curves(folder):
    """Steps of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_adapt_records_a_run_for_rerun(base, place):
    reader = pytest.importorskip("rerun.chunk", reason="rerun-sdk is missing, or older than the reader")
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--rerun", "runs/room.rrd"]) == 0
    recorded = recorded_rows(reader.RrdReader("runs/room.rrd"))
    (folder,) = (place / "adapted.safetensors.state").glob("*/keyframes_*")
    saved, _ = read(folder)
    keyframes = [keyframe for keyframe, _ in saved.keyframes]
    assert len(keyframes) > 4
    network, _ = load_checkpoint("adapted.safetensors")
    labels = predict_labels(network.eval(), [k.color for k in keyframes], from_values(SETTINGS), torch.device("cpu"))
    for keyframe, label in zip(keyframes, labels, strict=True):
        entity, size = f"/world/keyframes/{keyframe.id}", keyframe.depth_mm.size
        ((step, place_of),) = recorded[entity, "Transform3D:translation"]
        assert step == 0
        np.testing.assert_allclose(place_of, keyframe.T_world_camera[:3, 3], rtol=1e-6)
        ((_, jpeg),) = recorded[f"{entity}/image/color", "EncodedImage:blob"]
        assert cv2.imdecode(jpeg.astype(np.uint8), cv2.IMREAD_COLOR).shape == keyframe.color.shape
        shown = recorded[f"{entity}/image/labels", "SegmentationImage:buffer"]
        assert [step for step, _ in shown] == [0, 2, 4]
        np.testing.assert_array_equal(shown[-1][1], label.ravel())
        ((_, cloud),) = recorded[f"/world/colors/{keyframe.id}", "Points3D:positions"]
        in_camera = (cloud.reshape(-1, 3) - keyframe.T_world_camera[:3, 3]) @ keyframe.T_world_camera[:3, :3]
        np.testing.assert_allclose(in_camera[:, 2], keyframe.depth.ravel(), atol=1e-5)  # all pixels have depth
        assert [(step, len(ids)) for step, ids in recorded[f"/world/labels/{keyframe.id}", "Points3D:class_ids"]] == [
            (0, size), (2, size), (4, size),
        ]  # fmt: skip
    assert [step for step, _ in recorded["/curves/loss/geometric", "Scalars:scalars"]] == [1, 2, 3, 4]
    assert [step for step, _ in recorded["/curves/agreement/base", "Scalars:scalars"]] == [2, 4]


def recorded_rows(reader):
    """(step, flat array) of every value of a recording, by entity and component, in the order of the steps."""
    found = defaultdict(list)
    for chunk in reader.stream():
        if "step" in chunk.timeline_names:
            rows = chunk.to_record_batch()
            for name in rows.schema.names:
                if ":" in name:
                    for step, value in zip(rows["step"], rows[name], strict=True):
                        found[chunk.entity_path, name].append((step.as_py(), np.array(value.as_py()).ravel()))
    return {name: sorted(values, key=lambda row: row[0]) for name, values in found.items()}


def test_rerun_that_is_missing_is_named_before_anything_is_done(base, place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--rerun", "run.rrd"]) == 2
    assert "pip install rerun-sdk" in capsys.readouterr().err
    assert not (place / "adapted.safetensors.state").exists()


@pytest.mark.parametrize(("path", "told"), [("room", "is no file"), ("small.yaml/run.rrd", "cannot be written")])
def test_a_recording_that_cannot_be_written_is_an_error(base, place, capsys, path, told):
    pytest.importorskip("rerun", reason="rerun-sdk is missing")
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--rerun", path]) == 2
    assert f"{path} {told}" in " ".join(capsys.readouterr().err.split())


def test_adapt_writes_adapted_weights_and_tells_each_version(base, place, capsys):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    info = read_info(place / "adapted.safetensors")
    assert (info.version, info.step) == (2, 4)
    told = " ".join(capsys.readouterr().out.split())
    assert "step 2: version 1, agreement between views" in told
    assert "step 4: version 2" in told


def test_adapt_works_at_the_base_models_size_unless_the_settings_give_one(base, place):
    without = {name: values for name, values in SETTINGS.items() if name != "model"}
    (place / "no_size.yaml").write_text(yaml.safe_dump(without))
    given = ["--checkpoint", "base.safetensors", "--source", "source", "--settings", "no_size.yaml"]
    for more, size in ([], (64, 48)), (["--set", "model.width=96", "--set", "model.height=72"], (96, 72)):
        assert main(["adapt", "room", "adapted.safetensors", *given, *more, "--force"]) == 0
        model = read_info(place / "adapted.safetensors").model
        assert (model.width, model.height) == size


def test_adapt_never_overwrites_state_unasked(base, place, capsys):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--force"]) == 0


def test_force_removes_no_folder_but_a_state(base, place, capsys):
    photos = place / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"dear to somebody")
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--state", "photos", "--force"]) == 2
    assert "photos holds more than the state" in capsys.readouterr().err
    assert (photos / "holiday.jpg").exists()


@pytest.mark.parametrize("choice", ["--resume", "--force"])
def test_a_state_in_use_is_left_alone(base, place, capsys, choice):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    state = place / "adapted.safetensors.state"
    before = sorted(state.rglob("*"))
    node = FolderLock(state, "")
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, choice]) == 2
    assert "is in use by another process" in capsys.readouterr().err
    assert sorted(state.rglob("*")) == before
    node.release()
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, choice]) == 0


def test_force_keeps_the_lock_file_so_that_nobody_gets_in_meanwhile(base, place, monkeypatch):
    """With a new lock file, a second writer could use the folder while the first still holds the old file."""
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    state = place / "adapted.safetensors.state"
    rmtree, tried = shutil.rmtree, []

    def removed_while_a_node_starts(folder, *args, **kwargs):
        rmtree(folder, *args, **kwargs)
        if state in (path := Path(folder).absolute(), *path.parents):
            with pytest.raises(S4NetError, match="in use"):
                FolderLock(state, "")
            tried.append(folder)

    monkeypatch.setattr(shutil, "rmtree", removed_while_a_node_starts)
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--force"]) == 0
    assert len(tried) >= 1
    assert read_info(place / "adapted.safetensors").step == 4


def test_a_state_that_cannot_be_written_is_named(base, place, capsys):
    (place / "file").write_text("")
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--state", "file/state"]) == 2
    assert "file/state cannot be written" in capsys.readouterr().err
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--state", "file", "--force"]) == 2
    assert "state file is a file: name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["--resume", "--force"])
def test_pretrain_takes_no_folder_for_its_state(place, capsys, choice):
    (place / "folder").mkdir()
    given = ["pretrain", "source", "new.safetensors", "--settings", "small.yaml", "--state", "folder", choice]
    assert main(given) == 2
    assert "folder is a folder: name a file" in capsys.readouterr().err
    assert (place / "folder").is_dir()


@pytest.mark.parametrize("command", [["pretrain", "source", "new.safetensors"], ["adapt", "room", "new.safetensors"]])
def test_a_time_that_is_none_is_refused_before_anything_is_learnt(base, place, capsys, monkeypatch, command):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    given = GIVEN if command[0] == "adapt" else ["--settings", "small.yaml"]
    assert main([*command, *given]) == 2
    told = capsys.readouterr()
    assert "SOURCE_DATE_EPOCH is 'yesterday'" in told.err
    assert "keyframes" not in told.out
    assert "4/4" not in told.out
    assert not list(place.glob("new.*"))


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_learnt(place, capsys):
    assert main(["pretrain", "source", "small.yaml/new.safetensors", "--settings", "small.yaml"]) == 2
    told = capsys.readouterr()
    assert "small.yaml/new.safetensors cannot be written" in told.err
    assert "4/4" not in told.out


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("room", "room is there and is not overwritten: .*folder"),
        ("small.yaml", "small.yaml is there and is not overwritten"),
        ("base.safetensors", "base.safetensors is the base model"),
        ("small.yaml/new.safetensors", "small.yaml/new.safetensors cannot be written"),
    ],
)
def test_adapt_refuses_an_output_before_anything_is_learnt(base, place, capsys, output, told):
    given = ["adapt", "room", output, *GIVEN, "--state", "state"]
    assert main(given) == 2
    said = capsys.readouterr()
    assert re.search(told, " ".join(said.err.split()))
    assert "keyframes" not in said.out
    assert not (place / "state").exists()


def test_a_mistake_leaves_no_state(base, place, capsys):
    assert main(["adapt", "nowhere", "adapted.safetensors", *GIVEN]) == 2
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0


@pytest.mark.parametrize(
    "mistake",
    [
        ["adapt", "nowhere", "adapted.safetensors", *GIVEN],
        ["adapt", "room", "adapted.safetensors", *GIVEN, "--source", "nowhere"],
        ["adapt", "room", "adapted.safetensors", *GIVEN, "--set", "geometry.depth=predicted"],
        ["adapt", "room", "adapted.safetensors", *GIVEN, "--set", "guard.holdout=500"],
        ["pretrain", "nowhere", "base.safetensors", "--settings", "small.yaml"],
        ["pretrain", "source", "base.safetensors", "--settings", "small.yaml", "--set", "guard.holdout=500"],
    ],
)
def test_a_mistake_with_force_costs_no_state(base, place, mistake):
    state = place / f"{mistake[2]}.state"
    if mistake[0] == "adapt":
        assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    before = {path: path.read_bytes() for path in [state, *state.rglob("*")] if path.is_file()}
    assert before
    assert main([*mistake, "--force"]) == 2
    assert {path: path.read_bytes() for path in [state, *state.rglob("*")] if path.is_file()} == before


def test_a_capture_that_cannot_be_learned_from_costs_no_state_with_force(base, place, capsys):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    write_scene_folder(place / "still", [make_room_frames(1, 96, 72)[0]] * 3)
    state = place / "adapted.safetensors.state"
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert main(["adapt", "still", "adapted.safetensors", *GIVEN, "--force"]) == 2
    assert "keyframes cannot be learned from" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_force_removes_what_was_saved_for_every_base_model(base, place):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    (own,) = (entry for entry in place.glob("adapted.safetensors.state/*") if entry.is_dir())
    other = shutil.copytree(own, own.with_name("0123456789ab"))
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--force", "--set", "adaptation.max_steps=2"]) == 0
    assert not other.exists()
    assert (read_info(place / "adapted.safetensors").version, read_info(place / "adapted.safetensors").step) == (1, 2)


def test_adapt_resumes(base, place):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0
    more = ["--resume", "--set", "adaptation.max_steps=8"]
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, *more]) == 0
    assert (read_info(place / "adapted.safetensors").version, read_info(place / "adapted.safetensors").step) == (4, 8)


def test_adapt_says_with_which_other_settings_it_resumes(base, place, capsys):
    def told(*more: str) -> str:
        assert main(["adapt", "room", "adapted.safetensors", *GIVEN[:2], "--settings", "small.yaml", *more]) == 0
        return " ".join(capsys.readouterr().err.split())

    assert "other settings" not in told("--source", "source")
    said = told("--resume", "--set", "adaptation.max_steps=6")  # the option for the source set was forgotten
    assert (
        "resumed with other settings: adaptation.max_steps is 6 but was 4, source.path is '' but was 'source'" in said
    )
    assert "other settings" not in told("--resume", "--set", "adaptation.max_steps=6")
    kept = place / "adapted.safetensors.state" / ".settings.yaml"
    assert "other settings" not in told("--resume", "--set", "adaptation.max_steps=6", "--set", "cockpit.token=secret")
    assert "secret" not in kept.read_text()
    kept.write_text("no_such: 1")
    assert "cannot be compared" in told("--resume", "--set", "adaptation.max_steps=6")
    assert "other settings" not in told("--force", "--set", "adaptation.max_steps=2")


def from_identity(frames):
    """As SLAM gives poses: the first one is the origin."""
    T = np.linalg.inv(frames[0].T_world_camera)
    return [replace(frame, T_world_camera=T @ frame.T_world_camera) for frame in frames]


def test_adapt_does_not_go_on_with_another_capture(base, place, capsys):
    write_scene_folder(place / "elsewhere", from_identity(make_room_frames(20, seed=6)))
    write_scene_folder(place / "here", from_identity(make_room_frames(20, seed=5)))
    assert main(["adapt", "here", "adapted.safetensors", *GIVEN]) == 0
    before = (place / "adapted.safetensors").read_bytes()
    kept = sorted(place.glob("adapted.safetensors.state/*/keyframes_*/*"))
    assert main(["adapt", "elsewhere", "adapted.safetensors", *GIVEN, "--resume"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(r"state \S+ holds \d+ keyframes, 1 of which are views of \S+elsewhere: .*--force of the", told)
    assert (place / "adapted.safetensors").read_bytes() == before
    assert sorted(place.glob("adapted.safetensors.state/*/keyframes_*/*")) == kept
    shutil.move(place / "here", place / "moved")
    assert main(["adapt", "moved", "adapted.safetensors", *GIVEN, "--resume"]) == 0


def test_refused_weights_are_told_once_by_the_log(base, place, capsys, caplog):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--set", "guard.max_class_share=1e-6"]) == 0
    assert caplog.text.count("weights of step 2 refused, version 0 keeps serving") == 1
    assert "step 2" not in capsys.readouterr().out


def test_adapt_resumes_with_its_keyframes_after_the_computer_has_started_again(base, place, monkeypatch):
    given = [*GIVEN, "--set", "adaptation.max_steps=0", "--set", "adaptation.steps_per_keyframe=0.5"]
    assert main(["adapt", "room", "adapted.safetensors", *given]) == 0
    step = read_info(place / "adapted.safetensors").step
    assert step > 0
    monkeypatch.setattr("s4net_core.learning.state_folder.boot_id", lambda: "another boot")
    assert main(["adapt", "room", "adapted.safetensors", *given, "--resume"]) == 0
    assert read_info(place / "adapted.safetensors").step == step
    drop = ["--set", "keyframes.after_restart=drop"]
    assert main(["adapt", "room", "adapted.safetensors", *given, "--resume", *drop]) == 0
    assert read_info(place / "adapted.safetensors").step > step


def test_adapt_ends_when_the_agreement_rises_no_more(base, place, capsys):
    nothing_is_a_gain = ["--set", "adaptation.offline_patience=3", "--set", "adaptation.min_gain=1"]
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, *nothing_is_a_gain, "--until-converged"]) == 0
    assert read_info(place / "adapted.safetensors").step == 6  # adaptation.max_steps is 4
    assert "no further gain in 3 hand-overs" in capsys.readouterr().out


def test_adapt_refuses_to_run_for_ever(base, capsys):
    assert (
        main(["adapt", "room", "a.safetensors", *GIVEN, "--until-converged", "--set", "adaptation.offline_patience=0"])
        == 2
    )
    assert "never end" in capsys.readouterr().err


def test_adapt_says_when_a_capture_is_too_short(base, place, capsys):
    write_scene_folder(place / "short", make_room_frames(2, seed=5))
    assert main(["adapt", "short", "adapted.safetensors", *GIVEN]) == 2
    told = capsys.readouterr().err
    assert "1 keyframes cannot be learned from" in told
    assert "use a longer capture, or lower adaptation.min_keyframes" in told
    assert not (place / "adapted.safetensors").exists()
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN]) == 0  # nothing is left that it would ask about


@pytest.mark.parametrize("source", ["rooms", "rooms/a"])
def test_adapt_tells_that_labels_of_the_capture_are_learned_from(base, place, capsys, source):
    shutil.copytree(place / "room", place / "rooms/a")
    given = [option if option != "source" else source for option in GIVEN]
    assert main(["adapt", "rooms/a", "adapted.safetensors", *given, "--set", "guard.holdout=2"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"source set {source} holds the capture rooms/a: if it reads the labels there, they are learned from" in told


def test_adapt_says_when_the_result_is_the_base_model(base, capsys):
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN, "--set", "guard.max_class_share=0.01"]) == 0
    assert "no weights were better than the base model's: this is the base model" in capsys.readouterr().out


def test_adapt_needs_a_base_model(base, capsys):
    given = ["--checkpoint", "", "--source", "source", "--settings", "small.yaml"]
    assert main(["adapt", "room", "adapted.safetensors", *given]) == 2
    assert "checkpoint is empty" in capsys.readouterr().err


def test_compare_needs_a_source_set_because_its_control_learns_from_nothing_else(base, place, capsys):
    assert main(["compare", "room", "room", *GIVEN[:2], *GIVEN[4:]]) == 2
    assert "give --source FOLDER" in capsys.readouterr().err


def test_adapt_needs_no_source_set(base, place, capsys):
    slowly = ["--set", "learner.learning_rate=1e-6"]
    assert main(["adapt", "room", "free.safetensors", *GIVEN[:2], *GIVEN[4:], *slowly]) == 0
    assert read_info("free.safetensors").version > 0
    assert "source mIoU" not in capsys.readouterr().out


def test_an_empty_source_set_is_named(base, place, capsys):
    (place / "empty").mkdir()
    assert main(["adapt", "room", "a.safetensors", "--checkpoint", str(base), "--source", "empty"]) == 2
    assert "empty" in capsys.readouterr().err


def test_compare_reads_what_it_appends_to_before_it_runs(base, place, capsys):
    (place / "image.md").write_bytes(b"\xff\xd8\xff")
    assert main(["compare", "nowhere", "room", *GIVEN, "--output", "image.md"]) == 2
    assert "--output image.md is no text to append to" in " ".join(capsys.readouterr().err.split())


def test_compare_prints_base_method_and_control(base, place, capsys):
    assert main(["compare", "room", "room", "second", *GIVEN, "--seeds", "2", "--output", "table.md"]) == 0
    rows = [line for line in (place / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * (1 + 2 * (2 + 1))
    assert sum("control" in row for row in rows) == 6
    assert rows[2:] == [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]


def test_bench_source_compares_reading_with_the_need_of_a_step(base, place, capsys):
    where = ["--set", "checkpoint=base.safetensors", "--settings", "small.yaml", "--repeats", "2"]
    assert main(["bench", "source", "--source", "source", *where]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "a step of L_S takes, 2 images at 64x48" in told
    assert told.count("images/s") == 4
    assert "packed, PNG, exact" in told
    size = ["--set", "model.width=64", "--set", "model.height=48"]
    assert main(["pack", "source", "source.s4pack", *size]) == 0
    assert main(["bench", "source", "--source", "source.s4pack", *where]) == 0
    assert capsys.readouterr().out.count("images/s") == 2


def test_a_packed_source_set_gives_the_same_base_model(base, place):
    assert main(["pack", "source", "source.s4pack", "--settings", "small.yaml"]) == 0
    assert main(["pretrain", "source.s4pack", "again.safetensors", "--settings", "small.yaml"]) == 0
    assert read_info(place / "again.safetensors").metrics == read_info(base).metrics
    assert main(["adapt", "room", "adapted.safetensors", *GIVEN[:2], "--source", "source.s4pack", *GIVEN[4:]]) == 0


def test_bench_step_prints_ratios(base, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    where = ["--set", "checkpoint=base.safetensors", "--set", "source.path=source", "--settings", "small.yaml"]
    assert main(["bench", "step", "--capture", "room", "--repeats", "2", *where]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for row in (
        "L_S alone, whole network, 4 images; half of them",
        "L_S alone, learner.trained decoder, 4 images; half of them",
        "labels' share of",
        "S4-Net with labels beside L_S alone",
        "later hand-over; half of them",
        "hand-overs in the learner's time",
    ):
        assert row in told, row


def test_shares_of_labels_and_hand_overs_follow_from_the_times():
    settings = from_values({"adaptation.handover_every": 10})
    times = {"whole": [4.0], "alone": [2.0], "ours": [1.5], "labels": [20.0], "handover": [5.0, 1.0, 1.0]}
    rows = {row.name: row.value for row in _rows(settings, times, "2 + 2 images", 4, 8, 40)}
    assert rows["S4-Net, 2 + 2 images, with the labels' share of 40 steps"] == 2000
    assert rows["S4-Net with labels beside L_S alone, learner.trained decoder"] == 1.0
    assert rows["share of 4 hand-overs in the learner's time"] == pytest.approx(100 * 8 / (8 + 80))
