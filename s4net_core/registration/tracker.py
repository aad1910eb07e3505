"""Follows the camera from view to view, chooses keyframes, and ties views to keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from s4net_core.config import KeyframeSettings, Settings
from s4net_core.errors import RegistrationError
from s4net_core.registration.alignment import Alignment, align, alike
from s4net_core.registration.view import PreparedView

LOOK_FEATURES = 300
"""Number of a view's strongest features that are compared with every keyframe."""


@dataclass(frozen=True)
class Tie:
    """Two keyframes that see the same surface.

    Args:
        moving, fixed: positions in `Tracker.keyframes`.
        alignment: of the moving keyframe to the fixed one.
        loop: the pose graph may drop this tie; False = the camera was followed from one to the other.
    """

    moving: int
    fixed: int
    alignment: Alignment
    loop: bool


@dataclass(frozen=True)
class Follower:
    """A view and the keyframe to which it is tied.

    Args:
        stamp: nanoseconds.
        keyframe: position in `Tracker.keyframes`.
        alignment: of the view (moving) to the keyframe (fixed).
    """

    stamp: int
    keyframe: int
    alignment: Alignment


@dataclass(frozen=True)
class _Place:
    """Where the camera was: a keyframe, and the last view's pose relative to it."""

    keyframe: int
    T_keyframe_last: NDArray[np.float64]


class Tracker:
    """Takes views in time order.

    A view is aligned with the current keyframe, starting from the previous view's pose. If that fails, it is aligned
    from the place before the camera was lost, and then with keyframes that look alike. If all fail, it becomes a
    keyframe without ties, until a later keyframe ties it to the others.

    Args:
        settings: groups `registration` and `keyframes`.
    """

    def __init__(self, settings: Settings) -> None:
        self.keyframes: list[PreparedView] = []
        self.ties: list[Tie] = []
        self.followers: list[Follower] = []
        self._settings = settings
        self._places: list[_Place] = []

    def add(self, view: PreparedView) -> None:
        """Add the next view.

        Raises:
            RegistrationError: the view has another lens than the first keyframe.
        """
        if self.keyframes and self.keyframes[0].lens != view.lens:
            raise RegistrationError(
                f"the image at {view.stamp} ns has another lens than the first ({view.lens} and "
                f"{self.keyframes[0].lens}): register the parts of the capture one by one"
            )
        found = self._locate(view)
        if found is None or _is_new(found[1], self._settings.keyframes):
            self._add_keyframe(view, found)
            return
        self._places = [_Place(found[0], found[1].T_fixed_moving)]
        self.followers.append(Follower(view.stamp, *found))

    def _locate(self, view: PreparedView) -> tuple[int, Alignment] | None:
        """Position of a keyframe with which the view can be aligned, and the alignment; None when there is none."""
        settings = self._settings.registration
        for place in self._places:
            alignment = align(view, self.keyframes[place.keyframe], settings, place.T_keyframe_last)
            if alignment is not None:
                return place.keyframe, alignment
        tried = [place.keyframe for place in self._places]
        for index in self._look_alikes(view, excluded=tried, count=max(settings.loops, 1)):
            alignment = align(view, self.keyframes[index], settings)
            if alignment is not None:
                return index, alignment
        return None

    def _add_keyframe(self, view: PreparedView, found: tuple[int, Alignment] | None) -> None:
        new = len(self.keyframes)
        tied: list[int] = []
        if found is not None:
            followed = found[0] in [place.keyframe for place in self._places]
            self.ties.append(Tie(new, *found, loop=not followed))
            tied = [found[0], *self._tie_to_neighbours(view, new, found[0])]
        for index in self._look_alikes(view, excluded=tied, count=self._settings.registration.loops):
            self._tie(view, new, index, None)
        self.keyframes.append(view)
        before_loss = self._places[-1:] if found is None else []
        self._places = [_Place(new, np.eye(4)), *before_loss]
        identity = Alignment(np.eye(4), fitness=1.0, rmse=0.0, matches=0)
        self.followers.append(Follower(view.stamp, new, identity))

    def _tie_to_neighbours(self, view: PreparedView, new: int, last: int) -> list[int]:
        """Tie `new` to the keyframes before `last`: a direct alignment has less drift than a chain of steps."""
        followed = {tie.moving: tie for tie in self.ties if not tie.loop}
        T_index_new, index = self.ties[-1].alignment.T_fixed_moving, last
        tied: list[int] = []
        while index in followed and len(tied) < self._settings.registration.neighbours:
            T_index_new = followed[index].alignment.T_fixed_moving @ T_index_new
            index = followed[index].fixed
            self._tie(view, new, index, T_index_new)
            tied.append(index)
        return tied

    def _tie(self, view: PreparedView, new: int, index: int, guess: NDArray[np.float64] | None) -> None:
        alignment = align(view, self.keyframes[index], self._settings.registration, guess)
        if alignment is not None:
            self.ties.append(Tie(new, index, alignment, loop=True))

    def _look_alikes(self, view: PreparedView, *, excluded: Sequence[int], count: int) -> list[int]:
        """Keyframes that share the most features with the view, best first."""
        shared = {
            index: alike(view, keyframe, LOOK_FEATURES)
            for index, keyframe in enumerate(self.keyframes)
            if index not in excluded
        }
        return sorted(shared, key=lambda index: shared[index], reverse=True)[:count]


def _is_new(alignment: Alignment, settings: KeyframeSettings) -> bool:
    T = alignment.T_fixed_moving
    rotation = np.degrees(Rotation.from_matrix(T[:3, :3]).magnitude())
    return bool(np.linalg.norm(T[:3, 3]) >= settings.min_translation or rotation >= settings.min_rotation)
