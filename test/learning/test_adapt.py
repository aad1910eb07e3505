"""The adaptation loop: what is handed over, refused, rolled back, and what survives a restart."""

import json
from dataclasses import replace

import pytest
import torch

from s4net_core.errors import CheckpointError, LearningError, SourceSetError
from s4net_core.files import write_atomically
from s4net_core.learning.adapt import Adaptation
from s4net_core.learning.guard import Health
from s4net_core.models.checkpoint import load_checkpoint, read_info


@pytest.fixture
def adaptation(settings, base, source, tmp_path, frames):
    adaptation = Adaptation(settings, base, source, tmp_path / "state")
    for frame in frames:
        adaptation.offer(frame)
    return adaptation


def run_to_end(adaptation):
    handovers = []
    while adaptation.ready:
        handover = adaptation.advance()
        if handover is not None:
            handovers.append(handover)
    return handovers


def weights_of(path):
    return load_checkpoint(path)[0].state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_it_waits_for_keyframes_then_learns_then_finishes(settings, base, source, tmp_path, frames):
    adaptation = Adaptation(settings, base, source, tmp_path / "state")
    assert (adaptation.ready, adaptation.status.state) == (False, "waiting")
    for frame in frames:
        adaptation.offer(frame)
    assert (adaptation.ready, adaptation.status.state) == (True, "learning")
    run_to_end(adaptation)
    assert (adaptation.status.step, adaptation.status.state) == (6, "finished")


def test_the_last_hand_over_still_belongs_to_learning(adaptation, monkeypatch):
    """Who stops at `finished` must find the last version."""
    seen = []
    handover = adaptation.handover

    def watched():
        seen.append(adaptation.status.state)
        return handover()

    monkeypatch.setattr(adaptation, "handover", watched)
    run_to_end(adaptation)
    assert seen == ["learning"] * 3
    assert adaptation.status.state == "finished"


def test_every_hand_over_is_a_new_version_with_its_parent(adaptation, base):
    handovers = run_to_end(adaptation)
    assert [h.version.number for h in handovers] == [1, 2, 3]
    parents = [adaptation._versions._good[0].sha256, *(h.version.sha256 for h in handovers[:-1])]
    assert [h.version.info.parent for h in handovers] == parents
    for handover in handovers:
        network, info = load_checkpoint(handover.version.path, sha256=handover.version.sha256)
        assert info.version == handover.version.number
        assert not same(network.state_dict(), weights_of(base))


def test_the_same_seed_gives_the_same_run(settings, base, source, tmp_path, frames):
    results = []
    for name in ("first", "second"):
        adaptation = Adaptation(settings, base, source, tmp_path / name)
        for frame in frames:
            adaptation.offer(frame)
        torch.manual_seed(len(name))  # the state of the global generator must not matter
        run_to_end(adaptation)
        results.append(weights_of(adaptation.current.path))
    assert same(*results)


def test_a_refused_version_rolls_back_and_says_why(adaptation, base, monkeypatch):
    adaptation.advance()
    adaptation.advance()
    good = adaptation.current
    monkeypatch.setattr(adaptation._guard, "objections", lambda health, base: ("too bad",))
    adaptation.advance()
    refused = adaptation.advance()
    assert not refused.accepted
    assert refused.version == good == adaptation.current
    assert adaptation.status.refused == 1
    assert "too bad" in adaptation.status.last_refusal
    assert same(adaptation._learner.network.state_dict(), weights_of(good.path))


def test_a_network_that_collapsed_to_one_class_rolls_back_to_the_base_model(adaptation, settings, base):
    settings.guard.max_class_share = 0.9
    head = [m for m in adaptation._learner.network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.eye(len(head.bias))[0])
    refused = adaptation.handover()
    assert (refused.accepted, adaptation.current.number, adaptation.status.refused) == (False, 0, 1)
    assert "one class" in adaptation.status.last_refusal
    assert same(adaptation._learner.network.state_dict(), weights_of(base))


def test_a_loss_that_is_not_finite_rolls_back(adaptation):
    with torch.no_grad():
        next(adaptation._learner.network.parameters()).fill_(float("nan"))
    refused = adaptation.advance()
    assert not refused.accepted
    assert "not finite" in adaptation.status.last_refusal or "nan" in adaptation.status.last_refusal
    assert adaptation.advance() is None or adaptation.current  # learning goes on
    assert all(torch.isfinite(p).all() for p in adaptation._learner.network.parameters())


def test_a_loss_that_is_never_finite_ends_learning_instead_of_trying_for_ever(adaptation, monkeypatch):
    def broken():
        raise LearningError("loss is nan")

    monkeypatch.setattr(adaptation._learner, "step", broken)
    for _ in range(4):
        assert not adaptation.advance().accepted
    with pytest.raises(LearningError, match="5 times in a row"):
        adaptation.advance()


