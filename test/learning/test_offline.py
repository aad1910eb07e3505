"""The offline loop: what ends it, what it tells, and that everybody who calls it gets the same weights."""

import dataclasses

import numpy as np
import pytest
import yaml

import s4net_core
from s4net_core.cli.main import main
from s4net_core.config import load_settings
from s4net_core.errors import BadFrame, LearningError, SettingsError
from s4net_core.experiments.method import adapt_base
from s4net_core.files import write_result
from s4net_core.frames import LazyView
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.learning.base_model import open_source
from s4net_core.learning.offline import adapt_to
from s4net_core.learning.session import Session
from s4net_core.models.checkpoint import file_sha256


@pytest.fixture
def session(settings, base, source, tmp_path):
    with Session(settings, base, source, tmp_path / "state") as session:
        yield session


def test_it_learns_to_the_last_step_and_tells_what_happens_in_order(session, frames):
    told = []
    version = adapt_to(
        session,
        frames,
        on_collected=lambda left_out: told.append(sum(left_out.values()) + len(session.keyframes)),
        on_step=lambda status: told.append(status.step),
        on_handover=lambda handover: told.append(f"version {handover.version.number}"),
    )
    assert told == [len(frames), 1, "version 1", 2, 3, "version 2", 4, 5, "version 3", 6]
    assert version == session.current


def test_views_that_cannot_be_decoded_are_left_out_and_counted_where_they_come_from(session, frames):
    refused = []

    def load():
        raise BadFrame("color_format", "cut off")

    first, last = (LazyView(f.stamp, f.T_world_camera, load, refused.append) for f in (frames[0], frames[-1]))
    collected = []
    adapt_to(session, [first, *frames[1:-1], last], on_collected=collected.append)
    assert [error.reason for error in refused] == ["color_format"]  # the last pose is known: nothing was decoded
    assert session.status.offered == len(frames) - 1
    assert collected[0]["color_format"] == 1
    assert sum(collected[0].values()) == len(frames) - len(session.keyframes)


def test_poses_that_contradict_the_depths_end_it_with_what_to_check(session, frames):
    """The user's slip: world to camera instead of camera to world."""
    inverted = [dataclasses.replace(f, T_world_camera=np.linalg.inv(f.T_world_camera)) for f in frames]
    with pytest.raises(
        LearningError, match="most keyframes contradict most of those near them in time: check that poses are camera"
    ):
        adapt_to(session, inverted)


def test_what_was_collected_is_saved_before_anything_is_learnt(session, frames, tmp_path):
    saved = []
    adapt_to(
        session,
        frames,
        on_step=lambda status: saved.append(len(list(tmp_path.glob("state/*/keyframes_*/keyframe_*.npz")))),
    )
    assert saved[0] == len(session.keyframes)


def test_too_little_overlap_is_an_error_with_the_remedy(session, frames):
    with pytest.raises(
        LearningError, match=r"2 keyframes .* 4; left out: 1 known_view\): use a longer .*, or lower adaptation"
    ):
        adapt_to(session, [frames[0], frames[0], frames[8]])


def test_a_capture_whose_views_contradict_each_other_is_not_learned_from(session, frames):
    with pytest.raises(
        LearningError, match=r"\d+ contradicted.*: most keyframes contradict most of .*: check that poses"
    ):
        adapt_to(session, [dataclasses.replace(frame, depth=np.full_like(frame.depth, 2.0)) for frame in frames])
    assert session.status.step == 0


def test_what_fits_of_a_capture_that_began_with_frozen_depth_is_learned_from(session, frames):
    frozen = [dataclasses.replace(frame, stamp=frame.stamp - 10**12, depth=frames[0].depth) for frame in frames]
    adapt_to(session, [*frozen, *frames])
    status = session.status
    assert status.rejected["contradicted"] > 0
    assert status.offered == status.keyframes + sum(status.rejected.values())
    assert status.step > 0


def test_the_remedy_follows_from_what_most_views_lack(session, frames):
    far = [dataclasses.replace(frame, depth=np.full_like(frame.depth, 100.0)) for frame in frames]
    with pytest.raises(LearningError, match=r"0 keyframes .* no_depth\): most views have little depth .* the unit"):
        adapt_to(session, far)
    with pytest.raises(LearningError, match=r"1 keyframes .* known_view\): the camera hardly moves: .* metres"):
        adapt_to(session, [dataclasses.replace(frame, T_world_camera=np.eye(4)) for frame in frames])


