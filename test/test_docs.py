"""The documentation is true: commands parse, what is named exists, links lead somewhere, generated pages are whole."""

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from s4net_core.cli.main import COMMANDS, command_parser
from s4net_core.config import Settings, leaves, load_settings
from s4net_ros.graph import ARGUMENTS, REPLAY_ARGUMENTS, adaptation_graph
from tools.docs import reference
from tools.docs.text import BLOCK, INCLUDED, INLINE, LINK, SETTING, SETTINGS, included_page, link_settings
from tools.docs.topics import INPUT_TOPICS, MAP_SERVICES, PUBLISHED, SERVICES, TOPIC_HELP

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TEXTS = [*(ROOT / name for name in INCLUDED), *sorted(DOCS.rglob("*.md"))]
GROUPS = {name.partition(".")[0] for name in SETTINGS if "." in name}
LAUNCH_FILES = {"adapt.launch.py": ARGUMENTS, "replay.launch.py": (*REPLAY_ARGUMENTS, *ARGUMENTS)}
LAUNCHED = re.compile(r"^ros2 launch s4net_ros (\S+)(.*)$")
FOLDERS = ("demo/", "config/", "examples/", "tools/")
"""Paths that a command of the documentation reads and that must therefore be in the repository."""
WRITTEN = ("demo/out",)


def blocks(language: str) -> list[Any]:
    """File and code of every block in a language, as parameters of a test."""
    found = [(file, b["code"]) for file in TEXTS for b in BLOCK.finditer(file.read_text()) if b["language"] == language]
    return [pytest.param(*block, id=f"{block[0].relative_to(ROOT)}-{i}") for i, block in enumerate(found)]


@dataclass(frozen=True)
class Line:
    """One line of a shell in the documentation, continuation lines joined."""

    file: Path
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}: {self.text}"

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):  # variables of the environment
            words = words[1:]
        return words


def shell_lines() -> Iterator[Line]:
    for file in TEXTS:
        text = file.read_text()
        for block in BLOCK.finditer(text):
            if block["language"] in ("", "sh", "bash"):
                code = re.sub(r"\\\n\s*", "", block["code"])
                for line in re.split(r"\n|&&|;", code):
                    yield Line(file, line.strip())
        for code in INLINE.finditer(BLOCK.sub("", text)):
            if code["code"].startswith(("s4net ", "ros2 launch s4net_ros")):
                yield Line(file, re.sub(r"\|\S*", "", code["code"]))  # `a|b` stands for either


def commands_of_s4net() -> list[Line]:
    return [line for line in shell_lines() if re.match(r"([A-Z_]+=\S* )*(\S*/)?s4net ", line.text)]


def launches() -> list[Line]:
    return [line for line in shell_lines() if LAUNCHED.match(line.text)]