def test_keyframes_of_another_boot_are_left_out_because_odom_starts_anew(
    adaptation, settings, base, source, tmp_path, monkeypatch
):
    for _ in range(4):
        adaptation.advance()
    adaptation.save_state()
    monkeypatch.setattr("s4net_core.learning.adapt.boot_id", lambda: "another boot")
    again = Adaptation(settings, base, source, tmp_path / "state")
    assert (len(again.keyframes), again.current.number) == (0, 2)
    settings.keyframes.after_restart = "keep"
    assert len(Adaptation(settings, base, source, tmp_path / "state").keyframes) == len(adaptation.keyframes)
    settings.keyframes.after_restart = "drop"
    assert len(Adaptation(settings, base, source, tmp_path / "state").keyframes) == 0


def test_keyframes_of_another_size_are_left_out(adaptation, settings, base, source, tmp_path, caplog):
    adaptation.save_state()
    settings.model.width = 96
    again = Adaptation(settings, base, source, tmp_path / "state")
    assert len(again.keyframes) == 0
    assert "96x48" in caplog.text
    assert "trained at 64x48" in caplog.text


def test_a_refused_version_counts_as_no_gain_and_never_as_the_best(adaptation, monkeypatch):
    monkeypatch.setattr(adaptation._guard, "objections", lambda health, base: ("collapsed",))
    adaptation.advance()
    adaptation.advance()
    assert (adaptation._best_gain, adaptation._handovers_without_gain) == (0.0, 1)


