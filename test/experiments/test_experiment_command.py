"""``s4net experiment`` from a YAML file to the paper's table, on tiny rooms."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from scenes import make_room_frames

from s4net_core.cli.main import main
from s4net_core.config import from_values
from s4net_core.evaluation.evaluate import keyframes_of
from s4net_core.experiments import method, run
from s4net_core.experiments.provenance import _data_sha256
from s4net_core.experiments.results import Result
from s4net_core.experiments.tent import tent
from s4net_core.io.captures.opening import open_views
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.source_sets.files import write_source_set
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37
from s4net_core.learning.session import Session
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import CheckpointInfo, read_info, save_checkpoint
from s4net_core.models.predict import to_tensor

SETTINGS = {
    "device": "cpu",
    "model": {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": 64, "height": 48},
    "learner": {"source_batch": 2, "target_batch": 2, "neighbours": 2, "learning_rate": 1e-3},
    "guard": {"holdout": 2, "agreement_views": 2, "max_source_drop": 1.0, "max_score_drop": 1.0},
    "guard.max_class_share": 1.0,
    "guard.min_class_ratio": 0.0,
    "adaptation": {"min_keyframes": 4, "handover_every": 2, "max_steps": 2},
    "keyframes": {"min_sharpness": 0.0},
    "pretrain": {"steps": 2, "batch": 2},
}
EXPERIMENT = {
    "title": "Tiny rooms",
    "table": "Tiny",
    "source": "source",
    "scenes": [
        {
            "name": "A",
            "capture": "A/scan1",
            "scans": {"Scan 1": "A/scan1", "Scan 2": "A/scan2"},
            "poses": "poses_noisy.txt",
        }
    ],
    "every": 2,
    "settings": SETTINGS,
    "methods": [
        {"name": "S4-Net"},
        {"name": "S4-Net, predicted depth", "settings": {"model.depth_decoder": True}},
    ],
    "paper": {"S4-Net": {"Scan 2": {"miou": 0.593}}},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A source set with depth, and one place that was recorded twice."""
    data = tmp_path_factory.mktemp("data")
    rooms = [make_room_frames(1, seed=100 + i)[0] for i in range(6)]
    write_source_set(data / "source", [LabelledImage(room.color, room.label, room.depth) for room in rooms])
    frames = [replace(frame, true_depth=frame.depth) for frame in make_room_frames(14, seed=5)]
    write_scene_folder(data / "A" / "scan1", frames)
    write_scene_folder(data / "A" / "scan2", make_room_frames(7, seed=5))
    poses = np.loadtxt(data / "A" / "scan1" / "poses.txt")
    poses[:, 4] += 0.001
    np.savetxt(data / "A" / "scan1" / "poses_noisy.txt", poses, fmt=["%d", *["%.9f"] * 16])
    return data


