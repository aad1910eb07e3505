"""Pre-training: when it stops, what it keeps, that it goes on as if never interrupted, and that devices add up."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scenes import make_room_frames, make_source_images, write_source_set
from torch import nn

from s4net_core.config import from_values
from s4net_core.errors import CheckpointError, LearningError, S4NetError, SettingsError, SourceSetError
from s4net_core.evaluation.metrics import SegmentationScores
from s4net_core.io.source_sets.files import FolderSourceSet
from s4net_core.io.source_sets.files import write_source_set as write_labelled_images
from s4net_core.io.source_sets.source_set import LabelledImage, split
from s4net_core.learning import pretraining, training_state
from s4net_core.learning.devices import training_fabric
from s4net_core.learning.pretraining import Pretraining, SourceLosses
from s4net_core.learning.training_state import load_state, save_state
from s4net_core.losses import median_frequency_weights
from s4net_core.models.checkpoint import file_sha256, load_checkpoint, read_info

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(settings):
    """Everything that is random is on: dropout, live batch norm, mirroring, zoom and colours."""
    settings.pretrain = settings.pretrain.model_copy(update={"steps": 4, "batch": 2, "workers": 0, "patience": 0})
    settings.pretrain.learning_rate = 1e-3
    return settings


def pretrain(*given, log=None, on_step=lambda report: None, on_score=lambda score: None, **options):
    return Pretraining(*given, **options).run(log=log, on_step=on_step, on_score=on_score)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "base.safetensors", tmp_path / "base.state"


def weights_of(path):
    return load_checkpoint(path)[0].state_dict()


def network_in(state):
    return torch.load(state, weights_only=True)["state"]["network"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def score_in_turn(monkeypatch, *mious):
    values = iter(mious)
    monkeypatch.setattr(pretraining, "pooled_scores", lambda counts: SegmentationScores(0.5, 0.5, next(values), 0.5))


def test_it_learns(settings, source, place):
    settings.pretrain.steps = 30
    losses = []
    info = pretrain(settings, source, place[0], on_step=lambda report: losses.append(report.loss))
    assert len(losses) == info.step == 30
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert read_info(place[0]).metrics.keys() == {"source_miou", "source_pixel_accuracy"}


def test_it_learns_from_images_of_480x360_where_no_size_is_given(settings, source, place):
    settings.model.width = settings.model.height = 0
    settings.pretrain.steps, seen = 1, []
    training = Pretraining(settings, source, place[0])
    training.network.register_forward_pre_hook(lambda _, images: seen.append(images[0].shape[-2:]))
    assert training.run().model.size == (480, 360)
    assert set(seen) == {(360, 480)}  # of the step, and of the measurement


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_are_tempered(settings, source, place, monkeypatch, power):
    """Those of pre-training follow its own setting, not the learner's."""
    used = []
    monkeypatch.setattr(pretraining, "SourceLosses", lambda *given: used.append(given[1]) or SourceLosses(*given))
    settings.pretrain.class_weight_power, settings.learner.class_weight_power = power, 0.25
    settings.pretrain.steps, settings.pretrain.evaluate_every = 1, 0
    pretrain(settings, source, place[0])
    train, _ = split(source, settings.guard.holdout)
    frequency = median_frequency_weights(map(source.label, train), 37)
    present = frequency > 0
    assert frequency[present].std() > 0.1
    torch.testing.assert_close(used[0][present], frequency[present] ** power)


def test_without_measurements_the_last_weights_are_written(settings, source, place):
    settings.pretrain.evaluate_every = 0
    scores = []
    info = pretrain(settings, source, place[0], state=place[1], on_score=scores.append)
    assert [score.step for score in scores] == [info.step] == [4]
    assert same(weights_of(place[0]), network_in(place[1]))


def test_training_stops_without_gain_and_keeps_the_best_weights(settings, source, place, monkeypatch):
    settings.pretrain.steps, settings.pretrain.evaluate_every, settings.pretrain.patience = 100, 1, 2
    score_in_turn(monkeypatch, 0.1, 0.3, 0.3, 0.2, 0.9)
    scores, weights = [], []

    def on_score(score):
        scores.append(score)
        weights.append(weights_of(place[0]))

    info = pretrain(settings, source, place[0], on_score=on_score)
    assert [(score.step, score.best) for score in scores] == [(1, True), (2, True), (3, False), (4, False)]
    assert (info.step, info.metrics["source_miou"]) == (2, 0.3)
    assert same(weights_of(place[0]), weights[1])
    assert not same(weights[0], weights[1])


