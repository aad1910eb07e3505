"""The offline loop: learn from a whole capture, then return the result."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from s4net_core.config import AdaptationSettings, Settings, with_values
from s4net_core.errors import BadFrame, LearningError, SettingsError
from s4net_core.frames import Capture, View
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.keyframes import CHECK_POSES, REMEDIES, KeyframeBuffer
from s4net_core.keyframes.segments import same_pose
from s4net_core.learning.session import Session
from s4net_core.learning.status import CONTRADICTED, Handover, Status
from s4net_core.learning.stopping import LEARNING
from s4net_core.learning.versions import Version
from s4net_core.streams.drops import counted

log = logging.getLogger(__name__)

HARDLY_MOVES = (
    "the camera hardly moves: use a longer capture, check that poses are in metres, or lower "
    "keyframes.min_translation and keyframes.min_rotation"
)


def open_session(
    capture: Capture,
    settings: Settings,
    checkpoint: str | Path,
    source: SourceSet | None,
    folder: str | Path,
    *,
    resume: bool = True,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Session:
    """A session that learns one capture, and goes on with it in a later run.

    Poses of a file mean the same after the computer has started again. So its keyframes are used again then, unless
    `keyframes.after_restart` is ``drop``.

    Args:
        capture: only its poses are looked at.
        settings, checkpoint, source, folder, resume, track: as of `Session`.

    Raises:
        SettingsError: `folder` holds keyframes of another capture: the poses of the two need not be in one frame.
        S4NetError: as `Session`.
    """
    if settings.keyframes.after_restart == "same_boot":
        settings = with_values(settings, {"keyframes.after_restart": "keep"})
    session = Session(settings, checkpoint, source, folder, resume=resume, track=track)
    try:
        _check_same(capture, session.keyframes, folder)
    except BaseException:
        session.close()
        raise
    return session


def _check_same(capture: Capture, keyframes: KeyframeBuffer, folder: str | Path) -> None:
    poses = {view.stamp: view.T_world_camera for view in keyframes.views(keyframes.ids()).values()}
    views = (view for view in (capture.views() if poses else ()) if view.stamp in poses)
    same = [bool(same_pose(poses[view.stamp], view.T_world_camera)) for view in views]
    if poses and not (same and all(same)):
        raise SettingsError(
            f"state {folder} holds {len(poses)} keyframes, {same.count(True)} of which are views of {capture.name}: "
            "only the capture and poses of the earlier run can go on there; start anew in another folder, or with "
            "--force of the command"
        )


def adapt_to(
    session: Session,
    views: Iterable[View],
    *,
    on_collected: Callable[[Mapping[str, int]], None] = lambda rejected: None,
    on_handover: Callable[[Handover], None] = lambda handover: None,
    on_step: Callable[[Status], None] = lambda status: None,
) -> Version:
    """Offer all views as keyframes, then learn until `Stopping` ends it, with the patience of `patience_of`.

    Args:
        session: open; it may have learnt before.
        views: the capture; views whose images cannot be used are left out, and the capture counts them.
        on_collected: called before learning starts with the number of views that did not become keyframes, by reason.
        on_handover: called when the guard has accepted or refused new weights.
        on_step: called after every step, and after its `on_handover`.

    Returns:
        The version that serves at the end; the base model when the guard accepted no weights.

    Raises:
        SettingsError: no setting ends learning.
        LearningError: too few views can be used or overlap, or the loss is repeatedly not finite.
        KeyframeError, CheckpointError: the folder of the session cannot be written.
    """
    adaptation = session.settings.adaptation
    session.stopping.patience.limit = patience_of(adaptation)
    known = session.keyframes.taken
    before, unusable, messages = session.status, Counter[str](), dict[str, str]()
    for view in views:
        try:
            session.offer(view)
        except BadFrame as error:
            view.refuse(error)
            unusable[error.reason] += 1
            messages[error.reason] = str(error)
    status = session.status
    rejected = Counter(status.rejected) - Counter(before.rejected)
    on_collected(unusable + rejected)
    examples = [f"{reason}, e.g. {messages[reason]}" for reason, _ in unusable.most_common(1)]
    # Where two thirds of the keyframes were contradicted, those that are left may fit by chance.
    if rejected[CONTRADICTED] > 2 * status.keyframes or not session.stopping.enough_views:
        if offered := status.offered - before.offered:
            examples.append(_remedy(status, rejected, unusable.total() + offered, adaptation.min_keyframes))
        raise LearningError(
            f"{status.keyframes} keyframes cannot be learned from (adaptation.min_keyframes is "
            f"{adaptation.min_keyframes}; left out: {counted(unusable + rejected) or 'none'}): "
            f"{'; '.join(examples) or 'there was no view'}"
        )
    if doubt := session.keyframes.doubt:
        log.warning("%s", doubt)
    session.save()  # not before: a capture that cannot be learned from leaves nothing behind
    if session.keyframes.taken > known:
        session.forget_patience()
    for example in examples:
        log.warning("%d of the frames cannot be used: %s", unusable.total(), example)
    while session.state == LEARNING:
        handover = session.advance()
        if handover is not None:
            on_handover(handover)
        on_step(session.status)
    return session.current


def _remedy(status: Status, rejected: Counter[str], views: int, min_keyframes: int) -> str:
    """Why the keyframes of so many views are not enough, and what to do."""
    if rejected[CONTRADICTED] >= max(status.keyframes, 1):
        return f"most keyframes contradict most of those near them in time: {CHECK_POSES}"
    if status.keyframes >= min_keyframes:
        pairs = status.pairs
        return (
            f"none of them teaches another one ({pairs.refused} pairs contradict each other, {pairs.parted} were not "
            "shown to be in one frame): use a capture with more views of each place, or check poses and depth"
        )
    reason = next((reason for reason, count in rejected.items() if 2 * count > views), "")
    remedies = {**REMEDIES, "known_view": HARDLY_MOVES}
    return remedies.get(reason, "use a longer capture, or lower adaptation.min_keyframes")


def patience_of(adaptation: AdaptationSettings) -> int:
    """Number of hand-overs without gain that ends the offline loop: `patience`, or `offline_patience` if that is 0.

    Raises:
        SettingsError: nothing would ever end learning.
    """
    patience = adaptation.patience or adaptation.offline_patience
    if not patience and not adaptation.max_steps and not adaptation.steps_per_keyframe:
        raise SettingsError(
            "learning would never end: set adaptation.steps_per_keyframe, adaptation.max_steps or adaptation.patience"
        )
    return patience
