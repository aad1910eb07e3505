"""Files of experiments: inheritance, substitutes, refusals, and that the files of the paper are valid."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from s4net_core.config import load_settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.summary import SEGMENTATION
from s4net_core.experiments.experiment import SCANS, SUPERVISED, Experiment, load_experiment
from s4net_core.io.captures.scannet import PAPER_SCENES
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.learning.augment import Augmentation
from s4net_core.models.checkpoint import read_info

FOLDER = Path(__file__).resolve().parents[2] / "config" / "experiments"
ROOMS = FOLDER / "rooms.yaml"
POSES = sorted(FOLDER.glob("poses-*.yaml"))
FILES = sorted(set(FOLDER.glob("*.yaml")) - {ROOMS, *POSES})
ABLATIONS = {
    "boundary-mask": "geometry.boundary_radius",
    "cross-entropy": "learner.geometric_weights",
    "geometric-loss": "learner.lambda_geometric",
    "merge": "learner.merge",
    "neighbours": "learner.neighbours",
    "occlusion-threshold": "geometry.occlusion_threshold",
    "overlap": "learner.min_overlap",
    "teacher-refresh": "learner.teacher_refresh",
}


@pytest.fixture
def write(tmp_path):
    def write(name="experiment.yaml", **values):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(values))
        return path

    return write


SMALL = {
    "title": "Small",
    "table": "Small",
    "source": "source",
    "scenes": [{"name": "A", "capture": "a/1", "scans": {"Scan 1": "a/1", "Scan 2": "a/2"}}],
    "methods": [{"name": "S4-Net"}],
}


class TestFile:
    def test_mappings_are_merged_and_everything_else_is_replaced(self, write):
        write("base/below.yaml", **SMALL, settings={"learner.neighbours": 2, "learner.merge": "soft"}, seeds=[1, 2])
        path = write(extends="base/below.yaml", settings={"learner.neighbours": 8}, seeds=[3])
        experiment = load_experiment(path)
        assert experiment.seeds == (3,)
        settings = experiment.shared_settings()
        assert (settings.learner.neighbours, settings.learner.merge) == (8, "soft")

    def test_a_stand_in_replaces_data_and_settings_and_is_named(self, write):
        stand_in = {"source": "other", "settings": {"model.width": 64}}
        path = write(**SMALL, settings={"model.width": 320}, stand_ins={"toy": stand_in})
        own, other = load_experiment(path), load_experiment(path, "toy")
        assert (own.source, own.shared_settings().model.width, own.title) == ("source", 320, "Small")
        assert (other.source, other.shared_settings().model.width) == ("other", 64)
        assert other.title == other.table == "Small (stand-in: toy)"
        with pytest.raises(SettingsError, match="no stand-in 'tiny', only: toy"):
            load_experiment(path, "tiny")

    def test_a_method_wins_over_what_the_user_sets_and_the_user_over_the_file(self, write):
        methods = [{"name": "a"}, {"name": "b", "settings": {"learner.neighbours": 8}}]
        experiment = load_experiment(write(**{**SMALL, "methods": methods}, settings={"learner.neighbours": 2}))
        chosen = [experiment.method_settings(m, {"learner": {"neighbours": 3}}) for m in experiment.methods]
        assert [settings.learner.neighbours for settings in chosen] == [3, 8]

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"scenes": []}, "either scenes or scannet"),
            ({"scannet": "scans"}, "either scenes or scannet"),
            ({"scenes": [{"name": "A", "capture": "a/1", "scans": {}}]}, r"scenes\.1\.scans"),
            ({"sceens": []}, r"sceens: there is no such name, did you mean scenes\?"),
            ({"methods": [{"name": "a"}, {"name": "b", "setings": {}}]}, r"methods\.2\.setings: .*mean settings"),
            ({"methods": [{"name": "a", "sorce": "b"}]}, r"experiment \S+: methods\.1\.sorce: there is no such name$"),
            ({"kind": "tent"}, r"kind: there is no such name$"),
            ({"seeds": 0}, r"seeds: it must be a list"),
            ({"methods": None}, r"methods: it must be a list"),
            ({"control": "c"}, r"experiment \S+: control is 'c'"),
            ({"methods": [{"name": "S4-Net", "settings": {"learner.neighbors": 2}}]}, "method S4-Net.*neighbors"),
            ({"settings": {"learner.merge": "max"}}, "merge"),
            ({"methods": []}, "methods"),
            ({"control": "b"}, "control is 'b'"),
            ({"methods": [{"name": "a", "seconds_of": "a"}]}, "seconds_of 'a'"),
            ({"methods": [{"name": "a"}, {"name": "b", "seconds_of": "a"}]}, "method b: adaptation.steps_per_keyframe"),
            ({"methods": [{"name": "a", "kind": "b"}]}, "kind"),
            ({"methods": [{"name": "a"}, {"name": "a"}]}, "two methods have one name"),
            ({"paper": {"S5-Net": {"Scan 1": {"miou": 0.5}}}}, "paper has 'S5-Net'"),
            ({"paper": {"S4-Net": {"Scan 3": {"miou": 0.5}}}}, "Scan 3"),
            ({"paper": {"S4-Net": {"Scan 1": {"mIoU": 0.5}}}}, "mIoU"),
            ({"extends": "experiment.yaml"}, "extends itself"),
            ({"extends": "nothing.yaml"}, "nothing.yaml cannot be read"),
            ({"extends": ["a.yaml"]}, r"extends \['a.yaml'\]: give the name of a file"),
            ({"stand_ins": ["toy"]}, "stand_ins must hold a table"),
            ({"stand_ins": {"toy": "small"}}, "stand_ins must hold a table"),
            ({"settings": {1: 2}}, "settings"),
        ],
    )
    def test_what_is_wrong_is_named(self, write, changes, problem):
        path = write(**{**SMALL, **changes})
        with pytest.raises(SettingsError, match=problem):
            load_experiment(path)

    def test_a_file_that_is_no_mapping_is_refused(self, tmp_path):
        (tmp_path / "empty.yaml").write_text("")
        with pytest.raises(SettingsError, match="holds nothing: it must hold names and values"):
            load_experiment(tmp_path / "empty.yaml")
        (tmp_path / "list.yaml").write_text("- a\n")
        with pytest.raises(SettingsError, match="holds list"):
            load_experiment(tmp_path / "list.yaml")

    def test_a_file_is_read_within_the_bounds_of_settings_files(self, tmp_path):
        (tmp_path / "bomb.yaml").write_text("a: &a [x, x]\ntitle: [*a, *a]\n")
        with pytest.raises(SettingsError, match=r"experiment .*bomb\.yaml is no YAML: aliases"):
            load_experiment(tmp_path / "bomb.yaml")
        (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff")
        with pytest.raises(SettingsError, match=r"experiment .*image\.yaml is no YAML"):
            load_experiment(tmp_path / "image.yaml")


def test_the_file_of_the_six_rooms_loads():
    experiment = load_experiment(ROOMS)
    assert len(experiment.places()) == 6
    assert (experiment.control, len(experiment.bases)) == ("control, same steps", 3)


def test_the_method_called_s4net_there_is_what_the_demo_does():
    folder = FOLDER.parents[1] / "demo"
    demo = load_settings(folder / "demo.yaml")
    rooms = load_experiment(ROOMS).shared_settings()
    assert (rooms.learner, rooms.geometry) == (demo.learner, demo.geometry)
    assert rooms.adaptation.max_steps == demo.adaptation.max_steps
    assert rooms.model == demo.model.sized(read_info(folder / "weights" / "base.safetensors").model)


def test_poses_are_for_all_places_without_their_own():
    scenes = [{**SMALL["scenes"][0], "poses": own} for own in ("", "own.txt")]
    experiment = Experiment.model_validate({**SMALL, "scenes": scenes, "poses": "all.txt"})
    assert [place.poses for place in experiment.places()] == ["all.txt", "own.txt"]


@pytest.mark.parametrize("path", POSES, ids=lambda path: path.stem)
def test_poses_that_lie_are_all_that_differs_from_the_six_rooms(path):
    experiment, rooms = load_experiment(path), load_experiment(ROOMS)
    name = f"{path.stem.replace('-', '_')}.txt"
    assert experiment.places() == [place.model_copy(update={"poses": name}) for place in rooms.places()]
    assert experiment.methods == rooms.methods[:1]
    ignored = {"title", "table", "control", "methods", "poses"}
    assert experiment.model_dump(exclude=ignored) == rooms.model_dump(exclude=ignored)


class TestPaper:
    """The files of the paper's experiments."""

    @pytest.mark.parametrize("stand_in", ["", "rendered"])
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_every_file_loads_with_valid_settings(self, path, stand_in):
        experiment = load_experiment(path, stand_in)
        assert experiment.places()
        for method in experiment.methods:
            settings = experiment.method_settings(method)
            assert settings.adaptation.max_steps or settings.adaptation.patience
            assert not settings.adaptation.steps_per_keyframe
            if settings.geometry.depth == "predicted":
                assert settings.model.depth_decoder

    @pytest.mark.parametrize("stand_in", ["", "rendered"])
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_pre_training_mirrors_images_and_changes_nothing_else(self, path, stand_in):
        settings = load_experiment(path, stand_in).shared_settings()
        random = np.random.default_rng(0)
        color, label = (random.integers(1, 38, (8, 12, *rest), dtype=np.uint8) for rest in ((3,), ()))
        depth = random.random((8, 12), dtype=np.float32)
        augment = Augmentation(settings.pretrain, 12, 8, mirror=settings.learner.mirror)
        image = LabelledImage(color, label, depth)
        seen = {tuple(part.numpy().tobytes() for part in augment(image, seed)) for seed in range(20)}
        parts = (color.transpose(2, 0, 1), label, depth)
        assert seen == {tuple(part[..., ::step].tobytes() for part in parts) for step in (1, -1)}

    @pytest.mark.parametrize("place", ["scannet", "room"])
    @pytest.mark.parametrize("network", ["DeepLabV3+", "PSPNet"])
    def test_tables_have_the_rows_of_the_paper(self, place, network):
        rows = [load_experiment(path) for path in FILES if path.stem.startswith(place)]
        (experiment,) = (found for found in rows if found.network == network)
        assert [method.name for method in experiment.methods] == ["S4-Net", "S4-Net, predicted depth"]
        assert list(experiment.paper)[:2] == [SUPERVISED, "S4-Net"]
        assert all(tuple(scans) == SCANS for name, scans in experiment.paper.items() if name in (SUPERVISED, "S4-Net"))
        assert experiment.shared_settings().model.encoder == "resnet50"
        assert {found.table for found in rows} == {experiment.table}

    def test_scannet_is_the_six_scenes_and_gains_as_the_paper_says(self):
        experiment = load_experiment(FOLDER / "scannet-deeplabv3plus.yaml")
        assert [scene.name for scene in experiment.places()] == list(PAPER_SCENES)
        first = experiment.places()[0]
        assert first.capture == first.scans["Scan 1"] == "scannet/scans/scene0000_00"
        assert first.scans["Scan 2"] == "scannet/scans/scene0000_01"
        gains = {
            name: experiment.paper["S4-Net"]["Scan 2"][name] - experiment.paper[SUPERVISED]["Scan 2"][name]
            for name in SEGMENTATION
        }
        assert all(0.03 < gain < 0.05 for gain in gains.values())

    @pytest.mark.parametrize(("name", "setting"), ABLATIONS.items())
    def test_an_ablation_varies_its_setting_about_that_of_the_paper(self, name, setting):
        group, key = setting.split(".")
        for stand_in in ("", "rendered"):
            experiment = load_experiment(FOLDER / f"ablation-{name}.yaml", stand_in)
            values = [getattr(getattr(experiment.method_settings(m), group), key) for m in experiment.methods]
            default = getattr(getattr(experiment.shared_settings(), group), key)
            assert default in values
            assert len(set(values)) == len(values) > 1

    def test_there_is_an_ablation_for_each_of_the_paper_s(self):
        assert {path.stem.removeprefix("ablation-") for path in FILES if "ablation" in path.stem} == set(ABLATIONS)