def test_the_measurement_is_that_of_the_written_weights_on_images_never_trained_on(settings, source, place):
    from s4net_core.io.source_sets.source_set import split
    from s4net_core.models.segmenter import Segmenter

    settings.guard.holdout = 3
    info = pretrain(settings, source, place[0])
    segmenter = Segmenter(place[0], "cpu", settings)
    images = [source[i] for i in split(source, 3)[1]]
    right, labelled = 0, 0
    for image in images:
        answer = segmenter.segment(image.color).label
        right += ((answer == image.label) & (image.label > 0)).sum()
        labelled += (image.label > 0).sum()
    assert info.metrics["source_pixel_accuracy"] == pytest.approx(right / labelled)


def test_a_test_set_is_measured_instead_of_the_hold_out(settings, source, place, tmp_path):
    test = write_source_set(tmp_path / "test", make_source_images(3, seed=300))
    scores = []
    pretrain(settings, source, place[0], test=test, on_score=scores.append)
    assert scores[0].images == 3


def test_it_goes_on_from_weights_and_keeps_their_network(settings, source, place, tmp_path):
    """The settings ask for another network. The size that they give counts."""
    start = tmp_path / "start.safetensors"
    pretrain(settings, source, start)
    settings.model = settings.model.model_copy(update={"architecture": "pspnet", "width": 96, "height": 64})
    settings.pretrain.learning_rate, settings.pretrain.evaluate_every = 1e-12, 0
    info = pretrain(settings, source, place[0], start=start, state=place[1])
    assert (info.model.architecture, info.model.size) == (read_info(start).model.architecture, (96, 64))
    assert info.parent == file_sha256(start)
    before, after = weights_of(start), weights_of(place[0])
    learned = [key for key in before if key.endswith(("weight", "bias"))]
    assert all(torch.allclose(before[key], after[key], atol=1e-9) for key in learned)
    with pytest.raises(SettingsError, match="weights at the start is"):
        pretrain(settings, source, place[0], start=place[0], state=place[1], resume=True)


def test_weights_that_training_makes_worse_stay_the_best(settings, source, place, tmp_path, monkeypatch):
    start = tmp_path / "start.safetensors"
    pretrain(settings, source, start)
    score_in_turn(monkeypatch, 0.5, 0.4)
    scores = []
    info = pretrain(settings, source, place[0], start=start, on_score=scores.append)
    assert [(score.step, score.best) for score in scores] == [(0, True), (4, False)]
    assert (info.step, info.metrics["source_miou"]) == (0, 0.5)
    assert same(weights_of(place[0]), weights_of(start))


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(settings, source, place, tmp_path, schedule):
    settings.pretrain.schedule = schedule
    settings.pretrain.steps, settings.pretrain.evaluate_every = 6, 2
    whole = []
    pretrain(settings, source, tmp_path / "whole.safetensors", state=tmp_path / "whole.state", on_step=whole.append)

    def interrupt(report):
        parts.append(report)
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    parts = []
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, source, place[0], state=place[1], on_step=interrupt)
    # The signal is seen by the step that follows; what it would have done otherwise is in force again.
    assert [report.step for report in parts] == [1, 2, 3, 4]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    torch.manual_seed(123)  # the state of the global generator must not matter
    pretrain(settings, source, place[0], state=place[1], resume=True, on_step=parts.append)
    assert [(r.step, r.loss, r.learning_rate) for r in parts] == [(r.step, r.loss, r.learning_rate) for r in whole]
    assert same(network_in(place[1]), network_in(tmp_path / "whole.state"))
    assert same(weights_of(place[0]), weights_of(tmp_path / "whole.safetensors"))


def test_more_steps_go_on_from_where_the_run_ended(settings, source, place, tmp_path):
    pretrain(settings, source, place[0], state=place[1])
    settings.pretrain.steps = 6
    pretrain(settings, source, place[0], state=place[1], resume=True)
    pretrain(settings, source, tmp_path / "whole.safetensors", state=tmp_path / "whole.state")
    assert same(network_in(place[1]), network_in(tmp_path / "whole.state"))


def test_a_resumed_run_still_knows_the_best_score(settings, source, place, monkeypatch):
    settings.pretrain.evaluate_every = 2
    score_in_turn(monkeypatch, 0.5, 0.4, 0.3)
    pretrain(settings, source, place[0], state=place[1])
    settings.pretrain.steps = 6
    scores = []
    info = pretrain(settings, source, place[0], state=place[1], resume=True, on_score=scores.append)
    assert (info.step, [score.best for score in scores]) == (2, [False])


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 1), ("pretrain.batch", 3), ("pretrain.learning_rate", 0.1), ("model.architecture", "pspnet")],
)
def test_a_run_with_other_settings_is_not_resumed(settings, source, place, name, value):
    pretrain(settings, source, place[0], state=place[1])
    changed = from_values({**settings.model_dump(), name: value})
    told = "images a step" if name == "pretrain.batch" else name
    with pytest.raises(SettingsError, match=rf"{told} is .* but was"):
        pretrain(changed, source, place[0], state=place[1], resume=True)


