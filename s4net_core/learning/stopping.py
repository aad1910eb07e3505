"""When learning stops: the single rule, for the node and for the offline loop."""

import math
from collections.abc import Mapping

from s4net_core.config import AdaptationSettings, Settings
from s4net_core.keyframes import KeyframeBuffer

WAITING, LEARNING, FINISHED = "waiting", "learning", "finished"

BEST_GAIN, WITHOUT_GAIN = "best_score_gain", "handovers_without_gain"
"""Metrics saved with a version, so that a later run knows whether the score still rises."""


class Patience:
    """Counts the hand-overs since the score on held-out keyframes last rose.

    Args:
        settings: `patience` and `min_gain`.
    """

    def __init__(self, settings: AdaptationSettings) -> None:
        self._settings = settings
        self.limit = settings.patience
        """Hand-overs without gain that end learning; 0 = no limit."""
        self._best = 0.0
        self._without_gain = 0

    @property
    def exhausted(self) -> bool:
        """Whether the score has not risen for `limit` hand-overs."""
        return 0 < self.limit <= self._without_gain

    def after(self, gain: float) -> dict[str, float]:
        """`metrics` with one more hand-over, which counts when they were written and are given to `recall`.

        Args:
            gain: score minus the base model's on the same keyframes, which change while a robot drives;
                NaN = it could not be measured, or the weights were refused.
        """
        if gain > self._best + self._settings.min_gain:
            return {BEST_GAIN: gain, WITHOUT_GAIN: 0}
        return {BEST_GAIN: self._best, WITHOUT_GAIN: self._without_gain + 1}

    def note_refusal(self) -> None:
        """Count one hand-over whose weights the guard refused: no gain, whatever was measured."""
        self.recall(self.after(math.nan))

    @property
    def metrics(self) -> dict[str, float]:
        """The state that `recall` restores, to be saved with a version."""
        return {BEST_GAIN: self._best, WITHOUT_GAIN: self._without_gain}

    def recall(self, metrics: Mapping[str, float]) -> None:
        """Restore the state saved with a version; without these metrics, start from zero."""
        self._best = metrics.get(BEST_GAIN, 0.0)
        self._without_gain = int(metrics.get(WITHOUT_GAIN, 0))


class Stopping:
    """The rule by which learning goes on, waits or is over; ask `state`.

    - ``finished``, for good: `adaptation.max_steps` are done, or the score on held-out keyframes has not risen
      for `patience.limit` hand-overs. That limit is `adaptation.patience`; the offline loop, which has seen the whole
      capture, sets it to `adaptation.offline_patience` where that is 0.
    - ``waiting``, until more keyframes come: there are fewer than `adaptation.min_keyframes`, or none of them overlap,
      or each keyframe taken so far has had its `adaptation.steps_per_keyframe`, in whole hand-overs.
    - ``learning`` otherwise.

    Args:
        settings: group `adaptation`, and `learner.min_overlap`.
        keyframes: the views to learn from.
    """

    def __init__(self, settings: Settings, keyframes: KeyframeBuffer) -> None:
        self._adaptation = settings.adaptation
        self._min_overlap = settings.learner.min_overlap
        self._keyframes = keyframes
        self.patience = Patience(settings.adaptation)
        self.steps_before_views = 0
        """Steps of an earlier run whose keyframes were not kept; they do not count for the present keyframes."""

    def state(self, steps: int) -> str:
        """``waiting``, ``learning`` or ``finished`` after so many learner steps."""
        if 0 < self._adaptation.max_steps <= steps or self.patience.exhausted:
            return FINISHED
        return LEARNING if steps < (self._last_of_views or math.inf) and self.enough_views else WAITING

    @property
    def last_step(self) -> int | None:
        """The step after which learning waits or is over, with the views of now; None = no number of steps ends it."""
        return min(filter(None, (self._adaptation.max_steps, self._last_of_views)), default=None)

    @property
    def enough_views(self) -> bool:
        """Whether there are `adaptation.min_keyframes`, some of which overlap."""
        enough = len(self._keyframes) >= self._adaptation.min_keyframes
        return enough and self._keyframes.any_trainable(self._min_overlap)

    @property
    def _last_of_views(self) -> int | None:
        """The step after which all views have had theirs; None = they have no number."""
        if not self._adaptation.steps_per_keyframe:
            return None
        due = self._adaptation.steps_per_keyframe * self._keyframes.taken
        handovers = max(int(due) // self._adaptation.handover_every, 1)  # steps that are not handed over are lost
        return self.steps_before_views + handovers * self._adaptation.handover_every
