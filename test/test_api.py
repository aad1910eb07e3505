"""The five names for the common case: they compose what the rooms do, with settings as one wants to give them."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from scenes import make_room_frames, make_source_images, write_source_set

import s4net_core
from s4net_core import adapt, evaluate, load_model, save_model, segment
from s4net_core.config import ModelSettings, from_values
from s4net_core.errors import BadFrame, CaptureError, LearningError, S4NetError, SettingsError
from s4net_core.files import FolderLock
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.images.files import write_color
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import read_info, save_checkpoint
from s4net_core.models.segmenter import Segmenter

SETTINGS = {
    "device": "cpu",
    "model": {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": 64, "height": 48},
    "learner": {"source_batch": 2, "target_batch": 2, "neighbours": 2, "learning_rate": 1e-3},
    "guard": {"holdout": 2, "agreement_views": 3, "max_source_drop": 1.0, "max_score_drop": 1.0},
    "guard.max_class_share": 1.0,
    "guard.min_class_ratio": 0.0,
    "adaptation": {"min_keyframes": 4, "handover_every": 2, "max_steps": 4},
    "keyframes": {"min_sharpness": 0.0},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_checkpoint(path, build_network(from_values(SETTINGS).model))
    return path


@pytest.fixture
def source(tmp_path):
    return write_source_set(tmp_path / "source", make_source_images(6))


def test_package_offers_the_five_names_without_loading_torch(tmp_path):
    code = (
        "import sys, s4net_core; assert len(s4net_core.__all__) == 5 and not hasattr(s4net_core, 'learn'); "
        "assert 'torch' not in sys.modules; from s4net_core import load_model; assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(s4net_core.__all__) == {"adapt", "evaluate", "load_model", "save_model", "segment"}


class TestLoadModel:
    def test_size_is_that_of_the_weights_unless_said_otherwise(self, checkpoint):
        assert load_model(checkpoint).settings.model.width == 64
        assert load_model(checkpoint, model={"width": 96}).settings.model.width == 96
        assert load_model(checkpoint, from_values({"model.height": 32})).settings.model.height == 32

    def test_keywords_go_on_top_of_settings_and_change_nothing_else(self, checkpoint):
        settings = from_values({"seed": 3, "learner": {"neighbours": 7, "learning_rate": 1e-3}})
        model = load_model(checkpoint, settings, learner={"learning_rate": 1e-4}, device="cpu")
        assert (model.settings.seed, model.settings.learner.neighbours) == (3, 7)
        assert (model.settings.learner.learning_rate, model.settings.device) == (1e-4, "cpu")
        assert settings.learner.learning_rate == 1e-3

    @pytest.mark.parametrize("values", [{"learner": {"rate": 1}}, {"learner": {"learning_rate": 2}}, {"colour": 1}])
    def test_a_setting_that_cannot_be_is_refused_with_its_name(self, checkpoint, values):
        name = next(iter(values["learner"])) if "learner" in values else "colour"
        with pytest.raises(SettingsError, match=name):
            load_model(checkpoint, **values)


def test_segment_takes_a_file_or_an_array(checkpoint, tmp_path):
    color = make_room_frames(1, 70, 46)[0].color
    model = load_model(checkpoint)
    write_color(tmp_path / "image.png", color)
    expected = Segmenter(checkpoint, "cpu", model.settings).segment(color)
    for image in (color, tmp_path / "image.png", str(tmp_path / "image.png")):
        np.testing.assert_array_equal(segment(model, image).label, expected.label)
    with pytest.raises(BadFrame, match=r"none\.png"):
        segment(model, tmp_path / "none.png")


def test_arguments_of_the_wrong_kind_are_named(checkpoint):
    model = load_model(checkpoint)
    with pytest.raises(SettingsError, match="settings is a dict: give values by keyword"):
        load_model(checkpoint, {"device": "cpu"})
    for call in (segment, adapt, evaluate):
        with pytest.raises(S4NetError, match="model is a str: load_model"):
            call("base.safetensors", "room")
    with pytest.raises(S4NetError, match="image is a list"):
        segment(model, [1, 2])
    with pytest.raises(S4NetError, match="capture is a int"):
        adapt(model, 3)
    with pytest.raises(S4NetError, match="capture is a list"):
        evaluate(model, [])


def test_a_depth_image_is_no_colour_image(checkpoint, tmp_path):
    cv2.imwrite(str(tmp_path / "depth.png"), np.full((6, 8), 1500, np.uint16))
    with pytest.raises(BadFrame, match=r"depth\.png: a PNG of one channel with 16 bit is depth, or grey"):
        segment(load_model(checkpoint), tmp_path / "depth.png")


class TestAdapt:
    def test_same_frames_lead_to_the_same_weights_and_the_base_stays(self, checkpoint, source, tmp_path):
        frames = make_room_frames(16, seed=5)
        base = load_model(checkpoint, from_values(SETTINGS))
        before = base.segment(frames[0].color)
        seen = []
        first = adapt(base, frames, source, on_handover=seen.append)
        second = adapt(base, iter(frames), tmp_path / "source")
        assert [handover.version.number for handover in seen] == [1, 2]
        assert (first.info.version, first.info.step) == (2, 4)
        result = first.segment(frames[0].color)
        np.testing.assert_array_equal(result.confidence, second.segment(frames[0].color).confidence)
        np.testing.assert_array_equal(base.segment(frames[0].color).confidence, before.confidence)
        assert not np.array_equal(result.confidence, before.confidence)

    def test_what_it_learnt_can_be_saved_and_adapted_again(self, checkpoint, source, tmp_path, monkeypatch):
        frames = make_room_frames(16, seed=5)
        adapted = adapt(load_model(checkpoint, from_values(SETTINGS)), frames, source, adaptation={"max_steps": 2})
        sha256 = save_model(adapted, tmp_path / "adapted.safetensors")
        assert len(sha256) == 64
        loaded = load_model(tmp_path / "adapted.safetensors")
        np.testing.assert_array_equal(loaded.segment(frames[1].color).label, adapted.segment(frames[1].color).label)
        again = adapt(adapted, frames, source, state_dir=tmp_path / "state", adaptation={"max_steps": 2})
        assert again.info.parent == sha256
        assert list((tmp_path / "state").glob("*/keyframes_*"))
        monkeypatch.setenv("HOME", str(tmp_path))
        with FolderLock(tmp_path / "state", ""), pytest.raises(S4NetError, match="in use by another process"):
            adapt(adapted, frames, source, state_dir="~/state")

    def test_a_later_run_continues_with_the_same_capture_alone(self, checkpoint, tmp_path, monkeypatch, caplog):
        base, state = load_model(checkpoint, from_values(SETTINGS)), tmp_path / "state"
        write_scene_folder(tmp_path / "room", make_room_frames(16, seed=5))
        write_scene_folder(tmp_path / "other", make_room_frames(16, seed=6))
        adapt(base, tmp_path / "room", state_dir=state, adaptation={"max_steps": 2})
        with pytest.raises(SettingsError, match=r"holds \d+ keyframes, 0 of which are views of .*other: only"):
            adapt(base, tmp_path / "other", state_dir=state)
        monkeypatch.setattr("s4net_core.learning.state_folder.boot_id", lambda: "another boot")
        assert adapt(base, tmp_path / "room", state_dir=state).info.step == 4
        assert "saved keyframes" not in caplog.text

    def test_network_of_transformers_adapts_like_any_other(self, source, tmp_path):
        transformers = pytest.importorskip("transformers")
        config = transformers.SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], num_labels=150
        )
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "segformer")
        network = build_network(ModelSettings(architecture="transformers", encoder=str(tmp_path / "segformer")))
        save_checkpoint(tmp_path / "base.safetensors", network)
        base = load_model(tmp_path / "base.safetensors", from_values(SETTINGS))
        with pytest.raises(SettingsError, match=r"cannot be divided: set learner.trained to all, .* 3e-5"):
            adapt(base, make_room_frames(16, seed=5), source)
        adapted = adapt(base, make_room_frames(16, seed=5), source, learner={"trained": "all", "learning_rate": 3e-5})
        assert (adapted.info.version, adapted.info.model.encoder) == (2, "segformer")
        save_model(adapted, tmp_path / "adapted.safetensors")
        assert base.load(tmp_path / "adapted.safetensors").version == 2  # as the node takes it over

    def test_too_few_views_are_a_message(self, checkpoint, source):
        with pytest.raises(LearningError, match=r"keyframes cannot be learned from.*longer capture"):
            adapt(load_model(checkpoint, from_values(SETTINGS)), make_room_frames(3, seed=5), source)


def test_evaluate_takes_a_path_or_a_source_and_refuses_one_without_labels(checkpoint, tmp_path):
    write_scene_folder(tmp_path / "room", make_room_frames(4))
    model = load_model(checkpoint)
    scores = evaluate(model, tmp_path / "room")
    assert scores.frames == 4
    assert 0 <= scores.pooled.miou <= scores.pooled.pixel_accuracy <= 1
    for path in (tmp_path / "room" / "label").iterdir():
        path.unlink()
    with pytest.raises(CaptureError):
        evaluate(model, tmp_path / "room")


def test_saved_half_size_is_loaded_again(checkpoint, tmp_path):
    save_model(load_model(checkpoint), tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * checkpoint.stat().st_size
    assert read_info(tmp_path / "half.safetensors").model.encoder == "tu-test_resnet"
