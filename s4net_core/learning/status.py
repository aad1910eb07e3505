"""What a session says about itself: its status, and the outcome of a hand-over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from s4net_core.keyframes import PairCounts
from s4net_core.learning.guard import Health
from s4net_core.learning.learner import StepReport
from s4net_core.learning.stopping import WAITING
from s4net_core.learning.versions import Version

CONTRADICTED = "contradicted"
"""Reason in `Status.rejected`: most of the keyframes near it in time contradicted the view."""
NAN = float("nan")
NO_STEP = StepReport(0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN)
NOT_MEASURED = Health(finite=True, source_miou=NAN, score=NAN, agreement=NAN, largest_share=NAN, classes=0)


@dataclass(frozen=True)
class Handover:
    """Outcome of one attempt to hand weights over.

    Args:
        version: the version that serves from now on.
        reasons: why the guard refused the new weights; empty = it did not. After a refusal `version` is the last good
            one and the learner continues from it.
        better: whether the new weights score at least as well as those that served; otherwise `version` is the one
            that served, and the learner goes on from its own weights.
    """

    version: Version
    reasons: tuple[str, ...] = ()
    better: bool = True

    @property
    def accepted(self) -> bool:
        """Whether `version` is new."""
        return not self.reasons and self.better


@dataclass(frozen=True)
class Status:
    """What a session has done so far. Counts start when it is opened; a reset keeps them.

    Args:
        state: ``waiting``, ``learning`` or ``finished``, see `Stopping`.
        keyframes: number in the buffer.
        keyframe_bytes: memory of the keyframes.
        segments: parts of the stream that hold keyframes and were not shown to be in one frame.
        pairs: pairs of keyframes that teach each other, and those that do not although they overlap.
        offered: views that were offered to the buffer.
        doubt: what speaks against poses and depth of the newest views, and what to check; empty = most views fit.
        rejected: number of offered views that did not become keyframes, or did not remain one, by reason.
        step: learner steps since the base model.
        last_step: losses of the last step; NaN = none yet, or none since a reset.
        version: number of the version that serves; 0 = base model.
        model_path: weights file of that version.
        handovers: number of accepted hand-overs.
        refused: number of refused hand-overs.
        source_left_out: number of source images that cannot be read at the moment.
        last_refusal: reason of the last refusal; empty = none yet, or none since a reset.
        unsaved: why the state folder cannot be written, so that nothing is saved; empty = it can.
        health, base_health: the guard's last measurement of new weights and of the base model; NaN = none yet.
    """

    state: str = WAITING
    keyframes: int = 0
    keyframe_bytes: int = 0
    segments: int = 0
    pairs: PairCounts = field(default_factory=PairCounts)
    doubt: str = ""
    offered: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    last_step: StepReport = NO_STEP
    version: int = 0
    model_path: str = ""
    handovers: int = 0
    refused: int = 0
    source_left_out: int = 0
    last_refusal: str = ""
    unsaved: str = ""
    health: Health = NOT_MEASURED
    base_health: Health = NOT_MEASURED
