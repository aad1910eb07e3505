"""A simulated recording that is played in a loop: topics have no common order, each lags by its own time."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

MS = 1_000_000
S = 1_000_000_000
STEP = 33 * MS
START = 10 * S
FRAMES = 120
TOPICS = ("tf", "info", "color", "depth")

LAGS = [dict(zip(order, (0, 60, 130, 200), strict=True)) for order in itertools.permutations(TOPICS)]
"""Milliseconds by which messages of each topic come later than their stamps say: every order of the topics."""


class Event(NamedTuple):
    """One message of one topic; `lap` counts rounds of the recording."""

    topic: str
    stamp: int
    lap: int


def looped(lags_ms: dict[str, int], laps: int, frames: int = FRAMES) -> Iterator[Event]:
    """Messages in the order in which they arrive."""
    sent = [
        ((lap * frames + i) * STEP + lags_ms[topic] * MS, Event(topic, START + i * STEP, lap))
        for lap in range(laps)
        for i in range(frames)
        for topic in TOPICS
    ]
    return (event for _, event in sorted(sent, key=lambda pair: pair[0]))


def around_a_jump(stamp: int, frames: int = FRAMES) -> bool:
    """Whether a frame lies in the second around the jump at the end of each lap, where it may be lost."""
    return stamp >= START + frames * STEP - 250 * MS or stamp < START + 750 * MS