@pytest.mark.parametrize("line", commands_of_s4net(), ids=str)
def test_every_command_parses_with_the_real_parser(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = [word for word in line.words[1:] if word != "--debug"]
    if name == "COMMAND":
        return
    assert name in COMMANDS
    if not arguments:
        return  # the command is only mentioned
    if COMMANDS[name].ros:
        pytest.importorskip("rclpy")
    parser = command_parser(name)
    monkeypatch.setattr(parser, "error", pytest.fail)
    args = parser.parse_args([word for word in arguments if word != "--help"])
    load_settings(None, getattr(args, "overrides", []))
    read = [word for word in arguments if word.startswith(FOLDERS) and not word.startswith(WRITTEN)]
    missing = [word for word in read if not any(ROOT.glob(word))]  # a shell expands *.yaml
    assert not missing


def test_there_are_commands_to_check() -> None:
    assert len(commands_of_s4net()) > 20
    assert {LAUNCHED.sub(r"\1", line.text) for line in launches()} == set(LAUNCH_FILES)


@pytest.mark.parametrize("line", launches(), ids=str)
def test_every_launch_argument_exists(line: Line) -> None:
    match = LAUNCHED.match(line.text)
    assert match
    names = {argument.name: argument for argument in LAUNCH_FILES[match[1]]}
    for word in shlex.split(match[2], comments=True):
        if word.startswith("--"):
            assert word == "--show-args"
            continue
        name, separator, value = word.partition(":=")
        assert separator
        assert name in names
        assert not names[name].choices or value in names[name].choices


class TestTexts:
    def test_every_setting_that_is_named_exists(self) -> None:
        prose = "".join(BLOCK.sub("", file.read_text()) for file in TEXTS)
        named = [SETTING.fullmatch(code["code"]) for code in INLINE.finditer(prose)]
        settings = {match["name"] for match in named if match and match["name"].partition(".")[0] in GROUPS}
        assert len(settings) > 10
        assert settings - set(SETTINGS) == set()

    @pytest.mark.parametrize(("file", "code"), blocks("yaml"))
    def test_every_settings_file_can_be_loaded(self, file: Path, code: str, tmp_path: Path) -> None:
        (tmp_path / "settings.yaml").write_text(code)
        assert load_settings(tmp_path / "settings.yaml") != Settings()

    def test_every_link_leads_to_a_file_of_the_repository(self) -> None:
        links = [(file, match["path"]) for file in TEXTS for match in LINK.finditer(BLOCK.sub("", file.read_text()))]
        targets = {(file, os.path.normpath(file.parent / path)) for file, path in links if path}
        assert len(targets) > 20
        assert [(file, path) for file, path in targets if not os.path.exists(path)] == []

    @pytest.mark.parametrize(("file", "code"), blocks("python"))
    def test_python_compiles_and_imports_what_exists(self, file: Path, code: str) -> None:
        nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
        for node in nodes:
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        assert "s4net" in code


class TestReference:
    def test_every_setting_stands_in_it_once_with_its_default(self) -> None:
        page = reference.settings_page()
        for leaf in leaves(Settings()):
            name = re.escape(leaf.name)
            (default,) = re.findall(rf"^\| `{name}`{{ #{name} }} \| `(.*?)`", page, re.MULTILINE)
            default = default.strip('"')  # of an empty text
            read = {other.name: other.value for other in leaves(load_settings(None, [f"{leaf.name}={default}"]))}
            assert read[leaf.name] == leaf.value

    def test_examples_on_the_settings_page_are_settings(self, tmp_path: Path) -> None:
        blocks = [block["code"] for block in BLOCK.finditer(reference.settings_page()) if block["language"] == "yaml"]
        for code in blocks:
            (tmp_path / "settings.yaml").write_text(code)
            assert load_settings(tmp_path / "settings.yaml").learner.neighbours == 8
        assert len(blocks) == 2

    def test_every_command_and_each_of_its_options_stands_in_it(self) -> None:
        pytest.importorskip("rclpy")
        page = reference.commands_page()
        for name in COMMANDS:
            (help,) = re.findall(rf"## `s4net {name}`.*?```text\n(.*?)```", page, re.DOTALL)
            options = [o for action in command_parser(name)._actions for o in action.option_strings]
            assert [option for option in options if option not in help] == []

    def test_every_topic_service_and_argument_stands_in_it(self) -> None:
        page = reference.ros_page()
        names = [*INPUT_TOPICS, *chain.from_iterable(PUBLISHED.values()), *SERVICES, *MAP_SERVICES]
        names += [argument.name for argument in (*ARGUMENTS, *REPLAY_ARGUMENTS)]
        assert [name for name in names if f"| `{name}` |" not in page] == []

    def test_messages_stand_in_it_as_they_are_built(self) -> None:
        page = reference.ros_page()
        for path in (*(ROOT / "msg").iterdir(), *(ROOT / "srv").iterdir()):
            assert path.read_text() in page

    def test_topics_and_services_that_are_described_are_those_that_exist(self) -> None:
        assert set(TOPIC_HELP) == {*INPUT_TOPICS, *chain.from_iterable(PUBLISHED.values())}
        assert set(dict(adaptation_graph()[0].remappings)) == set(INPUT_TOPICS)
        source = "".join(path.read_text() for path in (ROOT / "s4net_ros").rglob("*.py"))
        served = {name: kind for kind, name in re.findall(r'create_service\((\w+), "(~/\w+)"', source)}
        described = {**SERVICES, **MAP_SERVICES}
        assert {name: kind.rpartition("/")[2] for name, (kind, _) in described.items()} == served

    def test_a_text_with_brackets_is_shown_and_not_taken_for_a_tag(self) -> None:
        assert "/&lt;camera_namespace&gt;/" in reference.ros_page()


class TestText:
    def test_the_readme_links_to_pages_instead_of_files(self) -> None:
        page = included_page("README.md")
        assert "](docs/" not in page
        assert "(ros.md)" in page
        assert "(contributing.md)" in page

    def test_links_to_files_that_are_no_pages_become_code(self) -> None:
        assert "[config/adapt.yaml](config/adapt.yaml)" in (ROOT / "README.md").read_text()
        assert "`config/adapt.yaml`" in included_page("README.md")

    def test_settings_become_links_outside_of_blocks_and_of_links(self) -> None:
        text = (
            "`learner.neighbours`, `learner.neighbours=8`, [`learner.merge`](x.md), `learner.speed`\n"
            "```\n`learner.merge`\n```\n"
        )
        target = "../reference/settings.md#learner.neighbours"
        assert link_settings(text, "tutorials/bag.md", "reference/settings.md") == (
            f"[`learner.neighbours`]({target}), [`learner.neighbours=8`]({target}), "
            "[`learner.merge`](x.md), `learner.speed`\n"
            "```\n`learner.merge`\n```\n"
        )


@pytest.mark.slow
@pytest.mark.timeout(300)  # builds every page; a quarter of a minute on an idle machine
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    if not importlib.util.find_spec("mkdocs") or not importlib.util.find_spec("material"):
        pytest.skip("mkdocs-material is not installed: run `make docs`")
    pytest.importorskip("rclpy")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    loads = re.compile(r'(?:<script[^>]* src|<link[^>]* href|<img[^>]* src)="(https?:[^"]*)')
    fetched = [address for page in (tmp_path / "site").rglob("*.html") for address in loads.findall(page.read_text())]
    assert not fetched, "a page loads something from elsewhere"
