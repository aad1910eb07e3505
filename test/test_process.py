"""Memory of the whole process, and how long a thread waits for a core."""

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s4net_core.machine.process import CoreWatch, return_free_memory

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
def test_a_thread_that_shares_its_core_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4net_core.machine.process.WATCHED_SECONDS", 1.0)
    cores = os.sched_getaffinity(0)
    watch = CoreWatch(threading.get_native_id())
    os.sched_setaffinity(0, {min(cores)})  # of this thread, and of the process that it starts
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert watch.held_up() == 0
        end = time.monotonic() + 60
        while time.monotonic() < end and watch.held_up() < 0.3:
            pass
        assert watch.held_up() >= 0.3
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)


def test_a_thread_waits_in_a_share_of_the_last_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watch = CoreWatch(1)
    watch._file = tmp_path / "schedstat"
    shares = []
    for second in range(0, 181, 10):  # it waits for 5 of 10 s at first, and no more after one minute
        now = 1000.0 + second
        watch._file.write_text(f"7 {int(min(second, 60) * 0.5e9)} 3\n")
        shares.append(watch.held_up())
    assert shares[:7] == [pytest.approx(second * 0.5 / 60) for second in range(0, 61, 10)]
    assert shares[9] == pytest.approx(0.25)
    assert set(shares[12:]) == {0.0}


def test_of_a_thread_that_has_ended_nothing_is_known() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    watch = CoreWatch(thread.native_id or 0)
    thread.join()
    assert watch.held_up() == 0
