"""The `s4net` command as its users see it: exit codes, messages, overrides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s4net_core.cli.main import COMMANDS, Command, main
from s4net_core.config import load_settings
from s4net_core.errors import S4NetError


def test_unknown_command_is_refused_with_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["adpat"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "adpat" in error
    assert "adapt" in error


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert all(command.help in out for command in COMMANDS.values())


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.ros])
def test_every_command_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert f"usage: s4net {name}" in capsys.readouterr().out


def test_set_overrides_the_file_and_short_options_override_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("learner: {learning_rate: 0.5, neighbours: 7}\nseed: 1\n")
    options = ["--set", "learner.learning_rate=1e-4", "--set", "seed=2", "--seed", "3"]
    assert main(["settings", "--settings", str(file), *options]) == 0
    written = tmp_path / "written.yaml"
    written.write_text(capsys.readouterr().out)
    settings = load_settings(written)
    assert settings.learner.learning_rate == 1e-4
    assert settings.learner.neighbours == 7
    assert settings.seed == 3
    assert settings.guard == load_settings().guard


@pytest.mark.parametrize(
    ("override", "word"),
    [("learner.learning_rate=2", "learner.learning_rate"), ("learner.rate=1", "learner.rate"), ("seed", "no '='")],
)
def test_a_bad_setting_is_a_message_without_traceback(
    override: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings", "--set", override]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("s4net settings: ")
    assert word in output.err
    assert "Traceback" not in output.err


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(S4NetError, match="no '='"):
        main(["--debug", "settings", "--set", "seed"])


@pytest.mark.parametrize("words", [["convert", "x" * 5000, "out"], ["convert", "room", "x" * 5000]])
def test_what_the_file_system_refuses_is_a_message_with_the_name(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("s4net convert: xxxx")
    assert error.endswith("x: File name too long: check the path and the disk\n")
    assert len(error) < 400
    with pytest.raises(OSError, match="too long"):
        main(["--debug", *words])


@pytest.mark.parametrize(
    ("words", "problem"),
    [(["adapt", "room", ""], "name the weights file to write"), (["pretrain", "source", "."], "name a file")],
)
def test_an_output_without_a_name_is_refused(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--set", "checkpoint=demo"]) == 2
    assert problem in capsys.readouterr().err


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("s4net_core.cli.settings.run", interrupt)
    assert main(["settings"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["adapt", "pretrain"])
@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_says_how_to_go_on_where_that_is_possible(
    command: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    if saved:
        (tmp_path / "out.safetensors.state").touch()
    monkeypatch.setattr(f"s4net_core.cli.{command}.run", interrupt)
    assert main([command, "given", str(tmp_path / "out.safetensors")]) == 130
    told = f"s4net {command}: interrupted; the same line with --resume goes on\n"
    assert capsys.readouterr().err == (told if saved else "")


def test_a_ros_command_without_ros_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["play", "some.mcap"]) == 2
    error = capsys.readouterr().err
    assert "rclpy is not installed" in error
    assert "make build" in error


def test_a_ros_command_runs_as_a_module_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def execute(path: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit(5)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setitem(COMMANDS, "play", Command("s4net_ros.player", "play", ros=True))
    with pytest.raises(SystemExit):
        main(["play", "some.mcap", "--rate", "2", "--help"])
    assert started == [[sys.executable, "-m", "s4net_ros.player", "some.mcap", "--rate", "2", "--help"]]


def test_listing_commands_loads_neither_torch_nor_ros(tmp_path: Path) -> None:
    code = (
        "import sys; from s4net_core.cli.main import main; main(['settings']); "
        "sys.exit(bool({'torch', 'rclpy', 's4net_ros'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "learner:" in result.stdout


def test_no_command_loads_what_is_slow_before_it_parses() -> None:
    code = """
import sys
from s4net_core.cli.main import COMMANDS, command_parser
slow = {"torch", "timm", "segmentation_models_pytorch", "matplotlib", "scipy", "cv2", "open3d", "rosbags"}
for name, command in COMMANDS.items():
    if not command.ros:
        command_parser(name)
        loaded = slow & sys.modules.keys()
        print(name, *sorted(loaded))
        slow -= loaded
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [name for name, command in COMMANDS.items() if not command.ros]


@pytest.mark.parametrize(
    "command", [["convert", "source", "small", "--format", "source-set"], ["bench", "ingest"], ["bench", "map"]]
)
def test_a_mistyped_setting_is_refused_where_few_settings_count(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--set", "learner.sped=1"]) == 2
    assert "learner.sped" in capsys.readouterr().err


def test_mistyped_setting_is_refused_before_torch_loads() -> None:
    code = (
        "import sys; from s4net_core.cli.main import main; main(['adapt', 'room', 'out', '--set', 'learner.sped=1']); "
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "learner.sped" in result.stderr
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "words", [["label", "none", "out"], ["map", "none", "out.ply"], ["evaluate", "--capture", "none"]]
)
def test_every_command_that_needs_weights_knows_the_demos(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The capture, which is looked at after the weights, is what is missing."""
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--checkpoint", "demo", "--set", "device=cpu"]) == 2
    assert "capture none does not exist" in capsys.readouterr().err