def write(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """The experiment, run once: its file and its output."""
    folder = tmp_path_factory.mktemp("experiment")
    file = write(folder)
    assert main(["experiment", file, "--data", str(data), "--out", f"{folder}/out", "--keep-weights"]) == 0
    return file, folder / "out"


def test_table_has_a_row_a_method_and_the_paper_s_numbers_beside(done):
    _, out = done
    text = (out / "results.md").read_text()
    assert (out / "tiny" / "results.md").read_text() == text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| A ")]
    names = ["supervised", "supervised, with depth decoder", "S4-Net", "S4-Net, predicted depth"]
    assert [row[2] for row in rows[:4]] == names
    assert all(0 <= float(cell) <= 1 for row in rows[:4] for cell in row[3:])
    assert "| paper | DeepLabV3+ | S4-Net | – | – | – | – | – | – | 0.593 | – |" in text
    with_depth = {row[2] for row in rows if len(row) == 3 + 14}
    assert with_depth == {"supervised, with depth decoder", "S4-Net, predicted depth"}


def test_results_say_what_they_come_from(done):
    _, out = done
    numbers = json.loads((out / "tiny" / "results.json").read_text())
    origin = numbers["provenance"]["Tiny rooms"]
    assert list(origin["data"]) == ["source", "A/scan1", "A/scan2", "poses of A"]
    assert origin["settings"]["S4-Net, predicted depth"]["model"]["depth_decoder"] is True
    assert len(set(origin["weights"].values())) == 2
    adapted = [result for result in numbers["results"] if result["seed"] == 0]
    assert {(result["steps"], result["evaluation"]["frames"]) for result in adapted} == {(2, 7), (2, 4)}
    assert not {result["weights"] for result in adapted} & set(origin["weights"].values())
    assert (out / "tiny" / "results.csv").read_text().startswith("# Tiny rooms\n# Tiny rooms: version: s4net")
    assert len(list((out / "bases").iterdir())) == 2
    assert len(list((out / "weights").iterdir())) == 2


def test_a_folder_of_results_that_cannot_be_made_is_told_before_anything_is_run(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run.ExperimentRun, "report", None)
    (tmp_path / "out").write_text("")
    assert main(["experiment", write(tmp_path), "--data", str(data), "--out", f"{tmp_path}/out"]) == 2
    assert f"{tmp_path}/out: File exists" in capsys.readouterr().err


def test_what_has_been_run_is_not_run_again_and_what_changed_is(done, data, monkeypatch, capsys):
    """A second file shares a method with the first; of its two methods only the new one is run."""
    file, out = done
    before = (out / "results.md").read_text().splitlines()
    runs = []

    def adapt_base(settings, *args, **options):
        runs.append(settings.learner.merge)
        return method.adapt_base(settings, *args, **options)

    monkeypatch.setattr(run, "adapt_base", adapt_base)
    monkeypatch.setattr(run, "Pretraining", None)
    other_computer = ["--set", "pretrain.workers=0", "--set", "cockpit.port=9000"]
    assert main(["experiment", file, "--data", str(data), "--out", str(out), *other_computer]) == 0
    assert runs == []
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert again == [line for line in before if line.startswith("|")]
    folder = out.parent / "more"
    folder.mkdir()
    methods = [{"name": "argmax"}, {"name": "soft", "settings": {"learner.merge": "soft"}}]
    other = write(folder, methods=methods, title="Merge", paper={})
    assert main(["experiment", other, "--data", str(data), "--out", str(out)]) == 0
    assert runs == ["soft"]


def test_a_run_is_made_again_when_its_file_of_poses_was_changed(done, data, tmp_path, monkeypatch):
    """Also where the file lies outside of the capture."""
    _, out = done
    runs = []

    def adapt_base(*args, **options):
        runs.append(args)
        return method.adapt_base(*args, **options)

    monkeypatch.setattr(run, "adapt_base", adapt_base)
    poses = (data / "A/scan1/poses_noisy.txt").read_text()
    scene = {**EXPERIMENT["scenes"][0], "poses": str(tmp_path / "slam.txt")}
    file = write(tmp_path, scenes=[scene], methods=[{"name": "S4-Net"}])
    for number, text in ((1, poses), (1, poses), (2, poses.rstrip().rpartition("\n")[0])):
        (tmp_path / "slam.txt").write_text(text)
        _data_sha256.cache_clear()  # a process reads each file once
        assert main(["experiment", file, "--data", str(data), "--out", str(out)]) == 0
        assert len(runs) == number


def test_an_interrupted_experiment_goes_on_with_the_run_that_was_not_done(done, data, tmp_path, monkeypatch, capsys):
    """Of seeds 0 to 2, seed 0 was run before; Ctrl-C interrupts the run of seed 2."""
    _, out = done
    runs, interrupted = [], True

    def adapt_base(settings, *args, **options):
        if settings.seed == 2 and interrupted:
            raise KeyboardInterrupt
        runs.append(settings.seed)
        return method.adapt_base(settings, *args, **options)

    monkeypatch.setattr(run, "adapt_base", adapt_base)
    file = write(tmp_path, methods=[{"name": "S4-Net"}], seeds=[0, 1, 2])
    command = ["experiment", file, "--data", str(data), "--out", str(out)]
    assert main(command) == 130
    kept = len(list((out / "runs").iterdir()))
    told = capsys.readouterr().err
    assert f"s4net experiment: interrupted; the same line goes on, {out}/runs keeps {kept} finished runs" in told
    interrupted = False
    assert main(command) == 0
    assert runs == [1, 2]


def test_files_of_one_table_are_joined(done, data, tmp_path, capsys):
    file, out = done
    second = {**EXPERIMENT, "title": "Second", "methods": [{"name": "own"}], "paper": {}}
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(second))
    assert main(["experiment", file, f"{tmp_path}/second.yaml", "--data", str(data), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## Tiny\n")
    rows = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| A ")]
    assert rows[:5] == ["supervised", "supervised, with depth decoder", "S4-Net", "S4-Net, predicted depth", "own"]
    assert (out / "tiny" / "results.html").is_file()
    assert (out / "second" / "results.html").is_file()


def test_a_base_model_whose_training_was_interrupted_is_not_used(data, tmp_path, monkeypatch):
    calls = []

    def interrupted(settings, source, output, *, resume, state, **options):
        calls.append(resume)
        output.parent.mkdir(exist_ok=True, parents=True)
        output.write_text("the best so far")
        state.write_text("where it was")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "Pretraining", interrupted)
    for _ in range(2):
        assert main(["experiment", write(tmp_path), "--data", str(data), "--out", f"{tmp_path}/out"]) == 130
    assert calls == [False, True]
    assert not list((tmp_path / "out" / "bases").glob("*.safetensors"))


def test_data_that_are_not_there_are_all_named_before_anything_runs(data, tmp_path, capsys):
    scenes = [
        EXPERIMENT["scenes"][0],
        {"name": "B", "capture": "B/scan1", "scans": {"Scan 2": "B/scan2"}},
        {"name": "C", "capture": "A/scan1", "scans": {"Scan 2": "A/scan2"}, "poses": "typo.txt"},
    ]
    file = write(tmp_path, scenes=scenes, source="sunrgbd")
    assert main(["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    for text in (
        f"{data}/sunrgbd (the labelled source set)",
        f"{data}/B/scan1 (the capture of B that is adapted to)",
        f"{data}/B/scan2 (Scan 2 of B)",
        f"the poses of C (pose file typo.txt is neither in {data}/A/scan1 nor",
        "--data",
    ):
        assert text in told
    assert "scan1 (the capture of A" not in told
    assert not (tmp_path / "out").exists()


def test_an_adaptation_without_end_is_refused(data, tmp_path, capsys):
    names = ("max_steps", "steps_per_keyframe", "patience", "offline_patience")
    endless = [word for name in names for word in ("--set", f"adaptation.{name}=0")]
    assert main(["experiment", write(tmp_path), "--data", str(data), "--out", f"{tmp_path}/out", *endless]) == 2
    assert "method S4-Net: learning would never end" in capsys.readouterr().err


def test_tent_without_an_end_is_refused_before_anything_runs(data, tmp_path, capsys):
    endless = {"name": "TENT", "kind": "tent", "settings": {"adaptation.max_steps": 0}}
    file = write(tmp_path, methods=[endless], paper={})
    assert main(["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]) == 2
    assert "TENT: entropy has no end of its own: set adaptation.max_steps" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_methods_beside_s4net_are_run_and_measured(data, tmp_path, monkeypatch):
    """An oracle, own labels, TENT, and a control with as many seconds, from two base models, and at their size."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / f"{seed}.safetensors", build_network(from_values(SETTINGS).model))
    kinds = []

    def adapt_base(settings, capture, source, *args, **options):
        assert (source is None) == (options["kind"] == "source_free")
        network = method.adapt_base(settings, capture, source, *args, **options)
        assert read_info(network.weights).model.size == (64, 48)
        kinds.append((options["kind"], options["seconds"], network.learning.label_accuracy))
        return network

    monkeypatch.setattr(run, "adapt_base", adapt_base)
    endless = {
        "learner.lambda_geometric": 0.0,
        "adaptation.max_steps": 10_000,
        "adaptation.offline_patience": 0,
        "adaptation.steps_per_keyframe": 0.0,
    }
    methods = [
        {"name": "S4-Net"},
        {"name": "control", "seconds_of": "S4-Net", "settings": endless},
        {"name": "oracle", "kind": "oracle"},
        {"name": "own", "kind": "own_labels"},
        {"name": "free", "kind": "source_free"},
        {"name": "TENT", "kind": "tent"},
    ]
    bases = {str(seed): str(tmp_path / f"{seed}.safetensors") for seed in (0, 1)}
    unsized = {name: values for name, values in SETTINGS.items() if name != "model"}
    file = write(tmp_path, settings=unsized, methods=methods, bases=bases, unseen="source", control="control", paper={})
    assert main(["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]) == 0
    assert [kind for kind, _, _ in kinds] == ["s4net", "s4net", "oracle", "own_labels", "source_free"] * 2
    assert [seconds is not None for _, seconds, _ in kinds] == [False, True, False, False, False] * 2
    assert [accuracy for kind, _, accuracy in kinds if kind == "oracle"] == [1.0, 1.0]
    results = [Result.from_dict(r) for r in json.loads((tmp_path / "out/tiny/results.json").read_text())["results"]]
    assert {result.base for result in results} == {"0", "1"}
    assert all(0 <= result.unseen <= 1 for result in results)
    timed = {result.method: result for result in results if result.base == "0" and result.scan == "Scan 2"}
    assert timed["control"].learning.seconds >= timed["S4-Net"].learning.seconds
    assert timed["S4-Net"].learning.curve[-1].step == 2
    assert (tmp_path / "out/tiny/curves.png").is_file()


def test_weights_of_your_own_stand_beside_s4net_over_rooms_bases_and_seeds(data, tmp_path, capsys):
    scenes = [{"name": name, "capture": "A/scan1", "scans": {"Scan 2": "A/scan2"}} for name in ("A", "B")]
    folder = tmp_path / "mine"
    save_checkpoint(tmp_path / "base.safetensors", build_network(from_values(SETTINGS).model))
    mine = {"name": "mine", "kind": "weights", "weights": f"{folder}/{{scene}} {{base}} {{seed}}.safetensors"}
    changes = {"scenes": scenes, "bases": {"first": str(tmp_path / "base.safetensors")}, "seeds": [0, 1], "paper": {}}
    file = write(tmp_path, **changes, methods=[{"name": "S4-Net"}, mine], control="S4-Net")
    command = ["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]
    assert main(command) == 2
    assert "A first 0.safetensors (weights of mine for A)" in " ".join(capsys.readouterr().err.split())
    hashes = {}
    for scene, seed in itertools.product("AB", (0, 1)):
        torch.manual_seed(10 * seed + (scene == "B"))
        path = folder / f"{scene} first {seed}.safetensors"
        network = build_network(from_values(SETTINGS).model)
        hashes[scene, seed] = save_checkpoint(path, network, CheckpointInfo(model=network.settings, step=700))
    assert main(command) == 0
    results = [Result.from_dict(r) for r in json.loads((tmp_path / "out/tiny/results.json").read_text())["results"]]
    assert {(r.scene, r.seed): r.weights for r in results if r.method == "mine"} == hashes
    (row,) = (line for line in (tmp_path / "out/results.md").read_text().splitlines() if line.startswith("| mine |"))
    assert row.split("|")[6].strip().endswith("of 4")
    lines = [line for line in (tmp_path / "out/tiny/runs.csv").read_text().splitlines() if not line.startswith("#")]
    steps = {(run["method"], run["steps"]) for run in csv.DictReader(lines)}
    assert steps == {("supervised", ""), ("S4-Net", "2"), ("mine", "")}  # 700 are those of the base model


def test_weights_of_your_own_have_no_seconds(data, tmp_path, capsys):
    mine = {"name": "mine", "kind": "weights", "weights": "mine.safetensors"}
    for methods in (
        [mine, {"name": "S4-Net", "seconds_of": "mine"}],
        [{"name": "S4-Net"}, {**mine, "seconds_of": "S4-Net"}],
    ):
        file = write(tmp_path, methods=methods, paper={})
        assert main(["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]) == 2
        assert "name an earlier method that learns" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "method", [{"name": "mine", "kind": "weights"}, {"name": "mine", "weights": "mine/{scene}.safetensors"}]
)
def test_weights_of_your_own_have_a_name_and_their_kind(data, tmp_path, capsys, method):
    file = write(tmp_path, methods=[method], paper={})
    assert main(["experiment", file, "--data", str(data), "--out", f"{tmp_path}/out"]) == 2
    assert "method mine: kind weights and a name of weights files" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("every", "max_steps"), [(1, 0), (2, 0), (2, 1)])
def test_where_the_seconds_are_over_the_weights_are_handed_over_and_measured_once(
    data, tmp_path, monkeypatch, every, max_steps
):
    """The first step is over time already; it ends with a hand-over of its own, or it does not."""
    steps, handover = [], Session.handover
    monkeypatch.setattr(Session, "handover", lambda session: steps.append(session.status.step) or handover(session))
    save_checkpoint(tmp_path / "base.safetensors", build_network(from_values(SETTINGS).model))
    settings = from_values({**SETTINGS, "checkpoint": str(tmp_path / "base.safetensors")})
    settings.adaptation.handover_every, settings.adaptation.max_steps = every, max_steps
    capture, source = open_views(data / "A/scan1", settings, labels=SUNRGBD37), open_source_set(data / "source")
    network = method.adapt_base(settings, capture, source, tmp_path / "run", seconds=0.0, curve_on=capture)
    assert steps == [1]
    assert [point.step for point in network.learning.curve] == [network.steps] == [1]


def test_tent_makes_predictions_certain_and_changes_batch_norms_alone(data):
    torch.manual_seed(0)
    settings = from_values(SETTINGS)
    settings.learner.learning_rate, settings.adaptation.max_steps = 0.01, 15
    network = build_network(settings.model).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    keyframes = keyframes_of(make_room_frames(14, seed=5), settings)
    images = to_tensor([keyframes.get(id).color for id in keyframes.ids()], torch.device("cpu"))

    def entropy():
        probabilities = network(images).softmax(dim=1)
        return -(probabilities * probabilities.log()).sum(dim=1).mean().item()

    first = entropy()
    tent(network, keyframes, settings)
    assert entropy() < first
    norms = {f"{name}." for name, part in network.named_modules() if isinstance(part, torch.nn.BatchNorm2d)}
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(any(name.startswith(norm) for norm in norms) for name in changed)
