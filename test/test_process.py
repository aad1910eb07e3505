"""Memory of the whole process, and how long a thread waits for a core."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s4net_core.machine.process import return_free_memory, running_and_ready

BLOCK, COUNT = 60_000, 2000
"""Bytes of a block, less than what malloc takes from the system alone, and their number."""


def resident() -> int:
    """Bytes of this process in RAM."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the C library of GNU")
def test_free_memory_between_what_is_in_use_goes_back_to_the_system() -> None:
    blocks = [bytes([n % 255 + 1]) * BLOCK for n in range(COUNT)]
    del blocks[::2]
    before = resident()
    return_free_memory()
    assert before - resident() > 0.8 * BLOCK * COUNT / 2
    assert all(len(block) == BLOCK for block in blocks)


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="needs the kernel's scheduler statistics")
def test_a_thread_that_shares_its_core_waits_for_it() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # of this thread, and of the process that it starts
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        run, ready = running_and_ready()
        end = time.monotonic() + 60
        while time.monotonic() < end and running_and_ready()[1] < ready + 0.05:
            pass
        assert running_and_ready()[1] >= ready + 0.05
        assert running_and_ready()[0] > run
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)


def test_a_system_without_scheduler_statistics_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert running_and_ready() == (0.0, 0.0)
