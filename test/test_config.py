"""Settings: one home for defaults, ranges and help; files, command line and ROS parameters say the same."""

import ast
import inspect
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from paper import paper_settings

from s4net_core import config
from s4net_core.config import (
    PAPER_TARGET_BATCH,
    ModelSettings,
    Settings,
    assign,
    changed_settings,
    from_values,
    leaves,
    load_settings,
    to_yaml,
    with_values,
)
from s4net_core.errors import SettingsError
from s4net_core.experiments.results import NETWORKS

ROOT = Path(__file__).parents[1]
LEAVES = {leaf.name: leaf for leaf in leaves(Settings())}


def test_the_experiments_have_the_papers_values():
    settings = paper_settings()
    learner = settings.learner
    assert (learner.trained, learner.weight_average, learner.class_weight_power) == ("all", 0, 1)
    assert (learner.merge_target, learner.teacher_scale, learner.teacher_mirror) == (False, 1, False)
    adaptation = settings.adaptation
    assert (adaptation.steps_per_keyframe, adaptation.max_steps) == (0, 0)
    assert (adaptation.patience, adaptation.handover_every) == (10, 100)
    assert settings.geometry.boundary_radius == 2
    assert (learner.learning_rate, learner.lambda_geometric, learner.teacher_refresh) == (1e-5, 0.01, 100)
    assert (learner.source_batch, learner.target_images("deeplabv3plus")) == (4, 4)
    assert (learner.neighbours, learner.min_overlap) == (4, 0.25)
    assert (settings.model.width, settings.model.height) == (480, 360)
    assert (learner.lambda_depth, learner.merge, learner.geometric_weights) == (0.1, "argmax", "none")
    assert learner.target_images("pspnet") == 3
    assert from_values({"learner.target_batch": 5}).learner.target_images("pspnet") == 5


def test_every_architecture_has_its_batch_and_its_name_in_tables():
    architectures = set(get_args(ModelSettings.model_fields["architecture"].annotation))
    assert set(NETWORKS) == architectures > set(PAPER_TARGET_BATCH)
    assert {name: Settings().learner.target_images(name) for name in ("unet", "pspnet")} == {"unet": 4, "pspnet": 3}


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
class TestEverySetting:
    def test_has_a_help_that_is_understood_alone(self, leaf):
        """`ros2 param describe` shows one line, without those around it."""
        help = leaf.help.removesuffix(f" [{leaf.unit}]")
        assert help[0].isupper()
        assert help.endswith(".")
        assert 20 < len(leaf.help) <= 120
        assert not [part for part in ("...", "\n", "that median") if part in help]

    def test_has_one_plain_type_and_a_default_in_its_range(self, leaf):
        assert leaf.type in (bool, int, float, str)
        assert leaf.minimum is None or leaf.value >= leaf.minimum
        assert leaf.maximum is None or leaf.value <= leaf.maximum
        assert not leaf.choices or leaf.value in leaf.choices

    def test_takes_its_own_value_as_text(self, leaf):
        assert changed_settings(load_settings(None, [f"{leaf.name}={leaf.value}"])) == {}


def attributes_read(source: str) -> set[str]:
    """Names of all attributes that a piece of code reads."""
    nodes = ast.walk(ast.parse(source))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def own_methods() -> Iterator[tuple[str, set[str]]]:
    """Methods and properties of the settings, each with what it reads."""
    for _, group in inspect.getmembers(config, inspect.isclass):
        for name, member in vars(group).items() if issubclass(group, config.Group) else ():
            function = member.fget if isinstance(member, property) else member
            if inspect.isfunction(function) and not name.startswith("_"):
                yield name, attributes_read(textwrap.dedent(inspect.getsource(function)))


def test_every_setting_is_read_somewhere():
    modules = [path for package in ("s4net_core", "s4net_ros") for path in (ROOT / package).rglob("*.py")]
    read = set.union(
        *(attributes_read(path.read_text()) for path in modules if path.parent != Path(config.__file__).parent)
    )
    read |= set.union(*(inner for name, inner in own_methods() if name in read))
    assert not [name for name in LEAVES if name.rpartition(".")[2] not in read]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes ``mine.yaml`` where the test runs."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "mine.yaml").write_text


def test_the_written_file_reads_back_as_the_same_settings(write):
    settings = from_values({"learner.learning_rate": 3e-4, "model": {"width": 160}, "source.path": "a b: c", "seed": 3})
    write(to_yaml(settings))
    assert load_settings("mine.yaml") == settings


def test_file_and_overrides_are_merged_setting_by_setting(write):
    write("learner: {learning_rate: 1.0e-3, mirror: false}\nkeyframes.min_rotation: 7\nseed: 3\n")
    settings = load_settings("mine.yaml", ["learner.learning_rate = 2e-4", "device=cpu", "seed=4", "seed=5"])
    assert changed_settings(settings) == {
        "seed": 5,
        "device": "cpu",
        "learner.learning_rate": 2e-4,
        "learner.mirror": False,
        "keyframes.min_rotation": 7.0,
    }