def misfit(frame):
    """A view whose depth has another size than its colour."""
    return LazyView(frame.stamp, frame.T_world_camera, lambda: dataclasses.replace(frame, depth=frame.depth[1:]))


def test_what_was_wrong_with_the_frames_is_named_and_a_longer_capture_advised_only_if_some_were_right(session, frames):
    wrong = [misfit(frame) for frame in frames[1:]]
    with pytest.raises(LearningError, match=r"depth_size, e\.g\. depth is 64x47 but colour is 64x48: [^;]*$"):
        adapt_to(session, wrong)
    with pytest.raises(LearningError, match=r"depth is 64x47 but colour is 64x48: .*; use a longer capture"):
        adapt_to(session, [frames[0], *wrong])


def test_a_few_frames_that_cannot_be_used_are_told_with_an_example(session, frames, caplog):
    adapt_to(session, [misfit(frames[0]), *frames])
    assert "1 of the frames cannot be used: depth_size, e.g. depth is 64x47 but colour is 64x48" in caplog.text


@pytest.mark.parametrize(("patience", "handovers"), [(0, 3), (2, 2)])
def test_without_patience_it_is_that_of_somebody_who_waits(session, settings, frames, patience, handovers):
    settings.adaptation.patience, settings.adaptation.offline_patience = patience, 3
    settings.adaptation.max_steps, settings.adaptation.min_gain = 0, 1.0  # nothing is a gain
    told = []
    adapt_to(session, frames, on_handover=told.append)
    assert len(told) == handovers
    assert settings.adaptation.patience == patience


def test_patience_that_ended_with_one_capture_begins_anew_with_another(session, settings, frames, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    settings.adaptation.max_steps, settings.adaptation.offline_patience = 0, 2
    settings.adaptation.min_gain = 1.0  # nothing is a gain
    adapt_to(session, frames[:12])
    steps = session.status.step
    adapt_to(session, frames[:12])
    assert session.status.step == steps  # nothing new
    before = session.stopping.patience.metrics
    monkeypatch.setattr(session, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        adapt_to(session, frames)
    monkeypatch.undo()
    assert session._folder.versions.since == session.stopping.patience.metrics != before  # also after a restart
    adapt_to(session, frames)
    assert session.status.step == 2 * steps


def test_it_does_not_begin_what_would_never_end(session, settings, frames):
    settings.adaptation.max_steps = settings.adaptation.patience = settings.adaptation.offline_patience = 0
    settings.adaptation.steps_per_keyframe = 0
    with pytest.raises(SettingsError, match="would never end"):
        adapt_to(session, frames)
    assert session.status.offered == 0


# Everybody who calls it. Each way gets the base model, the capture and the settings, and returns the weights' SHA-256.


def by_command(folder):
    output = folder / "command.safetensors"
    given = ["--checkpoint", "base.safetensors", "--source", "source", "--settings", "settings.yaml"]
    assert main(["adapt", "room", str(output), *given]) == 0
    return file_sha256(output)


def by_python(folder):
    model = s4net_core.load_model(folder / "base.safetensors", load_settings(folder / "settings.yaml"))
    adapted = s4net_core.adapt(model, folder / "room", folder / "source")
    return s4net_core.save_model(adapted, folder / "python.safetensors")


def by_experiment(folder):
    settings = load_settings(folder / "settings.yaml", ["checkpoint=base.safetensors", "source.path=source"])
    capture = open_capture(folder / "room")
    return file_sha256(adapt_base(settings, capture, open_source(settings), folder / "experiment").weights)


WAYS = [by_command, by_python, by_experiment]


def test_every_way_gives_the_same_weights_byte_for_byte(settings, base, source, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # the files say when they were made
    settings.adaptation.max_steps, settings.adaptation.offline_patience = 0, 3
    settings.learner.weight_average = 0.9
    write_result(tmp_path / "settings.yaml", yaml.safe_dump(settings.model_dump()))
    write_scene_folder(tmp_path / "room", [dataclasses.replace(frame, true_depth=None) for frame in frames])
    found = {way(tmp_path) for way in WAYS}
    assert len(found) == 1
    assert found != {file_sha256(base)}
