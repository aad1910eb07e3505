"""Scores of a segmenter on a capture."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import make_room_frames

from s4net_core.config import ModelSettings, Settings, with_values
from s4net_core.errors import CaptureError
from s4net_core.evaluation.evaluate import evaluate, evaluate_agreement, keyframes_of, measure_networks
from s4net_core.evaluation.pictures import save_picture
from s4net_core.models.checkpoint import CheckpointInfo
from s4net_core.models.scaled_logits import ScaledLogits
from s4net_core.models.segmenter import Segmentation


class Capture:
    """Frames in memory."""

    def __init__(self, frames):
        self.name = "room"
        self.skipped = {}
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)


class Oracle:
    """Answers with labels and depth of the frames that it was told; `spoil` changes the labels."""

    def __init__(self, frames, spoil=lambda label: label):
        self.info = CheckpointInfo(model=Settings().model)
        self._depths = {frame.color.tobytes(): frame.depth for frame in frames}
        self._answers = {frame.color.tobytes(): spoil(frame.label) for frame in frames}

    def segment(self, color):
        label = self._answers[color.tobytes()]
        return Segmentation(label, 0, ScaledLogits(torch.zeros(1, 1, 1, 1), label.shape))

    def depth(self, color):
        return self._depths[color.tobytes()]


class DepthOracle(Oracle):
    """Answers with the depth of the frames as well, too large by a factor."""

    def __init__(self, frames, factor):
        super().__init__(frames)
        self.info = CheckpointInfo(model=ModelSettings(depth_decoder=True))
        self._depths = {frame.color.tobytes(): frame.depth * np.float32(factor) for frame in frames}

    def depth(self, color):
        return self._depths[color.tobytes()]


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(12)


@pytest.fixture
def settings():
    return Settings.model_validate({"model": {"width": 64, "height": 48}, "keyframes": {"min_sharpness": 0.0}})


def test_true_labels_score_1_and_every_frame_is_counted(frames):
    result = evaluate(Oracle(frames), Capture(frames))
    assert result.frames == 12
    assert result.pooled.miou == result.per_image.miou == 1.0
    assert set(result.class_iou) == set(np.unique([frame.label for frame in frames]).tolist())


def test_answer_of_one_class_scores_its_share(frames):
    result = evaluate(Oracle(frames, lambda label: np.ones_like(label)), Capture(frames))
    labels = np.stack([frame.label for frame in frames])
    assert result.pooled.pixel_accuracy == pytest.approx((labels == 1).mean())
    assert result.pooled.miou == pytest.approx((labels == 1).mean() / len(np.unique(labels)))
    assert result.class_iou[2] == 0.0


def test_frames_without_labels_are_passed_over(frames):
    some = [replace(frame, label=None) if i % 3 else frame for i, frame in enumerate(frames)]
    assert evaluate(Oracle(frames), Capture(some)).frames == 4


def test_capture_without_labels_is_refused(frames):
    with pytest.raises(CaptureError, match="capture room has no labelled pixel"):
        evaluate(Oracle(frames), Capture([replace(frame, label=None) for frame in frames]))


def test_agreement_is_measured_on_the_keyframes_of_the_capture(frames, settings):
    keyframes = keyframes_of(Capture(frames), settings)
    rng = np.random.default_rng(0)
    networks = {
        "good": Oracle(frames),
        "bad": Oracle(frames, lambda x: rng.integers(1, 38, x.shape).astype(np.uint8)),
    }
    good, bad = evaluate_agreement(networks, keyframes, settings).values()
    assert good.pairs == bad.pairs > 0
    few = with_values(settings, {"learner": {"neighbours": 1, "min_overlap": 0.5}})
    assert evaluate_agreement({"good": Oracle(frames)}, keyframes, few) == {
        "good": good
    }  # what the learner learns from does not count
    assert good.mean > 0.9
    assert bad.mean < 0.1


def test_poses_that_contradict_the_depths_are_told(frames, settings, caplog):
    more = make_room_frames(24)
    inverted = [replace(frame, T_world_camera=np.linalg.inv(frame.T_world_camera)) for frame in more]
    measure_networks({"base": Oracle(frames)}, Capture(frames), settings)
    assert not caplog.messages
    measure_networks({"base": Oracle(inverted)}, Capture(inverted), settings)
    assert re.match(
        r"capture room: \d+ of the last \d+ keyframes contradict most of those near them in time", caplog.messages[0]
    )


def test_progress_of_the_agreement_runs_to_its_end_in_equal_steps(frames, settings):
    seen = []
    networks = {"before": Oracle(frames), "after": Oracle(frames)}
    found = measure_networks(
        networks, Capture(frames), settings, on_view=lambda done, total: seen.append((done, total))
    )
    whole = 3 * found.keyframes  # each view is labelled by two networks and compared once
    assert found.keyframes > 2
    assert seen == [(i, whole) for i in range(1, whole + 1)]


def test_keyframes_have_the_working_size(frames, settings):
    settings.model.width, settings.model.height = 40, 32
    keyframes = keyframes_of(Capture(frames), settings)
    assert keyframes.get(keyframes.ids()[0]).color.shape == (32, 40, 3)


class TestMeasure:
    """One pass that gives the same as the single functions."""

    def test_scores_and_agreement_equal_those_measured_alone(self, frames, settings):
        capture = Capture(frames)
        networks = {"base": Oracle(frames, lambda x: np.minimum(x, 3)), "adapted": Oracle(frames)}
        seen = []
        result = measure_networks(networks, capture, settings, on_frame=lambda: seen.append(1))
        keyframes = keyframes_of(capture, settings)
        assert len(seen) == 12
        assert result.keyframes == len(keyframes)
        for name, network in networks.items():
            assert result.evaluations[name] == evaluate(network, capture)
            assert result.agreements[name] == evaluate_agreement({name: network}, keyframes, settings)[name]
        assert result.evaluations["base"].pooled.miou < result.evaluations["adapted"].pooled.miou

    def test_pictures_are_spread_over_the_capture_and_show_both_networks(self, frames, settings):
        networks = {"base": Oracle(frames, np.zeros_like), "adapted": Oracle(frames)}
        result = measure_networks(networks, Capture(frames), settings, pictures=3)
        assert [row.name for row in result.pictures] == ["frame 2", "frame 5", "frame 8"]
        for row, frame in zip(result.pictures, (frames[2], frames[5], frames[8]), strict=True):
            assert row.color is frame.color
            assert (row.before == 0).all()
            np.testing.assert_array_equal(row.after, frame.label)
            np.testing.assert_array_equal(row.truth, frame.label)

    def test_single_network_has_no_before(self, frames, settings):
        result = measure_networks({"network": Oracle(frames)}, Capture(frames), settings, pictures=1)
        assert [row.before for row in result.pictures] == [None]

    def test_capture_without_labels_gives_agreement_and_pictures(self, frames, settings):
        unlabelled = Capture([replace(frame, label=None) for frame in frames])
        result = measure_networks({"network": Oracle(frames)}, unlabelled, settings, pictures=2)
        assert result.evaluations == {}
        assert result.agreements["network"].pixels > 0
        assert [row.truth for row in result.pictures] == [None, None]

    @pytest.mark.parametrize(("labelled", "shown"), [(range(0, 12, 4), [4, 8]), (range(6, 12), [6, 8])])
    def test_pictures_of_a_partly_labelled_capture_all_have_their_truth(
        self, frames, settings, tmp_path, labelled, shown
    ):
        some = [frame if i in labelled else replace(frame, label=None) for i, frame in enumerate(frames)]
        networks = {"base": Oracle(frames, np.zeros_like), "adapted": Oracle(frames)}
        result = measure_networks(networks, Capture(some), settings, pictures=3)
        assert [row.name for row in result.pictures] == [f"frame {i}" for i in shown]
        for row, i in zip(result.pictures, shown, strict=True):
            np.testing.assert_array_equal(row.truth, frames[i].label)
        save_picture(tmp_path / "rows.png", result.pictures)  # which cannot lay out rows with and without truth

    def test_predicted_depth_is_compared_with_the_camera_s_where_a_network_predicts_it(self, frames, settings):
        networks = {"base": Oracle(frames), "predicted": DepthOracle(frames, 1.1)}
        result = measure_networks(networks, Capture(frames), settings)
        assert list(result.depths) == ["predicted"]
        assert result.depths["predicted"].frames == 12
        assert result.depths["predicted"].pooled.abs_rel == pytest.approx(0.1, abs=1e-5)
        assert result.depths["predicted"].per_image.delta_1 == 1.0

    def test_exact_depth_is_the_truth_where_there_is_some(self, frames, settings):
        noisy = [replace(frame, depth=frame.depth * np.float32(1.3), true_depth=frame.depth) for frame in frames]
        result = measure_networks({"predicted": DepthOracle(frames, 1.0)}, Capture(noisy), settings)
        assert result.depths["predicted"].pooled.rmse == 0.0

    def test_confusion_counts_are_kept(self, frames, settings):
        result = measure_networks({"network": Oracle(frames, lambda x: np.minimum(x, 3))}, Capture(frames), settings)
        counts = result.evaluations["network"].counts
        assert counts.sum() == sum((frame.label > 0).sum() for frame in frames)
        assert counts[21, 3] == sum((frame.label == 22).sum() for frame in frames)

    def test_capture_without_depth_gives_scores(self, frames, settings):
        flat = Capture([replace(frame, depth=None) for frame in frames])
        result = measure_networks({"network": Oracle(frames)}, flat, settings)
        assert result.evaluations["network"].frames == 12
        assert result.keyframes == 0
        assert result.agreements["network"].pixels == 0


def test_a_capture_without_depth_is_measured_with_predicted_depth(frames, settings):
    colors = Capture([replace(frame, depth=None) for frame in frames])
    assert measure_networks({"any": Oracle(frames)}, colors, settings).keyframes == 0
    expected = measure_networks({"any": Oracle(frames)}, Capture(frames), settings)
    settings.geometry.depth = "predicted"
    measured = measure_networks({"any": Oracle(frames)}, colors, settings)
    assert measured.keyframes == expected.keyframes
    assert measured.agreements["any"].mean == pytest.approx(expected.agreements["any"].mean, abs=0.01)