def test_a_run_on_another_source_set_is_not_resumed(settings, source, place, tmp_path):
    pretrain(settings, source, place[0], state=place[1])
    other = write_source_set(tmp_path / "other", make_source_images(5))
    with pytest.raises(SettingsError, match=r"source set is 'other' but was 'source'.*; set it back, or delete it"):
        pretrain(settings, other, place[0], state=place[1], resume=True)


@pytest.mark.parametrize("content", [b"", b"no state at all", "cut"])
def test_a_damaged_state_is_refused_with_a_remedy_that_experiments_have_too(settings, source, place, content):
    pretrain(settings, source, place[0], state=place[1])
    whole = place[1].read_bytes()
    place[1].write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(CheckpointError, match="delete it to start anew") as raised:
        pretrain(settings, source, place[0], state=place[1], resume=True)
    assert "--" not in str(raised.value)


def test_a_missing_state_is_refused(settings, source, place):
    with pytest.raises(CheckpointError, match="is missing: leave out --resume"):
        pretrain(settings, source, place[0], state=place[1], resume=True)


def test_a_pipe_is_no_state_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_state(tmp_path / "state", {})


def test_a_state_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    """PyTorch also reads archives that are compressed, where a few bytes may stand for many."""
    save_state(tmp_path / "plain", {}, {"weights": torch.zeros(100_000)})
    with zipfile.ZipFile(tmp_path / "plain") as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "state", "w", zipfile.ZIP_DEFLATED) as compressed:
        for name, content in members.items():
            compressed.writestr(name, content)
    monkeypatch.setattr(training_state, "MAX_BYTES", 500_000)
    assert load_state(tmp_path / "state", {})["weights"].shape == (100_000,)
    monkeypatch.setattr(training_state, "MAX_BYTES", 300_000)
    assert (tmp_path / "state").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="at most 300000 are read"):
        load_state(tmp_path / "state", {})


def test_a_run_without_a_state_cannot_be_resumed(settings, source, place):
    with pytest.raises(SettingsError, match="resuming needs a state: give"):
        pretrain(settings, source, place[0], resume=True)


def test_a_loss_that_is_not_finite_ends_training(settings, source, place, monkeypatch):
    monkeypatch.setattr(pretraining.SourceLosses, "forward", lambda self, *_: torch.full((4,), float("nan")))
    with pytest.raises(LearningError, match=r"loss is nan at step 1: lower pretrain\.learning_rate"):
        pretrain(settings, source, place[0])


def test_a_network_with_all_branches_learns_depth_as_well(settings, place, tmp_path):
    source = write_source_with_depth(tmp_path / "deep")
    settings.model.depth_decoder, settings.model.auxiliary = True, "always"
    settings.pretrain.steps = 20
    reports = []
    pretrain(settings, source, place[0], on_step=reports.append)
    depth = [report.depth for report in reports]
    assert np.mean(depth[-4:]) < 0.8 * np.mean(depth[:4])
    first = reports[0]
    weight = settings.learner.auxiliary_weight
    assert first.loss == pytest.approx(first.segmentation + weight * first.auxiliary + first.depth, rel=1e-5)
    assert read_info(place[0]).model.depth_decoder


def test_a_depth_decoder_needs_a_source_set_with_depth(settings, source, place):
    settings.model.depth_decoder = True
    with pytest.raises(SourceSetError, match=r"has no depth, which model\.depth_decoder learns: give one with depth"):
        pretrain(settings, source, place[0])
    assert not place[0].exists()


def test_mixed_precision_trains_and_writes_full_weights(settings, source, place):
    settings.pretrain.precision = "bf16-mixed"
    losses = []
    pretrain(settings, source, place[0], state=place[1], on_step=lambda report: losses.append(report.loss))
    exact = []
    settings.pretrain.precision = "auto"
    pretrain(settings, source, place[0], on_step=lambda report: exact.append(report.loss))
    assert losses[0] == pytest.approx(exact[0], rel=0.05)
    assert losses[0] != exact[0]
    assert all(value.dtype == torch.float32 for value in network_in(place[1]).values() if value.is_floating_point())


def test_a_precision_that_the_device_has_not_is_refused(settings, source, place):
    settings.pretrain.precision = "16-mixed"
    with pytest.raises(SettingsError, match="bf16-mixed"):
        pretrain(settings, source, place[0])


