"""Fixtures that several test modules share."""

import os
import sys
from pathlib import Path

import pytest

EXIT_STATUS = pytest.StashKey[int]()
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data_if_any() -> Path | None:
    """Folder of the development data."""
    return SHARED_DATA if SHARED_DATA.is_dir() else None


@pytest.fixture(scope="session")
def shared_data(shared_data_if_any: Path | None) -> Path:
    """The same; tests that need it are skipped where it is missing."""
    if shared_data_if_any is None:
        pytest.skip(f"development data not found at {SHARED_DATA}")
    return shared_data_if_any


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the clean-up of C libraries where librealsense was loaded.

    In one process with everything else that the tests load (Open3D brings a librealsense of its own, ROS, HDF5), a
    static string of pyrealsense2 is freed twice when the process exits. Programs load a few of them and end well:
    their tests run them in processes of their own. All reports are written when this is called.
    """
    if "pyrealsense2" in sys.modules and EXIT_STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[EXIT_STATUS])