def test_the_home_folder_may_be_written_as_a_tilde_in_every_setting_that_names_a_file(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("checkpoint: ~/base.safetensors\n")
    settings = load_settings("mine.yaml", ["source.path=~/source", "state_dir=~"])
    settings.model.label_space = "~/own.yaml"
    found = (settings.checkpoint, settings.source.path, settings.state_dir, settings.model.label_space)
    assert found == (f"{tmp_path}/base.safetensors", f"{tmp_path}/source", str(tmp_path), f"{tmp_path}/own.yaml")


def test_the_working_size_is_the_given_one_else_the_base_models_else_480x360():
    base = ModelSettings(width=160, height=120)
    assert ModelSettings().sized(base).size == (160, 120)
    assert ModelSettings(width=32).sized(base).size == (32, 120)
    assert ModelSettings(height=96).sized().size == (480, 96)
    assert ModelSettings().sized().size == (480, 360)


def test_with_a_working_size_settings_stay_live():
    """A node writes parameters into its own settings, and what it has made works with those that have a size."""
    settings = Settings()
    sized = settings.sized()
    values = {leaf.name: leaf.maximum for leaf in LEAVES.values() if leaf.live}
    assign(settings, values)
    assert changed_settings(settings) == values
    assert changed_settings(sized) == values | {"model.width": 480, "model.height": 360}


def test_what_was_given_can_be_told_from_the_defaults(write):
    write("model: {width: 480}\n")
    given = load_settings("mine.yaml", ["seed=0"]).model_dump(exclude_unset=True)
    assert given == {"seed": 0, "model": {"width": 480}}


@pytest.mark.parametrize("text", ["on", "2024", "1e-4", "a b: c #1", "${HOME}/x.y=z", "'q'", "[", ""])
def test_a_text_on_the_command_line_stays_as_it_is(text):
    assert load_settings(None, [f"checkpoint={text}"]).checkpoint == text


def test_a_copy_with_other_values_leaves_the_original_alone():
    original = from_values({"learner": {"neighbours": 7}})
    changed = with_values(original, {"learner": {"mirror": False}, "learner.learning_rate": 1e-3})
    assert changed_settings(changed) == {
        "learner.neighbours": 7,
        "learner.mirror": False,
        "learner.learning_rate": 1e-3,
    }
    assert changed_settings(original) == {"learner.neighbours": 7}


def test_a_ros_parameters_file_is_read_too(write):
    nodes = {
        "/**": {"use_sim_time": True, "learner": {"learning_rate": 2e-4}, "keyframes.min_rotation": 7.0},
        "/segmentation": {"segmentation": {"overlay_alpha": 1}},
        "/adaptation": None,
    }
    write(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
    assert changed_settings(load_settings("mine.yaml")) == {
        "learner.learning_rate": 2e-4,
        "keyframes.min_rotation": 7.0,
        "segmentation.overlay_alpha": 1.0,
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"learner.lerning_rate": 1}, r"learner\.lerning_rate = 1: .*did you mean learner\.learning_rate"),
        ({"lerner": {"x": 1}}, r"lerner\.x = 1: there is no such setting"),
        ({"keyframes": {"min_rotation": 999}}, r"keyframes\.min_rotation = 999: .*less than or equal to 180"),
        ({"learner.source_batch": "many"}, r"learner\.source_batch = 'many'"),
        ({"model.architecture": "segnet"}, ".*'deeplabv3plus', 'pspnet'.* or 'transformers'"),
        ({"keyframes.holdout": 1}, r"keyframes\.holdout = 1: .*every keyframe would be held out.*give 0, or 2 or more"),
        ({"adaptation.duty_cycle": 1e-300}, r"adaptation\.duty_cycle = 1e-300: .*greater than or equal to 0\.01"),
        ({"device": {"x": 1}}, r"device\.x = 1.*did you mean device"),
        ({"learner": None}, "learner = None: this is a group"),
        ({"model.width": 31}, r"model\.width = 31: .*give 0 for the default, or 32 to 4096"),
        ({"model.width": "wide", "seed": -1}, r"model\.width = 'wide': .*; seed = -1: "),
    ],
    ids=str,
)
def test_an_error_names_the_file_the_setting_and_the_value(write, values, told):
    write(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=f"mine.yaml: {told}"):
        load_settings("mine.yaml")
    with pytest.raises(SettingsError, match=f"settings: {told}"):
        from_values(values)


def test_an_override_without_a_value_is_refused():
    with pytest.raises(SettingsError, match="'nonsense' has no '='"):
        load_settings(None, ["nonsense"])


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- a\n- list\n", "holds list"),
        (b"/**:\n  ros__parameters: [1]\n", "holds list"),
        (b"learner: [unclosed\n", "is no YAML"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is no YAML"),
        (b"\xff\xfe\xfa", "is no YAML"),
        (b"seed: 2024-13-45\n", "is no YAML"),
        (b"[" * 5000, "is no YAML"),
        (b"x: !!python/object/apply:os.getcwd []\n", "is no YAML"),
        (BOMB.encode(), r"aliases \(\*name\) are not allowed"),
        (b"#" * (1 << 20) + b"\n", r"it has 1048577 bytes, at most 1048576 are read"),
    ],
)
def test_what_is_no_settings_file_is_refused_by_name(tmp_path, content, told):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"(?s)bad\.yaml.*{told}"):
        load_settings(tmp_path / "bad.yaml")


def test_an_empty_file_changes_nothing(write):
    write("# nothing\n")
    assert changed_settings(load_settings("mine.yaml")) == {}


def test_missing_files_folders_and_pipes_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("nowhere.yaml", "cannot be read"), (".", "it is a folder"), ("pipe", "no regular file")):
        with pytest.raises(SettingsError, match=f"{tmp_path / name}.*{told}"):
            load_settings(tmp_path / name)
