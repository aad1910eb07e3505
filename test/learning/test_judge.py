"""The judge: what many views of the base model say together, on keyframes that nobody learns from."""

import math

import numpy as np
import pytest
import torch

from s4net_core.evaluation.agreement import agreement_of_each, compared_views
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.guard import Guard
from s4net_core.learning.judge import Judge
from s4net_core.learning.labeller import Labeller
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import Outputs
from s4net_core.models.checkpoint import load_checkpoint

CPU = torch.device("cpu")
WALL = 1


@pytest.fixture
def keyframes(settings, frames):
    """A view of each frame; every third one is held out."""
    settings.keyframes.holdout = 3
    settings.keyframes.min_translation, settings.keyframes.min_rotation = 0.05, 1.0  # every frame is new
    buffer = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames[:12]:
        buffer.offer(frame)
    return buffer


@pytest.fixture
def truth(frames, monkeypatch):
    """True labels by colour; the base model says them for every view."""
    labels = {frame.color.tobytes(): frame.label for frame in frames}

    def outputs(network, images, amp):
        colors = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        seen = torch.from_numpy(np.stack([labels[color.tobytes()] for color in colors]).astype(np.int64))
        return Outputs(100 * torch.nn.functional.one_hot(seen - 1, 37).permute(0, 3, 1, 2).float())

    monkeypatch.setattr("s4net_core.learning.teacher.all_outputs", outputs)
    return labels


@pytest.fixture
def judge(settings, base, keyframes, truth):
    return Judge(Teacher(load_checkpoint(base)[0], settings, CPU), keyframes, settings, Labeller(None, settings, CPU))


def says(monkeypatch, judge, label_of):
    """Let a network answer `label_of(color)`."""
    monkeypatch.setattr(judge, "predict", lambda network, views: [label_of(view.color) for view in views])


def merged(judge):
    """Labels with which the judge compares, by the colour of their keyframe."""
    return {view.color.tobytes(): label for view, label in judge._judged()}


def test_a_copy_of_the_merged_labels_scores_one(judge, monkeypatch):
    known = merged(judge)
    assert {label.shape for label in known.values()} == {(48, 64)}
    assert any((label == 0).any() for label in known.values())  # at borders; they do not count
    says(monkeypatch, judge, lambda color: np.where(known[color.tobytes()] == 0, 37, known[color.tobytes()]))
    assert judge.score(None) == 1.0
    says(monkeypatch, judge, lambda color: known[color.tobytes()] + 1)
    assert judge.score(None) == 0.0


def test_the_score_is_the_share_of_all_compared_pixels(judge, monkeypatch):
    known = merged(judge)
    compared = sum(np.count_nonzero(label) for label in known.values())
    of_walls = sum(np.count_nonzero(label == WALL) for label in known.values())
    says(monkeypatch, judge, lambda color: np.full((48, 64), WALL, np.uint8))
    assert judge.score(None) == pytest.approx(of_walls / compared)


def test_a_network_that_collapses_scores_low_although_its_views_agree(judge, keyframes, settings, truth, monkeypatch):
    says(monkeypatch, judge, lambda color: truth[color.tobytes()])
    assert judge.score(None) > 0.99
    collapsed = {id: np.full((48, 64), 37, np.uint8) for id in keyframes.ids()}
    views = compared_views(keyframes, collapsed, settings)
    assert agreement_of_each([collapsed], views, settings)[0].mean == 1.0
    says(monkeypatch, judge, lambda color: collapsed[0])
    assert judge.score(None) < 0.01


def test_it_looks_at_held_out_keyframes_alone(judge, keyframes, monkeypatch):
    seen = []
    wall = np.full((48, 64), WALL, np.uint8)
    monkeypatch.setattr(judge, "predict", lambda _, views: seen.extend(v.id for v in views) or [wall for _ in views])
    judge.score(None)
    assert seen == keyframes.held_out(0.25) == [2, 5, 8, 11]


def test_without_held_out_views_there_is_no_score(judge, keyframes, settings, base, source):
    network = load_checkpoint(base)[0]
    settings.keyframes.holdout = 0
    assert math.isnan(judge.score(network))
    guard = Guard(network, Teacher(network, settings, CPU), source, [0, 1], keyframes, settings, CPU)
    adapted, of_base = guard.measure(load_checkpoint(base)[0])
    assert math.isnan(adapted.score)
    assert guard.objections(adapted, of_base) == ()
    settings.keyframes.holdout = 3
    keyframes.clear()
    assert math.isnan(judge.score(network))


