"""A session: what is handed over, refused, rolled back, what survives a restart, and what may happen after its end."""

import json
import math
import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from s4net_core.errors import CheckpointError, LearningError, S4NetError, SessionClosed, SettingsError, SourceSetError
from s4net_core.files import FolderLock, write_atomically
from s4net_core.geometry.camera import rescale_frame
from s4net_core.learning.guard import Health
from s4net_core.learning.looks import Looks
from s4net_core.learning.session import Session
from s4net_core.learning.state_folder import StateFolder
from s4net_core.learning.teacher import Teacher
from s4net_core.learning.versions import VersionStore, base_version
from s4net_core.models.checkpoint import file_sha256, load_checkpoint, read_info, save_checkpoint

WAIT_S = 30.0


@pytest.fixture
def start(settings, base, source, tmp_path):
    """`start(frames)`: a session in the state folder, with these views; the one before it is closed."""
    sessions = []

    def make(views=(), folder="state", base=base, source=source):
        if sessions:
            sessions[-1].close()
        sessions.append(Session(settings, base, source, tmp_path / folder))
        for view in views:
            sessions[-1].offer(view)
        return sessions[-1]

    yield make
    sessions[-1].close()


@pytest.fixture
def session(start, frames):
    return start(frames)


def disk_full(*_):
    raise OSError("No space left on device")


def run_to_end(session):
    handovers = []
    while session.state == "learning":
        handover = session.advance()
        if handover is not None:
            handovers.append(handover)
    return handovers


def weights_of(path):
    return load_checkpoint(path)[0].state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_it_waits_for_keyframes_then_learns_then_finishes(start, frames):
    session = start()
    assert (session.state, session.status.state) == ("waiting", "waiting")
    for frame in frames:
        session.offer(frame)
    assert (session.state, session.status.state) == ("learning", "learning")
    run_to_end(session)
    assert (session.status.step, session.status.state) == (6, "finished")


def test_the_last_hand_over_still_belongs_to_learning(session, monkeypatch):
    """A caller that stops at `finished` must find the last version."""
    seen = []
    handover = session.handover

    def watched():
        seen.append(session.status.state)
        return handover()

    monkeypatch.setattr(session, "handover", watched)
    run_to_end(session)
    assert seen == ["learning"] * 3
    assert session.status.state == "finished"


def test_every_hand_over_is_a_new_version_with_its_parent(session, base):
    handovers = run_to_end(session)
    assert [h.version.number for h in handovers] == [1, 2, 3]
    parents = [session._folder.versions._good[0].sha256, *(h.version.sha256 for h in handovers[:-1])]
    assert [h.version.info.parent for h in handovers] == parents
    for handover in handovers:
        network, info = load_checkpoint(handover.version.path, sha256=handover.version.sha256)
        assert info.version == handover.version.number
        assert not same(network.state_dict(), weights_of(base))


def test_the_same_seed_gives_the_same_run(start, frames):
    results = []
    for name in ("first", "second"):
        session = start(frames, folder=name)
        torch.manual_seed(len(name))  # the state of the global generator must not matter
        run_to_end(session)
        results.append(weights_of(session.current.path))
    assert same(*results)


def test_a_refused_version_rolls_back_and_says_why(session, base, monkeypatch, caplog):
    session.advance()
    session.advance()
    good = session.current
    monkeypatch.setattr(session._guard, "objections", lambda health, base: ("too bad",))
    session.advance()
    refused = session.advance()
    assert not refused.accepted
    assert refused.version == good == session.current
    assert session.status.refused == 1
    assert "too bad" in session.status.last_refusal
    assert f"step 4 refused, version {good.number} keeps serving: too bad" in caplog.text
    assert same(session._learner.network.state_dict(), weights_of(good.path))


def test_refusals_in_a_row_lower_the_step_size_and_a_reset_undoes_it(session, settings, monkeypatch):
    monkeypatch.setattr(session._guard, "objections", lambda health, base: ("too bad",))

    def rate():
        """Step size of the next step, as a share of the setting."""
        session.time_step()
        return session._learner._optimiser.param_groups[0]["lr"] / settings.learner.learning_rate

    rates = []
    for _ in range(4):
        session.handover()
        rates.append(rate())
    assert rates == [1, 0.5, 0.25, 0.125]
    assert "the step size is 0.125 of learner.learning_rate" in session.status.last_refusal
    settings.learner.learning_rate /= 2  # a live parameter: it does not undo the lowering
    assert rate() == 0.125
    session.reset()
    session.handover()
    assert rate() == 1


