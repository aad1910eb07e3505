"""What can be asked of the keyframes: overlaps, neighbours, draws."""

import threading

import numpy as np
import pytest
from walls import SECOND, buffer, corridor, filled, view

from s4net_core.errors import KeyframeError
from s4net_core.keyframes import PairCounts


def test_of_views_equally_near_the_older_one_is_measured() -> None:
    """Keyframes on a grid: the two beside the new view are equally far, and only one candidate is asked for."""
    frames = [view(2.0, stamp=0), view(1.0, stamp=1), view(1.5, stamp=2)]
    keyframes = filled(frames, candidates=1)
    assert [other for other, _ in keyframes.overlapping(2, 0.0)] == [0]


def test_overlaps_are_shares_of_the_target_view() -> None:
    keyframes = filled([view(), view(x=1.28, stamp=1), view(x=0.5, yaw=180, stamp=2)])
    # a wall 2 m away is 64 px · 2 m / 50 px = 2.56 m wide in view: half of it is left after 1.28 m
    assert keyframes.overlapping(0, 0.25) == [(1, pytest.approx(0.5, abs=0.05))]
    assert keyframes.overlapping(2, 0.0) == []
    assert keyframes.trainable(0.25) == [0, 1]
    assert keyframes.trainable(0.7) == []


def test_neighbours_come_at_random_from_those_that_overlap_enough() -> None:
    keyframes = filled(corridor(30))
    able = {id for id, share in keyframes.overlapping(15, 0.25)}
    assert 10 < len(able) < 29
    rng = np.random.default_rng(0)
    drawn = [keyframes.neighbours(15, 4, 0.25, rng) for _ in range(200)]
    assert all(len(set(ids)) == 4 and set(ids) <= able for ids in drawn)
    assert set().union(*drawn) == able
    assert sorted(keyframes.neighbours(15, 100, 0.25, rng)) == sorted(able)
    assert keyframes.neighbours(15, 4, 0.9999, rng) == []
    assert keyframes.neighbours(999, 4, 0.25, rng) == []


def test_a_draw_gives_different_targets_each_with_neighbours_that_see_enough_of_it() -> None:
    keyframes = filled(corridor(30))
    drawn = keyframes.draw(4, 3, 0.25, np.random.default_rng(0))
    assert len({target.id for target, _ in drawn}) == len(drawn) == 4
    for target, others in drawn:
        able = {id for id, _ in keyframes.overlapping(target.id, 0.25)}
        assert {view.id for view in others} <= able
        assert len({view.id for view in others}) == len(others) == 3
        assert all(view is keyframes.get(view.id) for view in (target, *others))


def test_draws_follow_from_the_generator_and_reach_every_view_that_has_a_neighbour() -> None:
    keyframes = filled([*corridor(12), view(x=50, stamp=20 * SECOND)], holdout=0)

    def draws(seed: int) -> list:
        rng = np.random.default_rng(seed)
        drawn = [keyframes.draw(4, 2, 0.25, rng) for _ in range(40)]
        return [[(target.id, [view.id for view in others]) for target, others in one] for one in drawn]

    assert draws(3) == draws(3) != draws(4)
    assert {id for one in draws(3) for id, _ in one} == set(keyframes.trainable(0.25)) == set(range(12))


def test_a_draw_takes_what_there_is() -> None:
    rng = np.random.default_rng(0)
    assert buffer().draw(4, 4, 0.25, rng) == []
    assert filled([view()]).draw(4, 4, 0.25, rng) == []
    drawn = filled(corridor(2)).draw(4, 4, 0.25, rng)
    assert {target.id: [view.id for view in others] for target, others in drawn} == {0: [1], 1: [0]}


def test_held_out_views_are_never_targets_but_are_neighbours() -> None:
    keyframes = filled([*corridor(12), view(x=50, stamp=20 * SECOND)], holdout=3)
    rng = np.random.default_rng(0)
    drawn = [pair for _ in range(20) for pair in keyframes.draw(4, 0, 0.25, rng)]
    assert keyframes.held_out(0.25) == [2, 5, 8, 11]
    assert keyframes.trainable(0.25) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert keyframes.any_trainable(0.25)
    assert {target.id for target, _ in drawn} == {0, 1, 3, 4, 6, 7, 9, 10}
    for target, others in drawn:
        assert [view.id for view in others] == sorted(id for id, _ in keyframes.overlapping(target.id, 0.25))
    assert {view.id for _, others in drawn for view in others} >= {2, 5, 8, 11}


def test_what_is_held_out_does_not_change_when_views_come_or_go() -> None:
    """A view that has been learnt from may never become one to measure on, nor the other way round."""
    keyframes = filled(corridor(100), holdout=4, max_megabytes=1)
    held = keyframes.ids()
    assert keyframes.evicted > 0
    assert keyframes.held_out(0.25) == [id for id in held if id % 4 == 3]
    assert filled(corridor(12), holdout=0).held_out(0.25) == []


def test_a_draw_is_whole_while_another_thread_makes_the_buffer_evict() -> None:
    """Every offer to this full buffer pushes a view out: ids asked for in one step are stale in the next."""
    keyframes = filled(corridor(65), max_megabytes=1)
    failures: list[Exception] = []

    def keep_offering() -> None:
        try:
            for i in range(60):
                keyframes.offer(view(0.2 * (65 + i), stamp=(65 + i) * SECOND))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=keep_offering)
    thread.start()
    rng, drawn = np.random.default_rng(0), []
    while thread.is_alive() or not drawn:
        drawn.append(keyframes.draw(8, 4, 0.25, rng))
    thread.join()
    assert not failures
    assert keyframes.evicted >= 60
    assert all(len(one) == 8 and all(others for _, others in one) for one in drawn)


def test_views_are_those_that_are_still_held_in_the_order_asked_for() -> None:
    keyframes = filled(corridor(80), max_megabytes=1)
    gone = sorted(set(range(80)) - set(keyframes.ids()))
    first, last = keyframes.ids()[0], keyframes.ids()[-1]
    found = keyframes.views([last, gone[0], first, 999])
    assert list(found) == [last, first]
    assert found[first] is keyframes.get(first)


def test_asking_for_a_keyframe_that_is_gone_says_so() -> None:
    with pytest.raises(KeyframeError, match="keyframe 4"):
        buffer().get(4)


def test_pairs_are_counted_when_something_has_changed_and_not_when_somebody_asks() -> None:
    keyframes = buffer(max_megabytes=1)
    for frame in corridor(80):
        before = keyframes.pairs
        keyframes.offer(frame)
        assert keyframes.pairs is keyframes.pairs is not before
        seen = {frozenset((id, other)) for id in keyframes.ids() for other, _ in keyframes.overlapping(id, 0.25)}
        assert keyframes.pairs == PairCounts(usable=len(seen))
    assert keyframes.evicted > 0
    keyframes.clear()
    assert keyframes.pairs == PairCounts()
