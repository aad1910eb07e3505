"""How PyTorch's threads on a CPU wait for each other. Imports nothing, because it must come before PyTorch."""

import os

SPINS = 3000
"""Turns, about 0.1 ms on x86: longer than most gaps between two operations of a network."""


def spin_briefly() -> None:
    """Let PyTorch's threads spin for 0.1 ms or less before they sleep; has no effect once PyTorch is imported.

    GNU's OpenMP, which PyTorch's wheels use, lets them spin for 10 ms and more. Where another program has one of the
    cores, they use up the time in which the thread that they wait for could run. The environment wins over this
    (GOMP_SPINCOUNT and OMP_WAIT_POLICY, see the manual of libgomp).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