def let_through(session, monkeypatch, verdicts):
    """Hand over once a verdict of the guard; the step size afterwards, as a share of the setting."""
    remaining = iter(verdicts)
    monkeypatch.setattr(session._guard, "objections", lambda health, base: next(remaining))
    health = Health(finite=True, source_miou=0.5, score=0.5, agreement=0.5, largest_share=0.5, classes=3)
    monkeypatch.setattr(session._guard, "measure", lambda network, known=None: (health, health))
    monkeypatch.setattr(session._guard, "score", lambda network, known=None: 0.6)  # what serves is better
    shares = []
    for _ in verdicts:
        assert not session.handover().accepted
        shares.append(session._learner.rate_share)
    return shares


BAD, GOOD = ("too bad",), ()


def test_weights_that_the_guard_lets_through_end_a_row_of_refusals(session, monkeypatch):
    assert let_through(session, monkeypatch, [BAD, GOOD, BAD]) == [1, 1, 1]
    assert session.status.refused == 2


def test_weights_that_the_guard_lets_through_in_a_row_raise_the_step_size_again(session, monkeypatch):
    verdicts = [BAD, BAD, BAD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD]
    assert let_through(session, monkeypatch, verdicts) == [1, 0.5, 0.25, 0.25, 0.5, 0.5, 0.5, 1, 1]


def test_a_hand_over_that_cannot_be_written_does_not_raise_the_step_size(session, monkeypatch):
    assert let_through(session, monkeypatch, [BAD, BAD, BAD, GOOD]) == [1, 0.5, 0.25, 0.25]
    monkeypatch.setattr(session._guard, "objections", lambda health, base: GOOD)
    with monkeypatch.context() as patch:
        patch.setattr("s4net_core.files.write_atomically", disk_full)
        for _ in range(3):
            with pytest.raises(S4NetError, match="No space left"):
                session.handover()
    assert session._learner.rate_share == 0.25
    session.handover()
    assert session._learner.rate_share == 0.5


def test_a_network_that_collapsed_to_one_class_rolls_back_to_the_base_model(session, settings, base):
    settings.guard.max_class_share = 0.9
    head = [m for m in session._learner.network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.eye(len(head.bias))[0])
    refused = session.handover()
    assert (refused.accepted, session.current.number, session.status.refused) == (False, 0, 1)
    assert "one class" in session.status.last_refusal
    assert same(session._learner.network.state_dict(), weights_of(base))


def test_a_loss_that_is_not_finite_rolls_back(session):
    with torch.no_grad():
        next(session._learner.network.parameters()).fill_(float("nan"))
    refused = session.advance()
    assert not refused.accepted
    assert "not finite" in session.status.last_refusal or "nan" in session.status.last_refusal
    assert session.advance() is None or session.current  # learning goes on
    assert all(torch.isfinite(p).all() for p in session._learner.network.parameters())


def test_a_loss_that_is_never_finite_ends_learning_instead_of_trying_for_ever(session, monkeypatch):
    def broken():
        raise LearningError("loss is nan")

    monkeypatch.setattr(session._learner, "step", broken)
    for _ in range(4):
        assert not session.advance().accepted
    with pytest.raises(LearningError, match="5 times in a row"):
        session.advance()


def test_keyframes_of_another_boot_are_left_out_because_odom_starts_anew(start, session, settings, monkeypatch):
    for _ in range(4):
        session.advance()
    session.save()
    monkeypatch.setattr("s4net_core.learning.state_folder.boot_id", lambda: "another boot")
    again = start()
    assert (len(again.keyframes), again.current.number) == (0, 2)
    settings.keyframes.after_restart = "keep"
    assert len(start().keyframes) == len(session.keyframes)
    settings.keyframes.after_restart = "drop"
    assert len(start().keyframes) == 0


@pytest.fixture
def earlier(settings, start, frames, monkeypatch):
    """A session that has learned in another place, before the computer was started again."""
    settings.adaptation.max_steps, settings.adaptation.steps_per_keyframe = 0, 1.0
    session = start(frames)
    run_to_end(session)
    session.save()
    monkeypatch.setattr("s4net_core.learning.state_folder.boot_id", lambda: "another boot")
    return session


def test_steps_of_an_earlier_place_do_not_count_for_the_keyframes_of_now_also_after_a_crash(earlier, start, frames):
    second = start(frames[:12])
    second.save()
    again = start()  # before a hand-over
    assert len(again.keyframes) == len(second.keyframes) < len(earlier.keyframes)
    assert again.state == "learning"
    run_to_end(again)
    steps = again.status.step
    assert steps > earlier.status.step
    assert (start().status.step, start().state) == (steps, "waiting")
    again = start()
    again.reset()
    again.close()
    assert start().stopping.steps_before_views == 0


def test_the_last_step_before_a_rest_is_handed_over(settings, start, frames):
    settings.adaptation.max_steps, settings.adaptation.steps_per_keyframe = 0, 0.5
    session = start(frames)
    session.stopping.steps_before_views = 1  # of a run that ended between two hand-overs
    handovers = {}
    while session.state == "learning":
        handover = session.advance()
        handovers[session.status.step] = handover
    assert max(handovers) % settings.adaptation.handover_every
    assert handovers[max(handovers)] is not None