def test_devices_that_are_not_there_are_refused(settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings.device, settings.pretrain.devices = "cuda", 3
    with pytest.raises(SettingsError, match="2 usable CUDA devices"):
        training_fabric(settings)
    settings.device, settings.pretrain.devices = "cuda:1", 2
    with pytest.raises(SettingsError, match="set device to cuda"):
        training_fabric(settings)


def test_what_to_install_is_said(settings, source, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(S4NetError, match=r"pip install lightning-fabric"):
        pretrain(settings, source, place[0])


def test_curves_are_written_and_a_resumed_run_continues_them(settings, source, place, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings.pretrain.evaluate_every = 2
    pretrain(settings, source, place[0], state=place[1], log=tmp_path / "log")
    settings.pretrain.steps = 6
    pretrain(settings, source, place[0], state=place[1], resume=True, log=tmp_path / "log")
    curves = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in curves.Scalars("loss/segmentation")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in curves.Scalars("test/miou")] == [2, 4, 6]
    assert curves.Scalars("learning_rate")[0].value == pytest.approx(1e-3)
    assert "loss/depth" not in curves.Tags()["scalars"]


def test_without_tensorboard_what_to_install_is_said(settings, source, place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(S4NetError, match=r"pip install tensorboard"):
        pretrain(settings, source, place[0], log=tmp_path / "log")


# Several devices ------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from s4net_core.config import load_settings
from test_pretrain import train_without_dropout

numbers = train_without_dropout(load_settings("two.yaml"), Path("two"))
if numbers:  # the first process alone is told
    Path("two.json").write_text(json.dumps(numbers))
"""


def train_without_dropout(settings, name):
    """Losses of the steps, and the mIoU at the end."""
    build = pretraining.build_network

    def without_dropout(model, **options):
        network = build(model, **options)
        for module in network.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0
        return network

    numbers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "build_network", without_dropout)
        pretrain(
            settings,
            FolderSourceSet(name.with_name("source"), with_depth=True),
            name.with_suffix(".safetensors"),
            state=name.with_suffix(".state"),
            on_step=lambda report: numbers.append(report.loss),
            on_score=lambda score: numbers.append(score.miou),
        )
    return numbers


def write_source_with_depth(folder):
    images = [LabelledImage(f.color, f.label, f.depth) for i in range(8) for f in make_room_frames(1, 64, 48, 100 + i)]
    for i, image in enumerate(images):  # some have few labels and depths, so that images count very differently
        image.label[:, : 60 * (i % 2)] = 0
        image.depth[: 40 * (i % 2)] = 0
    write_labelled_images(folder, images)
    return FolderSourceSet(folder, with_depth=True)


@pytest.fixture
def equal_settings(settings, tmp_path):
    """Without what is drawn or measured batch by batch, so that two processes do what one can do as well."""
    write_source_with_depth(tmp_path / "source")
    settings.model.depth_decoder, settings.model.auxiliary = True, "always"
    settings.pretrain.batch_norm = "frozen"
    settings.pretrain.steps = 3
    settings.pretrain.evaluate_every = 3
    return settings


def mean_of_halves(forward):
    """The losses of two processes, computed by one: both halves of the batch count equally, even with few labels."""
    return lambda *batch: torch.stack(
        [forward(*half) for half in zip(*(part.chunk(2) for part in batch), strict=True)]
    ).mean(0)


@pytest.mark.timeout(300)
def test_two_processes_follow_the_mean_of_their_losses(equal_settings, tmp_path, monkeypatch):
    equal_settings.pretrain.batch = 4
    forward = SourceLosses.forward
    with monkeypatch.context() as patch:
        patch.setattr(SourceLosses, "forward", lambda self, *batch: mean_of_halves(partial(forward, self))(*batch))
        expected = train_without_dropout(equal_settings, tmp_path / "one")
    equal_settings.pretrain.batch, equal_settings.pretrain.devices = 2, 2
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(equal_settings.model_dump()))
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "train.py", *(str(ROOT / folder) for folder in (".", "test", "test/learning"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "two.json").read_text())
    assert len(numbers) == 4  # told once: three steps and a measurement
    assert numbers == pytest.approx(expected, rel=1e-4)
    rate = equal_settings.pretrain.learning_rate
    weights, expected_weights = network_in(tmp_path / "two.state"), network_in(tmp_path / "one.state")
    for name, value in weights.items():
        # Adam moves each weight by about the rate a step, whatever its gradient: a small part of that is rounding.
        assert (value - expected_weights[name]).abs().max() < 0.03 * rate, name
