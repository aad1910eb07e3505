"""Fixtures that several test modules share, and how the tests are run."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pytest's setting `pythonpath` is younger than Ubuntu 22.04
SHARED_DATA = ROOT.parent / "shared" / "data"
OUTSIDE = "outside_data"
EXIT_STATUS: list[int] = []
CHROMIUM_FLAGS = (
    "headless=new",
    "no-sandbox",  # root has none; the pages are our own
    "disable-background-networking",
    "disable-dev-shm-usage",
    "window-size=1400,1600",
)

if "PYTEST_XDIST_WORKER" in os.environ:  # one core for each; before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of published and recorded data that the repository does not hold; its tests are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"development data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def demo() -> Path:
    """The demo's data: ``capture`` (240x180, with depth), ``scan2`` and ``source``."""
    return ROOT / "demo"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium, as Selenium's driver; it keeps what pages write to its console."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium or its driver is not installed: sudo apt-get install chromium chromium-driver")
    missing = "selenium is not installed: run `make test`, or pip install selenium"
    webdriver = pytest.importorskip("selenium.webdriver", reason=missing)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in CHROMIUM_FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def of_ros(item: pytest.Item) -> bool:
    """Whether a test is in the folder of the nodes; all of them need ROS and are skipped without it."""
    return ROOT / "test" / "ros" in item.path.parents


def pytest_collection_modifyitems(items: "list[pytest.Item]") -> None:
    """Mark what needs ROS or outside data; files of ROS, which wait half of their time, come among the others.

    The longest tests of the end of the alphabet come first, or one worker would be busy with them when all others have
    nothing left.
    """
    count, before, place = Counter(map(of_ros, items)), Counter[bool](), dict[Path, float]()
    for item in items:
        place.setdefault(item.path, before[of_ros(item)] / count[of_ros(item)])
        before[of_ros(item)] += 1
    items.sort(key=lambda item: (item.path.name not in ("test_colcon.py", "test_examples.py"), place[item.path]))
    for item in items:
        if of_ros(item):
            item.add_marker("ros")
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(OUTSIDE)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests used data outside the repository, so that nobody takes a skipped test for a passed one."""
    reports = [r for kind in ("passed", "failed", "error", "skipped") for r in terminalreporter.stats.get(kind, ())]
    outside = [report for report in reports if OUTSIDE in getattr(report, "keywords", ())]  # modules have none
    skipped = sum(report.skipped for report in outside)
    if outside:
        terminalreporter.write_line(
            f"{len(outside) - skipped} tests used data outside the repository, {skipped} were skipped without it"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    EXIT_STATUS.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the clean-up of C libraries where librealsense was loaded.

    In one process with everything else that the tests load (Open3D brings a librealsense of its own, ROS, HDF5), a
    static string of pyrealsense2 is freed twice when the process exits. Programs load a few of them and end well:
    their tests run them in processes of their own. All reports are written when this is called.
    """
    if "pyrealsense2" in sys.modules and EXIT_STATUS:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_STATUS[-1])