def test_in_a_folder_that_cannot_be_written_steps_of_an_earlier_place_do_not_count_either(
    earlier, start, frames, monkeypatch
):
    def read_only(folder):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(StateFolder, "_take_lock", read_only)
    second = start(frames[:12])
    assert second.state == "learning"
    assert second.stopping.steps_before_views == earlier.status.step
    assert "Read-only file system" in second.status.unsaved


def test_what_the_weights_that_serve_say_is_kept_of_the_keyframes_of_now_alone(settings, start, frames, monkeypatch):
    settings.keyframes.holdout = 2
    session = start(frames)
    held_out, evicted = session.keyframes.held_out(settings.learner.min_overlap)[0], 999
    session._weights.labels = dict.fromkeys((held_out, evicted), np.zeros((48, 64), np.uint8))
    serving = session._weights.current
    monkeypatch.setattr(session._guard, "score", lambda network, known=None: 2.0 if network is serving else 1.0)
    session.advance()
    assert not session.advance().better
    assert set(session._weights.labels) == {held_out}


def test_a_keyframe_that_does_not_fit_into_the_memory_for_them_is_refused_at_the_start(settings, start):
    settings.model.width, settings.model.height, settings.keyframes.max_megabytes = 640, 480, 1
    with pytest.raises(
        SettingsError, match=r"max_megabytes is 1 but a single keyframe of 640x480 takes 1\.5: raise it"
    ):
        start()
    settings.keyframes.max_megabytes = 2
    start()


def test_it_works_at_the_size_of_the_base_model_where_none_is_given(start, settings, frames):
    settings.model.width = settings.model.height = 0
    session = start(rescale_frame(frame, 96, 80) for frame in frames)
    while not session.current.number:
        session.advance()
    assert (session.settings.model.size, settings.model.size) == ((64, 48), (0, 0))
    assert session.keyframes.size == session.current.info.model.size == (64, 48)


def test_a_run_at_another_size_costs_no_keyframes_and_a_reset_forgets_those_of_all_sizes(
    start, session, settings, frames, caplog
):
    session.save()
    settings.model.width = 96
    other = start()
    assert len(other.keyframes) == 0
    assert "keyframes_64x48 stay, but are not used by keyframes_96x48" in caplog.text
    other.offer(rescale_frame(frames[0], 96, 48))
    other.save()
    settings.model.width = 64
    again = start()
    assert again.keyframes.ids() == session.keyframes.ids()
    again.reset()
    settings.model.width = 96
    assert len(start().keyframes) == 0


@pytest.fixture
def told_by(monkeypatch):
    """Numbers of images that told the teachers where to look, and what they were told: always 1 and 0.75."""
    asked = []

    def surest_looks(teacher, images):
        asked.append(len(images))
        return Looks([1.0, 0.75], surest=1.5)

    monkeypatch.setattr(Teacher, "surest_looks", surest_looks)
    return asked


def test_the_source_hold_out_tells_once_at_which_sizes_the_teachers_look(start, settings, frames, told_by, monkeypatch):
    monkeypatch.setattr("s4net_core.learning.session.SOURCE_SAMPLE", 2)
    settings.learner.teacher_refresh = 2  # so that there are two teachers
    session = start(frames)
    for _ in range(3):
        session.advance()
    assert told_by == [2]
    assert [teacher._scales for teacher in session._teachers] == [[1.0, 0.75]] * 2
    assert session._learner._teacher in session._teachers


def test_a_size_at_which_the_base_model_is_surer_is_named(start, frames, told_by, caplog):
    caplog.set_level("INFO")
    start(frames).advance()
    assert "surer of images of 96x72 than of 64x48, at which it works: see model.width" in caplog.text


def test_without_a_source_set_keyframes_tell_it_anew_when_there_are_twice_as_many(start, settings, frames, told_by):
    settings.adaptation.min_keyframes = 2
    session = start(source=None)
    numbers = []
    for frame in frames:
        if session.offer(frame).id is not None and session.stopping.enough_views:
            session.advance()
            numbers.append(len(session.keyframes))
    first = numbers[0]
    assert told_by == [number for number in numbers if number in (first, 2 * first, 4 * first)]
    assert len(told_by) > 1
    session.reset()
    for frame in frames:
        session.offer(frame)
    session.advance()
    assert told_by[-1] == len(session.keyframes)


def test_a_refused_version_counts_as_no_gain_and_never_as_the_best(session, monkeypatch):
    monkeypatch.setattr(session._guard, "objections", lambda health, base: ("collapsed",))
    session.advance()
    session.advance()
    assert session.stopping.patience.metrics == {"best_score_gain": 0.0, "handovers_without_gain": 1}


