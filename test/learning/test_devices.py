"""Several processes adapt as one does with twice the batches, and one of them writes; they stand for devices."""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from test_pretrain import write_source_with_depth

from s4net_core.cli.main import main
from s4net_core.errors import CaptureError, CheckpointError, S4NetError, SettingsError
from s4net_core.files import FolderLock
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.learning.devices import Processes, adaptation_processes
from s4net_core.learning.guard import Guard
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path[:0] = json.loads(os.environ["FOLDERS"])
from test_devices import adapt, watch_writing

if __name__ == "__main__":
    rank, written = os.environ.get("LOCAL_RANK", "0"), watch_writing(Path.cwd())
    try:
        sys.exit(adapt("two"))
    finally:
        Path(f"written.{rank}.json").write_text(json.dumps(written))
"""


def adapt(name):
    """Run the command without dropout, which draws other numbers in two processes; the second hand-over is refused."""
    reasons = iter([(), ("too bad",), ()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "objections", lambda *_: next(reasons))
        for kind in (torch.nn.Dropout, torch.nn.Dropout2d):
            patch.setattr(kind, "forward", lambda module, x: x)
        return main(["adapt", "room", f"{name}.safetensors", "--settings", f"{name}.yaml", "--log", f"{name}.log"])


def watch_writing(folder):
    """Names below `folder` that are opened for writing, renamed, made or removed from now on."""
    written = []

    def watch(event, arguments):
        writes = event == "open" and not isinstance(arguments[0], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.mkdir"):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))
            if folder in path.parents:
                written.append(str(path.relative_to(folder)))

    sys.addaudithook(watch)
    return written


@pytest.fixture
def place(settings, frames, tmp_path, monkeypatch):
    """A network with all losses, a source set whose images count very differently, and a room."""
    monkeypatch.chdir(tmp_path)
    write_source_with_depth(tmp_path / "source")
    write_scene_folder(tmp_path / "room", frames)
    settings.model.encoder, settings.model.depth_decoder, settings.model.auxiliary = "tu-test_resnet", True, "always"
    torch.manual_seed(7)
    save_checkpoint(tmp_path / "base.safetensors", build_network(settings.model))
    settings.checkpoint, settings.source.path = "base.safetensors", "source"
    settings.learner.teacher_refresh, settings.learner.weight_average = 3, 0.9
    settings.adaptation.max_steps, settings.adaptation.keep_versions = 6, 1
    settings.learner.learning_rate = 1e-4
    return tmp_path


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("speed")]
    return {name: [event.value for event in events.Scalars(name)] for name in names}


class StandIn:
    """Fabric of one of two processes that run one after the other; the second finds what the first one sent."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, rank, messages):
        self.global_rank, self._messages = rank, messages

    def barrier(self):
        pass

    def broadcast(self, message):
        if self.global_rank == 0:
            self._messages.append(message)
        return self._messages[-1]


@pytest.fixture
def pair():
    messages = []
    return [Processes(StandIn(rank, messages)) for rank in (0, 1)]


def test_what_one_process_does_once_all_of_them_know(pair):
    ranks = iter([0, 1])
    assert [processes.once(lambda: next(ranks)) for processes in pair] == [0, 0]


def test_what_fails_in_the_first_process_fails_in_all_of_them(pair):
    def fail():
        raise CheckpointError("disk is full")

    for processes in pair:
        with pytest.raises(CheckpointError, match="disk is full"):
            processes.once(fail)


def test_a_state_in_use_ends_all_processes_with_one_message(settings, place, pair, monkeypatch, capsys):
    """Lightning would kill the first process if another one failed."""
    (place / "two.yaml").write_text(yaml.safe_dump(settings.model_dump()))
    processes = iter(pair)
    monkeypatch.setattr("s4net_core.cli.adapt.adaptation_processes", lambda settings: next(processes))
    with FolderLock.of_new(place / "two.safetensors.state", ""):
        assert adapt("two") == 2
        assert "is in use by another process" in capsys.readouterr().err
        with pytest.raises(SystemExit) as ended:
            adapt("two")
    assert (ended.value.code, capsys.readouterr().err) == (0, "")


def test_an_error_of_one_process_alone_is_not_kept_quiet(settings, place, pair, monkeypatch, capsys):
    """The others wait for it: it has to say why, and to end as one that failed."""

    def damaged(*_):
        raise CaptureError("image 7 is damaged")

    (place / "two.yaml").write_text(yaml.safe_dump(settings.model_dump()))
    pair[0].once(lambda: None)  # the first one has its state
    monkeypatch.setattr("s4net_core.cli.adapt.adaptation_processes", lambda settings: pair[1])
    monkeypatch.setattr("s4net_core.cli.adapt._adapt", damaged)
    assert adapt("two") == 2
    assert "image 7 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("items", "parts"),
    [([1, 2, 3], [[1, 3], [2]]), ([1, 2], [[1], [2]]), ([1], [[1], [1]]), ([], [[], []])],
)
def test_every_process_has_something_when_there_is_anything(pair, items, parts):
    """They wait for each other in every loss; what all of them have counts equally and leaves the means as they are."""
    assert [processes.part(items) for processes in pair] == parts


def test_live_batch_norm_on_several_devices_is_refused(settings):
    settings.adaptation.devices, settings.learner.batch_norm = 2, "live"
    with pytest.raises(SettingsError, match=r"set learner\.batch_norm to frozen"):
        adaptation_processes(settings)


def test_one_device_needs_no_lightning_and_several_say_what_to_install(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert adaptation_processes(settings).count == 1
    settings.adaptation.devices = 2
    with pytest.raises(S4NetError, match=r"pip install lightning-fabric"):
        adaptation_processes(settings)
