"""Strained pairs, whose depths contradict each other a little, teach if both views fit those near them in time."""

import numpy as np
import pytest
from keyframes.walls import view

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.geometry.views import Views
from s4net_core.keyframes.gate import Measured, Overlaps, PairGate, Verdict
from s4net_core.keyframes.pairing import NEAR_IN_TIME, PairCounts, Pairing
from s4net_core.keyframes.view import coarse_view, keyframe_of

FITS, STRAINED, CONTRADICTS = Verdict.FITS, Verdict.STRAINED, Verdict.CONTRADICTS
FAR = 2 * NEAR_IN_TIME
"""Id of a keyframe that is not near the first one in time."""


def empty() -> Pairing:
    return Pairing(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, from_sensor=True)


def insert(pairing: Pairing, id: int, verdicts: dict[int, Verdict], *, share: float = 0.5, segment: int = 0) -> None:
    """A keyframe of which is known what its depth says about older ones."""
    frame = view(x=0.3 * id, stamp=id)
    overlaps: Overlaps = {other: Measured(share, share, verdict) for other, verdict in verdicts.items()}
    pairing.insert(keyframe_of(frame, frame.depth, id, segment), overlaps)


def chain(**others: dict[int, Verdict]) -> Pairing:
    """Keyframes 0..FAR; each fits the one before it. Keyword ``kN`` gives what keyframe N measures instead."""
    pairing = empty()
    for id in range(FAR + 1):
        insert(pairing, id, others.get(f"k{id}", {id - 1: FITS} if id else {}))
    return pairing


def teaching(pairing: Pairing, id: int) -> set[int]:
    return set(pairing.graph.seen_by(id))


def coarse(depth: float) -> Views:
    frame = view(depth=depth)
    return coarse_view(keyframe_of(frame, frame.depth, 0, 0), 24)


@pytest.mark.parametrize(("depth", "verdict"), [(2.03, FITS), (2.08, STRAINED), (2.2, CONTRADICTS), (3.0, CONTRADICTS)])
def test_the_gate_tells_what_drift_may_do_from_what_it_does_not(depth: float, verdict: Verdict) -> None:
    """A wall that is 1.5, 4, 10 and 50 % farther away: 2.4 % are allowed, and three times as much is strained."""
    gate = PairGate(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, from_sensor=True)
    assert gate.measure(coarse(2.0), {7: coarse(depth)}, prove=False)[7].verdict == verdict


def test_a_strained_pair_teaches_if_both_views_fit_those_near_them_in_time() -> None:
    pairing = chain(**{f"k{FAR}": {FAR - 1: FITS, 0: STRAINED}})
    assert teaching(pairing, FAR) == {FAR - 1, 0}
    assert pairing.refused() == []
    assert pairing.counts == PairCounts(usable=FAR + 1)


def test_a_pair_that_contradicts_never_teaches() -> None:
    pairing = chain(**{f"k{FAR}": {FAR - 1: FITS, 0: CONTRADICTS}})
    assert teaching(pairing, FAR) == {FAR - 1}
    assert pairing.refused() == [(FAR, 0)]


@pytest.mark.parametrize("verdict", [STRAINED, CONTRADICTS])
def test_a_view_that_contradicts_most_of_those_near_it_in_time_strains_with_nobody(verdict: Verdict) -> None:
    near = {FAR - 1: FITS, FAR - 2: verdict, FAR - 3: verdict}
    pairing = chain(**{f"k{FAR}": {**near, 0: STRAINED}})
    assert teaching(pairing, FAR) == {FAR - 1}
    assert set(pairing.refused()) == {(FAR, FAR - 2), (FAR, FAR - 3), (FAR, 0)}
    assert pairing.counts == PairCounts(usable=FAR, refused=3)


def test_a_view_of_which_those_near_it_in_time_say_nothing_strains_with_nobody() -> None:
    alone = chain(**{f"k{FAR}": {0: STRAINED}})
    assert teaching(alone, FAR) == set()
    hardly = empty()  # what fits in a corner alone says nothing either
    for id in range(FAR):
        insert(hardly, id, {id - 1: FITS} if id else {})
    insert(hardly, FAR, {FAR - 1: FITS, 0: STRAINED}, share=0.1)
    assert hardly.refused() == [(FAR, 0)]


def test_later_views_lift_a_doubt_and_raise_one() -> None:
    pairing = chain(**{f"k{FAR}": {FAR - 1: STRAINED, 0: STRAINED}})
    assert teaching(pairing, 0) == {1}
    insert(pairing, FAR + 1, {FAR: FITS})
    assert teaching(pairing, 0) == {1, FAR}
    assert pairing.counts.refused == 0
    for id in (FAR + 2, FAR + 3):
        insert(pairing, id, {FAR: CONTRADICTS, id - 1: FITS})
    assert teaching(pairing, 0) == {1}
    assert set(pairing.refused()) == {(FAR, FAR - 1), (FAR, 0), (FAR + 2, FAR), (FAR + 3, FAR)}


def test_a_view_that_is_forgotten_says_nothing_any_more() -> None:
    pairing = chain(**{f"k{FAR}": {FAR - 1: FITS, 0: STRAINED}})
    pairing.remove(FAR - 1)
    assert pairing.refused() == [(FAR, 0)]
    assert teaching(pairing, FAR) == set()


def test_views_of_another_segment_raise_no_doubt() -> None:
    """Where odometry has restarted, the last views before contradict the first ones after."""
    pairing = empty()
    for id in range(4):
        insert(pairing, id, {id - 1: FITS} if id else {})
    for id in range(4, 8):
        insert(pairing, id, {**dict.fromkeys(range(4), CONTRADICTS), **({id - 1: FITS} if id > 4 else {})}, segment=1)
    insert(pairing, 8, {7: FITS, 4: STRAINED}, segment=1)
    assert teaching(pairing, 8) == {7, 4}


def test_doubts_follow_from_what_is_kept_whatever_the_order_of_changes() -> None:
    rng = np.random.default_rng(0)
    pairing, kept = empty(), {}
    for id in range(60):
        kept[id] = {other: Verdict(int(rng.choice([0, 1, 3]))) for other in range(max(0, id - 6), id)}
        insert(pairing, id, kept[id])
        if id % 5 == 4:
            gone = int(rng.choice(list(pairing.keyframes)))
            pairing.remove(gone)
            del kept[gone]
    anew = empty()
    for id, verdicts in kept.items():
        insert(anew, id, verdicts)
    assert pairing.refused() == anew.refused()
    assert pairing.counts == anew.counts
    assert {id: teaching(pairing, id) for id in kept} == {id: teaching(anew, id) for id in kept}