@pytest.mark.parametrize("file", ["000002.safetensors", "state.json"])
def test_a_full_disk_keeps_the_old_version_serving(session, monkeypatch, file):
    session.advance()
    session.advance()

    def full(path, data):
        if path.name == file:
            raise OSError(28, "No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr("s4net_core.files.write_atomically", full)
    session.advance()
    with pytest.raises(CheckpointError, match="No space left"):
        session.advance()
    assert session.current.number == 1
    assert session.current.path.is_file()
    assert "No space left on device" in session.status.unsaved
    monkeypatch.undo()
    assert session.handover().version.number == 2
    assert session.status.unsaved == ""


def test_learning_waits_for_new_keyframes_when_it_has_learnt_those_it_has(settings, start, frames):
    settings.adaptation.max_steps = 0
    settings.adaptation.steps_per_keyframe = 0.5
    session = start(frames[:12])
    run_to_end(session)
    whole = len(session.keyframes) // 2 // 2 * 2  # half a step a keyframe, by the hand-over of two steps
    assert (session.status.step, session.status.state) == (whole, "waiting")
    assert session.current.info.step == whole
    for frame in frames[12:]:
        session.offer(frame)
    assert session.status.state == "learning"


def test_views_that_are_too_few_for_a_hand_over_still_get_one(settings, start, frames):
    settings.adaptation.max_steps, settings.adaptation.handover_every = 0, 20
    settings.adaptation.steps_per_keyframe = 0.5
    session = start(frames[:12])
    assert len(session.keyframes) < 40
    assert session.stopping.last_step == 20
    run_to_end(session)
    assert (session.status.step, session.status.state) == (20, "waiting")
    settings.adaptation.max_steps = 10
    assert session.stopping.last_step == 10
    settings.adaptation.max_steps = settings.adaptation.steps_per_keyframe = 0
    assert session.stopping.last_step is None


def test_averaged_weights_are_what_is_handed_over(settings, start, frames):
    settings.learner.weight_average = 0.9
    session = start(frames)
    session.advance()
    version = session.advance().version
    assert same(weights_of(version.path), session._learner.averaged.state_dict())
    assert not same(weights_of(version.path), session._learner.network.state_dict())


def test_rollback_goes_one_version_back_and_numbers_are_not_used_twice(session):
    first = [session.advance() for _ in range(4)]
    assert session.current.number == 2
    back = session.rollback()
    assert back == first[1].version == session.current
    assert same(session._learner.network.state_dict(), weights_of(back.path))
    session.advance()
    assert session.advance().version.number == 3


def test_rollback_of_the_base_model_stays_there(session, base):
    assert session.rollback().sha256 == file_sha256(base)
    assert base.is_file()


def test_reset_forgets_everything_but_the_base_model(session, base):
    run_to_end(session)
    assert session.reset().sha256 == session.current.sha256 == file_sha256(base)
    assert (len(session.keyframes), session.status.step, session.status.state) == (0, 0, "waiting")
    assert same(session._learner.network.state_dict(), weights_of(base))


def test_a_restart_goes_on_with_keyframes_weights_and_step(start, session):
    for _ in range(4):
        session.advance()
    session.save()
    again = start()
    assert again.keyframes.ids() == session.keyframes.ids()
    assert again.current.number == 2
    assert again.current.sha256 == session.current.sha256
    assert again.status.step == 4
    assert same(again._learner.network.state_dict(), session._learner.network.state_dict())


def test_a_damaged_newest_version_leads_to_the_one_before(start, session):
    for _ in range(4):
        session.advance()
    session.current.path.write_bytes(b"cut off")
    again = start()
    assert again.current.number == 1
    assert again._folder.versions._last_number == 2


def test_a_damaged_state_file_leads_to_the_base_model(start, session, base, tmp_path):
    for _ in range(4):
        session.advance()
    (state,) = (tmp_path / "state").glob("*/state.json")
    state.write_text(json.dumps({"versions": 3}))
    again = start()
    assert again.current.sha256 == file_sha256(base)
    assert again._folder.versions._last_number == 2


def test_another_base_model_has_a_state_of_its_own(start, session, tmp_path, base):
    session.advance()
    session.advance()
    other = tmp_path / "other.safetensors"
    network, info = load_checkpoint(base)
    save_checkpoint(other, network, info.model_copy(update={"step": 99}))
    again = start(base=other)
    assert (again.current.number, len(again.keyframes)) == (0, 0)
    assert start().current.number == 1


def test_old_versions_are_removed_but_never_the_base(session, base, settings):
    settings.adaptation.keep_versions = 1
    session._folder.versions._keep = 1
    handovers = run_to_end(session)
    assert [h.version.path.exists() for h in handovers] == [False, False, True]
    assert base.is_file()
    assert session.rollback().sha256 == file_sha256(base)


def test_weights_that_a_crash_has_left_behind_go_with_the_next_write(start, session):
    session.handover()
    kept = session.current.path
    old, next_one = kept.with_name("000000.safetensors"), kept.with_name("000002.safetensors")
    for left in (old, next_one):
        left.write_bytes(b"cut off")
    session = start()
    assert old.exists()
    assert session.handover().version.path == next_one
    assert not old.exists()
    assert kept.exists()
    assert load_checkpoint(next_one)[1].version == 2


def test_save_model_writes_what_serves(session, tmp_path):
    run_to_end(session)
    for folder in (tmp_path, tmp_path / "state"):
        session.save_model(folder / "mine" / "kitchen.safetensors")
    assert same(weights_of(tmp_path / "mine" / "kitchen.safetensors"), weights_of(session.current.path))
    assert read_info(tmp_path / "mine" / "kitchen.safetensors").version == session.current.number


def test_the_base_model_serves_from_a_copy_that_outlives_its_file(session, base):
    sha256 = file_sha256(base)
    base.unlink()
    assert file_sha256(session.current.path) == session.current.sha256 == sha256
    run_to_end(session)
    assert session.reset().sha256 == sha256


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("base.safetensors", "is the base model"),
        ("state/../base.safetensors", "is the base model"),
        ("link", "is the base model"),
        ("state/.lock", "is hidden"),
        ("state/SUB/weights/000009.safetensors", "folder of the state"),
        ("notes.txt", "is not overwritten"),
        ("pipe", "is not overwritten"),
        ("null", "is not overwritten"),
        ("nothing", "is not overwritten"),
    ],
)
def test_save_model_overwrites_nothing_but_weights_of_ours(session, tmp_path, base, target, said):
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for link, to in (("link", base), ("null", "/dev/null"), ("nothing", "/nowhere/x")):
        (tmp_path / link).symlink_to(to)
    path = tmp_path / target.replace("SUB", session.current.sha256[:12])
    before = {p: p.lstat() for p in tmp_path.rglob("*") if "state" not in p.parts}
    with pytest.raises(CheckpointError, match=said):
        session.save_model(path)
    assert before == {p: p.lstat() for p in tmp_path.rglob("*") if "state" not in p.parts}