def test_labels_are_made_once_until_new_views_overlap(judge, keyframes, frames, monkeypatch):
    made, merged = [], judge._teacher.merged
    monkeypatch.setattr(judge._teacher, "merged", lambda view, others: made.append(view.id) or merged(view, others))
    says(monkeypatch, judge, lambda color: np.full((48, 64), WALL, np.uint8))
    judge.score(None)
    judge.score(None)
    assert made == [2, 5, 8, 11]
    before = {id: keyframes.overlapping(id, 0.25) for id in made}
    for frame in frames[12:16]:
        keyframes.offer(frame)
    changed = [id for id in before if {o for o, _ in keyframes.overlapping(id, 0.25)} != {o for o, _ in before[id]}]
    assert 11 in changed
    judge.score(None)
    new = [id for id in keyframes.held_out(0.25) if id not in before]
    assert made[4:] == sorted(changed + new)


def test_a_handover_measures_the_base_model_and_the_new_weights(settings, base, source, keyframes):
    """The base model alone disagrees with what its views say together, but more often than not it agrees."""
    network = load_checkpoint(base)[0]
    guard = Guard(network, Teacher(network, settings, CPU), source, [0, 1], keyframes, settings, CPU)
    adapted, of_base = guard.measure(load_checkpoint(base)[0])
    assert adapted == of_base
    assert 0.5 < of_base.score <= 1
    network = load_checkpoint(base)[0]
    with torch.no_grad():
        network.body.segmentation_head[0].bias[36] = 100.0
    adapted, _ = guard.measure(network)
    assert (adapted.score, adapted.agreement) == (0.0, 1.0)


def test_what_weights_have_said_is_not_predicted_again(judge, base, keyframes, frames, monkeypatch):
    seen, predict, known = [], judge.predict, {}
    monkeypatch.setattr(
        judge, "predict", lambda network, views: seen.append([v.id for v in views]) or predict(network, views)
    )
    network = load_checkpoint(base)[0]
    first = judge.score(network, known)
    assert judge.score(network, known) == first == judge.score(network)
    for frame in frames[12:16]:
        keyframes.offer(frame)
    judge.score(network, known)
    assert seen == [[2, 5, 8, 11], [], [2, 5, 8, 11], [14]]


def test_a_handover_predicts_new_keyframes_alone_for_the_base_model(
    settings, base, source, keyframes, frames, monkeypatch
):
    settings.guard.agreement_views = 100
    network = load_checkpoint(base)[0]
    guard = Guard(network, Teacher(network, settings, CPU), source, [0, 1], keyframes, settings, CPU)
    seen, labels = [], guard._labeller.labels

    def counted(network, colors):
        seen.extend((network is guard._base, key) for key in colors)
        return labels(network, colors)

    monkeypatch.setattr(guard._labeller, "labels", counted)
    adapted = load_checkpoint(base)[0]
    everything = [*keyframes.ids(), (0, False), (1, False)]
    first = guard.measure(adapted)
    assert sorted(seen, key=str) == sorted([(of_base, key) for of_base in (True, False) for key in everything], key=str)
    seen.clear()
    assert guard.score(network) == first[1].score  # it serves until the first hand-over
    assert not seen
    assert guard.measure(adapted) == first
    assert sorted(seen, key=str) == sorted([(False, key) for key in everything], key=str)
    for frame in frames[12:14]:
        keyframes.offer(frame)
    seen.clear()
    guard.measure(adapted)
    assert sorted(key for of_base, key in seen if of_base) == keyframes.ids()[-2:]


@pytest.mark.parametrize(
    ("holdout", "count", "targets"),
    [(3, 2, {2, 11}), (3, 5, {2, 5, 8, 11, 0}), (0, 2, {0, 11}), (3, 100, set(range(12)))],
)
def test_agreement_is_measured_on_held_out_views_first(settings, base, source, keyframes, holdout, count, targets):
    """Their labels are predicted anyway, for the score."""
    settings.keyframes.holdout, settings.guard.agreement_views = holdout, count
    network = load_checkpoint(base)[0]
    guard = Guard(network, Teacher(network, settings, CPU), source, [0, 1], keyframes, settings, CPU)
    nearest = {keyframes.overlapping(id, settings.learner.min_overlap)[0][0] for id in targets}
    adapted, _ = guard.measure(load_checkpoint(base)[0])
    assert set(adapted.agreement_of) == targets | nearest
