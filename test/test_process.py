"""Memory of the whole process."""

import platform
from pathlib import Path

import pytest

from s4net_core.machine.process import return_free_memory

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