def test_save_model_replaces_weights_of_ours(session, tmp_path):
    for _ in range(2):
        session.save_model(tmp_path / "mine.safetensors")


def test_a_state_folder_that_was_removed_is_locked_again_or_left_to_who_has_taken_it(session, start, frames, tmp_path):
    shutil.rmtree(tmp_path / "state")
    session.save()
    with pytest.raises(S4NetError, match="in use"):
        FolderLock(tmp_path / "state", "")
    shutil.rmtree(tmp_path / "state")
    with FolderLock.of_new(tmp_path / "state", ""), pytest.raises(S4NetError, match="in use"):
        session.save()


def nested(path):
    path.unlink()
    path.write_text("[" * 100_000)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", [nested, pipe, link_to_a_device])
def test_a_damaged_state_is_left_out_whatever_the_damage(start, session, base, damage):
    session.handover()
    session.save()
    session.close()
    folder = session.current.path.parent.parent
    for name in ("state.json", "keyframes_64x48/boot_id", "keyframes_64x48/index.json", "weights/000001.safetensors"):
        damage(folder / name)
    again = start()
    assert (again.status.version, again.status.keyframes) == (0, 0)


@pytest.mark.parametrize("steps", ["1e400", "Infinity", "NaN", "[]"])
def test_a_state_with_an_impossible_number_is_left_out(tmp_path, base, steps, caplog):
    _, version = base_version(base)
    store = VersionStore(version, tmp_path, 5)
    (tmp_path / "state.json").write_text(f'{{"last_number": 1, "steps": {steps}, "versions": []}}')
    store.resume()
    assert store.steps == 0
    assert "is damaged" in caplog.text


def test_a_state_folder_that_was_removed_gets_its_copy_of_the_base_model_again(session, base, tmp_path):
    session.handover()
    shutil.rmtree(tmp_path / "state")
    assert session.rollback().number == 0
    assert file_sha256(session.current.path) == session.current.sha256 == file_sha256(base)


@pytest.mark.parametrize("leave", ["rollback", "reset"])
def test_going_back_needs_no_disk_and_is_saved_when_it_can_be(session, start, monkeypatch, leave):
    session.save()
    given_up = [session.handover().version, session.handover().version]
    with monkeypatch.context() as patch:
        patch.setattr("s4net_core.files.write_atomically", disk_full)
        getattr(session, leave)()
        assert session.status.version == (1 if leave == "rollback" else 0)
        assert getattr(session, leave)().number == session.status.version == 0
        assert "No space left" in session.status.unsaved
        assert all(version.path.is_file() for version in given_up)
    session.save()
    assert session.status.unsaved == ""
    assert not any(version.path.exists() for version in given_up)
    again = start()
    assert again.status.version == 0
    assert (len(again.keyframes) == 0) == (leave == "reset")
    assert again.handover().version.number == 3  # no number is used twice


