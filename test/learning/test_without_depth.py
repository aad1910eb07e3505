"""Adaptation to a capture that has colour and poses alone: its depth is predicted, by whom and when."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from s4net_core.cli.main import main
from s4net_core.config import to_yaml
from s4net_core.errors import CheckpointError
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.base_model import check_branches, open_source
from s4net_core.learning.guard import Guard
from s4net_core.learning.session import Session
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import load_checkpoint, read_info, save_checkpoint
from s4net_core.models.segmenter import Segmenter


@pytest.fixture
def settings(settings):
    settings.geometry.depth, settings.model.depth_decoder = "predicted", True
    return settings


@pytest.fixture
def colors(frames):
    """The room without its depth."""
    return [replace(frame, depth=None) for frame in frames]


def adapt(settings, base, source, folder, frames):
    session = Session(settings, base, source, folder)
    for frame in frames:
        session.offer(frame)
    while session.state == "learning":
        session.advance()
    return session


def test_it_learns_from_colour_and_poses_alone(settings, base, source, tmp_path, colors):
    session = adapt(settings, base, source, tmp_path / "state", colors)
    status = session.status
    assert (status.state, status.step, status.version) == ("finished", 6, 3)
    assert status.rejected.get("no_depth", 0) == 0
    assert status.last_step.coverage > 0
    assert status.last_step.loss_depth_geometric > 0
    assert np.isfinite(status.health.agreement)
    before, after = load_checkpoint(base)[0].state_dict(), load_checkpoint(session.current.path)[0].state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("depth_branch"))


def test_depth_that_a_frame_has_is_not_used(settings, base, source, tmp_path, frames, colors):
    settings.adaptation.max_steps = 2
    with_depth = adapt(settings, base, source, tmp_path / "with", frames)
    without = adapt(settings, base, source, tmp_path / "without", colors)
    assert with_depth.keyframes.ids() == without.keyframes.ids()
    one, other = (load_checkpoint(a.current.path)[0].state_dict() for a in (with_depth, without))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_new_view_gets_its_depth_from_the_weights_that_serve(settings, base, source, tmp_path, colors):
    settings.learner.learning_rate = 3e-3  # so that versions differ by more than a millimetre
    session = Session(settings, base, source, tmp_path / "state")
    for frame in colors[:16]:
        session.offer(frame)
    first = session.keyframes.get(session.keyframes.ids()[0])
    np.testing.assert_allclose(first.depth, Segmenter(base, "cpu", settings).depth(first.color), atol=6e-4)
    session.advance()
    session.handover()
    known = len(session.keyframes)
    for frame in colors[16:]:
        session.offer(frame)
    assert len(session.keyframes) > known
    last = session.keyframes.get(session.keyframes.ids()[-1])
    served, old = (Segmenter(path, "cpu", settings).depth(last.color) for path in (session.current.path, base))
    np.testing.assert_allclose(last.depth, served, atol=6e-4)
    assert np.abs(last.depth - old).max() > 2e-3


def test_depth_of_a_new_view_needs_no_file(settings, base, source, tmp_path, colors):
    session = adapt(settings, base, source, tmp_path / "state", colors[:12])
    expected = Segmenter(session.current.path, "cpu", settings).depth(colors[23].color)
    session.current.path.unlink()
    view = session.keyframes.get(session.offer(colors[23]).id)
    np.testing.assert_allclose(view.depth, expected, atol=6e-4)


def test_versions_of_the_base_model_s_own_past_are_not_taken_for_those_learnt_here(
    settings, base, source, tmp_path, colors
):
    """Weights adapted elsewhere may serve as base model: their version 1 is not version 1 of this session."""
    settings.learner.learning_rate = 3e-3
    network, info = load_checkpoint(base)
    save_checkpoint(base, network, info.model_copy(update={"version": 1}))
    session = Session(settings, base, source, tmp_path / "state")
    for frame in colors[:16]:
        session.offer(frame)
    session.advance()
    assert session.handover().version.number == 1
    last = next(offer for frame in colors[16:] if (offer := session.offer(frame)).id is not None)
    view = session.keyframes.get(last.id)
    served = Segmenter(session.current.path, "cpu", settings).depth(view.color)
    np.testing.assert_allclose(view.depth, served, atol=6e-4)


def test_depth_is_predicted_by_torch_whatever_serves_the_labels(settings, base, source, tmp_path, colors, monkeypatch):
    """Both nodes read the same settings; an export would take seconds at each hand-over, and its graph has no depth."""
    monkeypatch.setattr("s4net_core.models.runtimes.OnnxTemplate", None)
    settings.segmentation.runtime = "onnx"
    session = Session(settings, base, source, tmp_path / "state")
    assert session.offer(colors[0]).reason == "new"


def test_predicted_depth_is_not_taken_for_that_of_a_camera_after_a_restart(
    settings, base, source, tmp_path, colors, caplog
):
    session = Session(settings, base, source, tmp_path / "state")
    for frame in colors[:8]:
        session.offer(frame)
    session.save()
    session.close()
    with Session(settings, base, source, tmp_path / "state") as again:
        assert again.keyframes.ids() == session.keyframes.ids()
    settings.geometry.depth = "sensor"
    with_camera = Session(settings, base, source, tmp_path / "state")
    assert len(with_camera.keyframes) == 0
    assert "depth was predicted" in caplog.text


def test_a_depth_branch_that_no_pixel_can_be_compared_with_is_refused(settings, base, source, frames):
    """All predicted depth lies beyond the largest allowed: no loss between views is left, and nothing is measured."""
    keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames:
        keyframes.offer(frame)
    network = load_checkpoint(base)[0]
    teacher = Teacher(network, settings, torch.device("cpu"))
    guard = Guard(network, teacher, source, [0], keyframes, settings, torch.device("cpu"))
    network = load_checkpoint(base)[0]
    with torch.no_grad():
        network.depth_branch.head[0].weight.zero_()
        network.depth_branch.head[0].bias.fill_(-20.0)
    (reason,) = guard.objections(*guard.measure(network))
    assert "no pixel" in reason


def test_the_guard_compares_both_networks_with_the_depth_of_the_newer(settings, base, source, frames, monkeypatch):
    keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames:
        keyframes.offer(frame)
    network = load_checkpoint(base)[0]
    teacher = Teacher(network, settings, torch.device("cpu"))
    guard = Guard(network, teacher, source, [0], keyframes, settings, torch.device("cpu"))
    newer = load_checkpoint(base)[0]
    truth = {frame.color.tobytes(): frame.depth for frame in frames}
    asked = []

    def predict(network, color, settings, device):
        asked.append(network)
        return truth[color.tobytes()]

    monkeypatch.setattr("s4net_core.learning.guard.predict_depth", predict)
    predicted = guard.measure(newer)
    assert all(network is newer for network in asked)
    settings.geometry.depth = "sensor"
    measured = guard.measure(newer)
    for one, other in zip(predicted, measured, strict=True):  # the keyframes' depth is rounded to millimetres
        assert one.agreement == pytest.approx(other.agreement, abs=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"geometry.depth": "predicted"}, r"no depth decoder but geometry\.depth is 'predicted': train"),
        ({"model.depth_decoder": True}, r"no depth decoder but model\.depth_decoder is true: train"),
        ({"model.auxiliary": "always"}, r"no auxiliary branch but model\.auxiliary is 'always': train"),
    ],
)
def test_a_base_model_without_the_branch_is_refused_with_setting_and_remedy(settings, source, tmp_path, change, words):
    settings.geometry.depth, settings.model.depth_decoder = "sensor", False
    save_checkpoint(tmp_path / "plain.safetensors", build_network(settings.model))
    for name, value in change.items():
        group, _, key = name.partition(".")
        setattr(getattr(settings, group), key, value)
    with pytest.raises(CheckpointError, match=words):
        Session(settings, tmp_path / "plain.safetensors", source, tmp_path / "state")


def test_a_base_model_may_have_more_than_the_settings_ask_for(settings, base):
    settings.geometry.depth, settings.model.depth_decoder = "sensor", False
    check_branches(base, read_info(base).model, settings)


def test_the_source_set_has_depth_when_the_base_model_learns_it(settings, base, source, tmp_path, frames, caplog):
    write_scene_folder(tmp_path / "labelled", frames[:6])
    settings.checkpoint, settings.source.path = str(base), str(tmp_path / "labelled")
    with caplog.at_level(logging.WARNING):
        adapted = adapt(settings, base, open_source(settings), tmp_path / "state", frames)
        assert adapted.status.last_step.loss_depth_source > 0
        assert "has no depth" not in caplog.text
        Session(settings, base, source, tmp_path / "other")
    assert "has no depth: the depth decoder learns from pairs of views alone" in caplog.text
    settings.checkpoint = str(tmp_path / "plain.safetensors")
    settings.model.depth_decoder = False
    save_checkpoint(settings.checkpoint, build_network(settings.model))
    assert open_source(settings)[0].depth is None


@pytest.mark.parametrize("kind", ["scene folder", "bag"])
def test_the_command_adapts_to_a_capture_without_depth(settings, base, source, tmp_path, colors, kind, capsys):
    if kind == "bag":
        write_bag(tmp_path / "capture", colors)
    else:
        write_scene_folder(tmp_path / "capture", colors)
    settings.adaptation.max_steps = 2
    (tmp_path / "settings.yaml").write_text(to_yaml(settings))
    given = ["--checkpoint", str(base), "--source", str(source.path), "--settings", str(tmp_path / "settings.yaml")]
    assert main(["adapt", str(tmp_path / "capture"), str(tmp_path / "out.safetensors"), *given]) == 0, (
        capsys.readouterr()
    )
    info = read_info(tmp_path / "out.safetensors")
    assert (info.version, info.step, info.model.depth_decoder) == (1, 2, True)