@pytest.mark.parametrize("file", ["000002.safetensors", "state.json"])
def test_a_full_disk_keeps_the_old_version_serving(adaptation, monkeypatch, file):
    adaptation.advance()
    adaptation.advance()

    def full(path, data):
        if path.name == file:
            raise OSError(28, "No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr("s4net_core.files.write_atomically", full)
    adaptation.advance()
    with pytest.raises(CheckpointError, match="No space left"):
        adaptation.advance()
    assert adaptation.current.number == 1
    assert adaptation.current.path.is_file()


def test_learning_waits_for_new_keyframes_when_it_has_learnt_those_it_has(settings, base, source, tmp_path, frames):
    settings.adaptation.max_steps = 0
    settings.adaptation.steps_per_keyframe = 0.5
    adaptation = Adaptation(settings, base, source, tmp_path / "state")
    for frame in frames[:12]:
        adaptation.offer(frame)
    run_to_end(adaptation)
    whole = len(adaptation.keyframes) // 2 // 2 * 2  # half a step a keyframe, by the hand-over of two steps
    assert (adaptation.status.step, adaptation.status.state) == (whole, "waiting")
    assert adaptation.current.info.step == whole
    for frame in frames[12:]:
        adaptation.offer(frame)
    assert adaptation.status.state == "learning"


def test_averaged_weights_are_what_is_handed_over(settings, base, source, tmp_path, frames):
    settings.learner.weight_average = 0.9
    adaptation = Adaptation(settings, base, source, tmp_path / "state")
    for frame in frames:
        adaptation.offer(frame)
    adaptation.advance()
    version = adaptation.advance().version
    assert same(weights_of(version.path), adaptation._learner.averaged.state_dict())
    assert not same(weights_of(version.path), adaptation._learner.network.state_dict())


def test_rollback_goes_one_version_back_and_numbers_are_not_used_twice(adaptation):
    first = [adaptation.advance() for _ in range(4)]
    assert adaptation.current.number == 2
    back = adaptation.rollback()
    assert back.version.number == 1
    assert back.version.path == first[1].version.path
    adaptation.advance()
    assert adaptation.advance().version.number == 3


def test_rollback_of_the_base_model_stays_there(adaptation, base):
    assert adaptation.rollback().version.path == base
    assert base.is_file()


def test_reset_forgets_everything_but_the_base_model(adaptation, base):
    run_to_end(adaptation)
    adaptation.reset()
    assert adaptation.current.path == base
    assert (len(adaptation.keyframes), adaptation.status.step, adaptation.status.state) == (0, 0, "waiting")
    assert same(adaptation._learner.network.state_dict(), weights_of(base))


def test_a_restart_goes_on_with_keyframes_weights_and_step(adaptation, settings, base, source, tmp_path):
    for _ in range(4):
        adaptation.advance()
    adaptation.save_state()
    again = Adaptation(settings, base, source, tmp_path / "state")
    assert again.keyframes.ids() == adaptation.keyframes.ids()
    assert again.current.number == 2
    assert again.current.sha256 == adaptation.current.sha256
    assert again.status.step == 4
    assert same(again._learner.network.state_dict(), adaptation._learner.network.state_dict())


def test_a_damaged_newest_version_leads_to_the_one_before(adaptation, settings, base, source, tmp_path):
    for _ in range(4):
        adaptation.advance()
    adaptation.current.path.write_bytes(b"cut off")
    again = Adaptation(settings, base, source, tmp_path / "state")
    assert again.current.number == 1
    again._learner.steps = 0
    assert again._versions._last_number == 2


def test_a_damaged_state_file_leads_to_the_base_model(adaptation, settings, base, source, tmp_path):
    for _ in range(4):
        adaptation.advance()
    (state,) = (tmp_path / "state").glob("*/state.json")
    state.write_text(json.dumps({"versions": 3}))
    again = Adaptation(settings, base, source, tmp_path / "state")
    assert again.current.path == base
    assert again._versions._last_number == 2


def test_another_base_model_has_a_state_of_its_own(adaptation, settings, source, tmp_path, base):
    adaptation.advance()
    adaptation.advance()
    other = tmp_path / "other.safetensors"
    network, info = load_checkpoint(base)
    from s4net_core.models.checkpoint import save_checkpoint

    save_checkpoint(other, network, info.model_copy(update={"step": 99}))
    again = Adaptation(settings, other, source, tmp_path / "state")
    assert (again.current.number, len(again.keyframes)) == (0, 0)
    assert Adaptation(settings, base, source, tmp_path / "state").current.number == 1


def test_old_versions_are_removed_but_never_the_base(adaptation, base, settings):
    settings.adaptation.keep_versions = 1
    adaptation._versions._keep = 1
    handovers = run_to_end(adaptation)
    assert [h.version.path.exists() for h in handovers] == [False, False, True]
    assert base.is_file()
    assert adaptation.rollback().version.path == base


def test_save_model_writes_what_serves(adaptation, tmp_path):
    run_to_end(adaptation)
    adaptation.save_model(tmp_path / "mine" / "kitchen.safetensors")
    assert same(weights_of(tmp_path / "mine" / "kitchen.safetensors"), weights_of(adaptation.current.path))
    assert read_info(tmp_path / "mine" / "kitchen.safetensors").version == adaptation.current.number


def measured_as(adaptation, monkeypatch, *agreements, base=0.4):
    """Let the guard find these agreements between views, one a hand-over."""
    values = iter(agreements)
    health = Health(True, 0.5, base, 0.5, 5)
    monkeypatch.setattr(adaptation._guard, "measure", lambda network: (replace(health, agreement=next(values)), health))


@pytest.fixture
def patient(settings, base, source, tmp_path, frames):
    """An adaptation that ends after two hand-overs without gain and never before."""
    settings.adaptation.max_steps, settings.adaptation.patience, settings.adaptation.handover_every = 0, 2, 1
    adaptation = Adaptation(settings, base, source, tmp_path / "state")
    for frame in frames:
        adaptation.offer(frame)
    return adaptation


@pytest.mark.parametrize(
    ("agreements", "why"),
    [
        ((0.5, 0.6, 0.6, 0.55), "it rose twice, then no more"),
        ((0.39, 0.3), "it never rose above the base model's"),
        ((0.5, 0.504, 0.508, 0.512, 0.512), "small rises count when they add up"),
        ((0.5, float("nan"), float("nan")), "what cannot be measured is no gain"),
    ],
)
def test_no_further_gain_ends_learning(patient, settings, monkeypatch, agreements, why):
    settings.adaptation.min_gain = 0.005
    measured_as(patient, monkeypatch, *agreements)
    assert len(run_to_end(patient)) == len(agreements), why
    assert patient.status.state == "finished"
    assert patient.converged


def test_a_restart_knows_for_how_long_nothing_has_gained(patient, settings, base, source, tmp_path, monkeypatch):
    measured_as(patient, monkeypatch, 0.6, 0.55)
    for _ in range(2):
        patient.advance()
    patient.save_state()
    again = Adaptation(settings, base, source, tmp_path / "state")
    measured_as(again, monkeypatch, 0.58)
    assert not again.finished
    assert len(run_to_end(again)) == 1
    assert again.converged


def test_a_rollback_forgets_the_gain_that_it_gives_up(patient, monkeypatch):
    measured_as(patient, monkeypatch, 0.5, 0.8, 0.6, 0.59, 0.58)
    for _ in range(2):
        patient.advance()
    patient.rollback()
    assert len(run_to_end(patient)) == 3  # 0.6 is a gain over 0.5


def test_a_source_set_without_room_for_a_hold_out_is_refused(settings, base, source, tmp_path):
    settings.guard.holdout = 8
    with pytest.raises(SourceSetError, match=r"guard\.holdout"):
        Adaptation(settings, base, source, tmp_path / "state")


def test_a_missing_base_model_is_named(settings, source, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        Adaptation(settings, tmp_path / "nowhere.safetensors", source, tmp_path / "state")