def test_a_removed_folder_gets_its_copy_of_the_base_model_at_the_first_write_that_succeeds(
    session, base, tmp_path, monkeypatch, caplog
):
    shutil.rmtree(tmp_path / "state")
    with monkeypatch.context() as patch:
        patch.setattr("s4net_core.learning.state_folder.write_atomically", disk_full)
        with pytest.raises(S4NetError, match="No space left"):
            session.save()
    session.save()
    assert file_sha256(session.current.path) == file_sha256(base)
    shutil.rmtree(tmp_path / "state")
    base.write_bytes(b"another model")
    session.save()
    assert f"{base} is gone or changed" in caplog.text


def test_what_killed_writers_left_is_removed_at_the_start(start, session):
    session.handover()
    weights = session.current.path.parent
    session.close()
    (weights / ".000009.safetensors.1a2b3c4d.tmp").write_bytes(b"half")
    start()
    assert [path.name for path in weights.iterdir()] == ["000001.safetensors"]


def measured_as(session, monkeypatch, *scores, base=0.4):
    """Let the guard measure these scores, one for each hand-over, and of what serves the score that it had then."""
    values = iter(scores)
    health = Health(True, 0.5, base, 0.8, 0.5, 5)
    monkeypatch.setattr(
        session._guard, "measure", lambda network, known=None: (replace(health, score=next(values)), health)
    )
    monkeypatch.setattr(
        session._guard, "score", lambda network, known=None: session.current.info.metrics.get("score", base)
    )


@pytest.fixture
def patient(settings, start, frames):
    """A session that ends after two hand-overs without gain and never before."""
    settings.adaptation.max_steps, settings.adaptation.patience, settings.adaptation.handover_every = 0, 2, 1
    return start(frames)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ((0.5, 0.6, 0.6, 0.55), "it rose twice, then no more"),
        ((0.39, 0.3), "it never rose above the base model's"),
        ((0.5, 0.504, 0.508, 0.512, 0.512), "small rises count when they add up"),
        ((0.5, float("nan"), float("nan")), "what cannot be measured is no gain"),
    ],
)
def test_no_further_gain_ends_learning(patient, settings, monkeypatch, scores, why):
    settings.adaptation.min_gain = 0.005
    measured_as(patient, monkeypatch, *scores)
    assert len(run_to_end(patient)) == len(scores), why
    assert patient.status.state == "finished"
    assert patient.stopping.patience.exhausted


def test_of_two_versions_the_better_serves_and_learning_goes_on_from_its_own(patient, tmp_path, monkeypatch):
    measured_as(patient, monkeypatch, 0.6, 0.5, 0.6)
    best = patient.advance()
    assert (best.accepted, best.version.info.metrics["score"]) == (True, 0.6)
    files = set(tmp_path.rglob("*.safetensors"))
    worse = patient.advance()
    assert (worse.accepted, worse.better, worse.reasons, worse.version) == (False, False, (), best.version)
    assert (patient.status.handovers, patient.status.refused) == (1, 0)
    assert files == set(tmp_path.rglob("*.safetensors"))
    with patient._weights.network() as network:
        assert same(network.state_dict(), weights_of(best.version.path))
    assert not same(patient._learner.network.state_dict(), weights_of(best.version.path))
    learnt = {name: value.clone() for name, value in patient._learner.network.state_dict().items()}
    equal = patient.handover()  # nothing learnt since
    assert (equal.accepted, equal.version.number) == (True, 2)
    assert same(weights_of(equal.version.path), learnt)


@pytest.mark.parametrize(("score", "accepted"), [(0.4, False), (0.5, True), (0.6, True)])
def test_new_weights_are_compared_with_those_that_serve_now(session, monkeypatch, score, accepted):
    """Both on the keyframes of this moment: a score of an earlier moment was measured on others."""
    serving = session._weights.current
    monkeypatch.setattr(session._guard, "score", lambda network, known=None: 0.5 if network is serving else score)
    session.advance()
    assert session.advance().accepted == accepted


def leave_owing(session):
    """Learn up to the first hand-over, which finds the disk full."""

    def full(path, data):
        raise OSError(28, "No space left on device")

    session.advance()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s4net_core.files.write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left"):
            session.advance()


@pytest.mark.parametrize(("score", "accepted", "without_gain"), [(0.6, True, 0), (0.3, False, 1)])
@pytest.mark.parametrize(
    ("limit", "state"), [("keyframes", "waiting"), ("max_steps", "finished"), ("none", "learning")]
)
def test_a_hand_over_that_found_the_disk_full_is_tried_again_without_a_step_and_counts_once(
    session, settings, monkeypatch, score, accepted, without_gain, limit, state
):
    if limit == "keyframes":
        settings.adaptation.steps_per_keyframe = 2.5 / len(session.keyframes)
    if limit == "max_steps":
        settings.adaptation.max_steps = 2
    measured_as(session, monkeypatch, score, score)
    leave_owing(session)
    assert session.status.state == "learning"
    assert session.stopping.patience.metrics == {"best_score_gain": 0.0, "handovers_without_gain": 0}
    assert session.advance().accepted == accepted
    assert (session.status.step, session.status.state) == (2, state)
    assert session.status.version == accepted
    counted = {"best_score_gain": pytest.approx(0.2) if accepted else 0.0, "handovers_without_gain": without_gain}
    assert session.stopping.patience.metrics == counted
    assert {name: session._metrics[name] for name in counted} == counted  # as written


