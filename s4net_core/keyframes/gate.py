"""The gate for pairs: how much two keyframes see of each other, and whether their depths contradict each other."""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import torch

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.geometry.fit import constraint, fit
from s4net_core.geometry.overlap import overlap
from s4net_core.geometry.views import Pairs, Views, joined

CONSTRAINED = 0.008
"""Residual that a wrong pose must cause in every direction before a fitting pair proves anything. A bare wall with 2 %
of noise reaches 0.004; of the pairs of furnished rooms, six in ten reach more than this."""
STRAIN = 3.0
"""Multiple of `max_free_space` and `max_residual` up to which a pair is strained, and beyond which it contradicts."""


class Verdict(IntEnum):
    """What the depths of two views say about their poses."""

    CONTRADICTS = 0
    """The views do not teach each other: a wrong pose, people who moved, frozen depth, or a wrong scale."""
    FITS = 1
    """Nothing speaks against the pair."""
    PROVES = 2
    """The views fit, and would not at a wrong pose in any direction."""
    STRAINED = 3
    """The views contradict each other, but no more than drift makes views of different times do."""


class Measured(NamedTuple):
    """Share of the new view that the other sees, share of the other that the new one sees, and what the gate says."""

    of_new: float
    of_other: float
    verdict: Verdict = Verdict.FITS

    @property
    def fits(self) -> bool:
        """Whether the depths do not contradict each other at all."""
        return self.verdict in (Verdict.FITS, Verdict.PROVES)


Overlaps = dict[int, Measured]
"""Measurements of one keyframe by the id of the other."""


class PairGate:
    """Measures pairs of keyframes on coarse depth.

    Args:
        keyframes: `max_free_space` and `max_residual`.
        geometry: which pixels of two views count as the same point.
        min_overlap: share of a view that must be compared for the depths to contradict each other.
        from_sensor: whether depth was measured. Predicted depths may differ by far more than the tests allow, and still
            show which views overlap: then nothing is tested, and no pair proves anything.
    """

    def __init__(
        self, keyframes: KeyframeSettings, geometry: GeometrySettings, *, min_overlap: float, from_sensor: bool
    ) -> None:
        self._keyframes = keyframes
        self._geometry = geometry
        self._min_overlap = min_overlap
        self._from_sensor = from_sensor

    def measure(self, view: Views, others: Mapping[int, Views], *, prove: bool, newer: bool = False) -> Overlaps:
        """Compare a view with others, in one batch; pairs that see nothing of each other are left out.

        Args:
            view: one view, coarse depth.
            others: one view each, of the same size.
            newer: whether the others are newer than the view, and not older.
            prove: whether `Verdict.PROVES` is asked for, which costs three times as much.
        """
        if not others:
            return {}
        here, there = view.repeated(len(others)), joined(list(others.values()))
        if newer:
            here, there = there, here
        pairs = Pairs(joined([here, there]), joined([there, here]))
        shares = overlap(pairs, self._geometry, occlusion=self._from_sensor).tolist()
        verdicts = self._verdicts(Pairs(here, there), prove) if self._from_sensor else [Verdict.FITS] * len(others)
        rows = zip(others, shares[: len(others)], shares[len(others) :], verdicts, strict=True)
        return {
            id: measured
            for id, *values in rows
            if (measured := Measured(*values)).of_new > 0 or measured.of_other > 0 or not measured.fits
        }

    def _verdicts(self, pairs: Pairs, prove: bool) -> list[Verdict]:
        found = fit(pairs, self._geometry)
        excess = torch.maximum(
            found.free_space / self._keyframes.max_free_space, found.residual / self._keyframes.max_residual
        )
        enough = found.compared >= self._min_overlap
        verdicts = torch.full(excess.shape, int(Verdict.FITS))
        verdicts[enough & (excess > 1)] = Verdict.STRAINED
        verdicts[enough & (excess > STRAIN)] = Verdict.CONTRADICTS
        if prove:
            verdicts[enough & (excess <= 1) & (constraint(pairs, self._geometry) > CONSTRAINED)] = Verdict.PROVES
        return [Verdict(verdict) for verdict in verdicts.tolist()]