@pytest.mark.parametrize(("leave", "step"), [("rollback", 3), ("reset", 1)])
def test_a_rollback_or_a_reset_forgets_the_hand_over_that_could_not_be_written(session, frames, leave, step):
    leave_owing(session)
    getattr(session, leave)()
    for frame in frames:
        session.offer(frame)
    assert session.advance() is None
    assert session.status.step == step


def test_after_a_restart_the_steps_whose_hand_over_could_not_be_written_are_made_again(session, start, settings):
    settings.adaptation.max_steps = 2
    leave_owing(session)
    session.save()
    again = start()
    assert (again.status.step, again.status.state) == (0, "learning")
    assert [handover.version.number for handover in run_to_end(again)] == [1]


def test_given_labels_reach_the_learner(settings, base, source, frames, tmp_path):
    asked = []
    with Session(settings, base, source, tmp_path / "state", labels_of=lambda view: asked.append(view.id)) as session:
        for frame in frames:
            session.offer(frame)
        session.advance()
        assert session.status.last_step.coverage == 0
        assert set(asked) <= set(session.keyframes.ids())
    assert len(asked) == settings.learner.target_batch


def test_without_a_source_set_the_keyframes_alone_are_learned(settings, base, frames, tmp_path):
    settings.keyframes.holdout = 4
    with Session(settings, base, None, tmp_path / "state") as session:
        for frame in frames:
            session.offer(frame)
        run_to_end(session)
        status = session.status
        assert status.last_step.loss_geometric > 0
        assert status.last_step.loss_source > 0  # distillation
        assert not same(session.learned.state_dict(), weights_of(base))
        assert math.isnan(status.health.source_miou)
        assert status.health.score > 0  # what is forgotten shows on the held-out keyframes


def test_without_a_source_set_a_restart_goes_on_from_what_was_learned(settings, base, frames, tmp_path):
    settings.learner.learning_rate = 0.01
    with Session(settings, base, None, tmp_path / "state") as session:
        for frame in frames:
            session.offer(frame)
        session.advance()
        assert session.advance().accepted
        learned = {name: value.clone() for name, value in session._learner.averaged.state_dict().items()}
    with Session(settings, base, None, tmp_path / "state") as again:
        assert again.current.number == 1
        for name, value in again._learner.averaged.state_dict().items():
            torch.testing.assert_close(value, learned[name], rtol=1e-4, atol=1e-6)
        assert not same(learned, weights_of(again.current.path))


def test_without_a_source_set_and_without_the_loss_between_views_there_is_nothing_to_learn(settings, base, tmp_path):
    settings.learner.lambda_geometric, settings.learner.lambda_depth = 0.0, 0.1  # it has no depth decoder
    with pytest.raises(SettingsError, match="lambda_geometric above 0, or name a source set"):
        Session(settings, base, None, tmp_path / "state")
    settings.learner.lambda_geometric = 1.0
    Session(settings, base, None, tmp_path / "state").close()  # the folder is free again


def test_a_restart_knows_for_how_long_nothing_has_gained(patient, start, monkeypatch):
    measured_as(patient, monkeypatch, 0.6, 0.55)
    for _ in range(2):
        patient.advance()
    patient.save()
    again = start()
    measured_as(again, monkeypatch, 0.58)
    assert again.state == "learning"
    assert len(run_to_end(again)) == 1
    assert again.state == "finished"


def test_a_restart_without_the_newest_version_forgets_the_gain_that_is_lost_with_it(patient, start, monkeypatch):
    measured_as(patient, monkeypatch, 0.5, 0.6, 0.55)
    for _ in range(3):
        patient.advance()
    assert patient.current.number == 2
    patient.current.path.write_bytes(b"cut off")
    again = start()
    assert again.current.number == 1
    assert again.stopping.patience.metrics == {"best_score_gain": pytest.approx(0.1), "handovers_without_gain": 0}


def test_a_rollback_forgets_the_gain_that_it_gives_up(patient, monkeypatch):
    measured_as(patient, monkeypatch, 0.5, 0.8, 0.6, 0.59, 0.58)
    for _ in range(2):
        patient.advance()
    patient.rollback()
    assert len(run_to_end(patient)) == 3  # 0.6 is a gain over 0.5


def test_a_source_set_without_room_for_a_hold_out_is_refused_and_the_folder_stays_free(settings, start):
    settings.guard.holdout = 8
    with pytest.raises(SourceSetError, match=r"guard\.holdout"):
        start()
    settings.guard.holdout = 2
    start()


def test_a_missing_base_model_is_named(start, session, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        start(base=tmp_path / "nowhere.safetensors")


# Weights stay in memory.


def test_a_refusal_reads_no_file(session, monkeypatch):
    session.advance()
    good = session.advance().version
    weights = weights_of(good.path)
    good.path.unlink()
    monkeypatch.setattr(session._guard, "objections", lambda health, base: ("too bad",))
    session.advance()
    assert not session.advance().accepted
    assert same(session._learner.network.state_dict(), weights)


def test_weights_that_could_not_be_written_do_not_serve(session, base, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    session.advance()
    with monkeypatch.context() as patch:
        patch.setattr("s4net_core.files.write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left"):
            session.handover()
    with torch.no_grad():
        next(session._learner.network.parameters()).fill_(float("nan"))
    assert not session.advance().accepted
    assert same(session._learner.network.state_dict(), weights_of(base))


def test_a_rollback_to_a_lost_file_goes_to_the_version_before_it(session):
    versions = [handover.version for handover in run_to_end(session)]
    versions[1].path.write_bytes(b"cut off")
    weights = weights_of(versions[0].path)
    assert session.rollback() == versions[0]
    assert same(session._learner.network.state_dict(), weights)


def test_counts_are_those_of_the_session_whatever_is_reset(session, frames, monkeypatch):
    run_to_end(session)
    monkeypatch.setattr(session._guard, "objections", lambda health, base: ("too bad",))
    session.handover()
    before = session.status
    assert (before.offered, before.handovers, before.refused) == (len(frames), 3, 1)
    assert len(session.keyframes) + sum(before.rejected.values()) == len(frames)
    session.reset()
    after = session.status
    for name in ("offered", "rejected", "handovers", "refused"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.last_refusal == ""


# After its end.


class LongStep:
    """A step of a session, in a thread of its own, that runs until it may end."""

    def __init__(self, session, monkeypatch):
        self._begun, self._may_end = threading.Event(), threading.Event()
        self._result = None
        step = session._learner.step

        def slow():
            self._begun.set()
            assert self._may_end.wait(WAIT_S)
            return step()

        monkeypatch.setattr(session._learner, "step", slow)
        self._thread = threading.Thread(target=self._run, args=(session,))
        self._thread.start()
        assert self._begun.wait(WAIT_S)

    def _run(self, session):
        try:
            self._result = session.advance()
        except Exception as error:
            self._result = error

    def end(self):
        """What came of the step."""
        self._may_end.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return self._result


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_step_that_outlives_the_session_writes_nothing_and_keeps_the_folder_until_it_ends(
    start, session, settings, base, source, tmp_path, monkeypatch
):
    session.advance()
    session.save()
    before, current = files_in(tmp_path / "state"), session.current
    step = LongStep(session, monkeypatch)  # the second one: a hand-over is due
    assert not session.close(timeout=0.05)
    with pytest.raises(S4NetError, match="in use"):
        Session(settings, base, source, tmp_path / "state")
    assert isinstance(step.end(), SessionClosed)
    assert files_in(tmp_path / "state") == before
    assert session.current == current
    again = start()
    assert (again.current.number, again.keyframes.ids()) == (0, session.keyframes.ids())


def test_closing_waits_for_a_step_that_ends_in_time(session, monkeypatch):
    step = LongStep(session, monkeypatch)
    threading.Timer(0.05, step.end).start()
    assert session.close(timeout=WAIT_S)


@pytest.mark.parametrize("name", ["advance", "handover", "rollback", "reset", "save"])
def test_a_closed_session_does_nothing_any_more(session, tmp_path, name):
    session.save()
    before = files_in(tmp_path / "state")
    assert session.close()
    with pytest.raises(SessionClosed, match="closed"):
        getattr(session, name)()
    with pytest.raises(SessionClosed):
        session.save_model(tmp_path / "late.safetensors")
    assert files_in(tmp_path / "state") == before
    assert not (tmp_path / "late.safetensors").exists()


def test_two_sessions_do_not_share_a_folder(session, settings, base, source, tmp_path):
    with pytest.raises(S4NetError, match="in use"):
        Session(settings, base, source, tmp_path / "state")


def test_a_folder_that_cannot_be_written_stops_nothing_until_there_is_something_to_write(
    start, frames, tmp_path, caplog
):
    (tmp_path / "file").write_text("")
    session = start(frames, folder="file/state")
    assert "nothing is saved: state folder" in caplog.text
    assert "file/state cannot be written" in session.status.unsaved
    session.advance()
    with pytest.raises(S4NetError, match="cannot be written"):
        session.advance()
    (tmp_path / "file").unlink()
    assert session.handover().version.number == 1
    assert session.status.unsaved == ""
