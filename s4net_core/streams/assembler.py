"""Puts views together from colour, depth if there is any, camera_info and poses: the same for topics and bags.

Pose first, image last: a view is given out with its pose, and its images are decoded on request.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Frame, Intrinsics, LazyView, check_aligned
from s4net_core.streams.clock import TIME_JUMP_NS, ColorClock
from s4net_core.streams.drops import AT_REST, DROP_REASONS, UNMATCHED
from s4net_core.streams.transforms import TransformUnavailable

WAITING_QUEUES = 4
"""Largest number of pairs that wait for pose, camera_info or `poll`, as a multiple of ``stream.sync_queue``."""


@dataclass(frozen=True)
class Picture:
    """One image as it arrived, not decoded.

    Args:
        stamp: acquisition time, nanoseconds.
        frame_id: coordinate frame named in the header.
        decode: gives (H, W, 3) uint8 RGB for colour, (H, W) float32 metres for depth; raises BadFrame.
        number: position in its stream, from 0.
    """

    stamp: int
    frame_id: str
    decode: Callable[[], NDArray[np.uint8]] | Callable[[], NDArray[np.float32]]
    number: int = 0


PoseLookup = Callable[[Picture], NDArray[np.float64]]
"""Colour image -> T_world_camera (4, 4) when it was taken, at once; raises TransformUnavailable or BadFrame."""


@dataclass
class _Info:
    """A calibration, or the error why it cannot be used, and the span of stamps over which it was repeated."""

    first: int
    last: int
    value: Intrinsics | BadFrame

    def distance(self, stamp: int) -> int:
        return max(self.first - stamp, stamp - self.last, 0)


class _Wait(BadFrame):
    """Something is missing that may still come. If it does not, the frame is dropped for this reason."""


class FrameAssembler:
    """Matched colour and depth in, posed views out; everything that does not become a frame is counted by reason.

    At any time ``received == delivered + sum(skipped.values()) + waiting``. `delivered` are the views that `poll` has
    given out. A view that turns out damaged when it is decoded moves from `delivered` to `skipped`.

    A pair waits for its pose and camera_info until colour that is newer by ``stream.pose_wait`` has come; a pose that
    lies before the transform history is not waited for. Views come in time order, so a waiting pair holds back later
    ones. Safe to use from several threads; no call blocks, and only `poll` raises.

    Args:
        stream: settings.
        pose_of: where poses come from.
    """

    def __init__(self, stream: StreamSettings, pose_of: PoseLookup) -> None:
        self.stream = stream
        self.received = 0
        self.delivered = 0
        self._skipped: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._lock = threading.RLock()
        self._pose_of = pose_of
        self._clock = ColorClock()
        self._unmatched: dict[int, None] = {}
        self._pairs: deque[tuple[Picture, Picture | None]] = deque()
        self._missing: _Wait | None = None
        self._infos: deque[_Info] = deque(maxlen=stream.sync_queue)
        self._last_stamp: int | None = None
        self._ended = False

    @property
    def waiting(self) -> int:
        """Colour images that are neither delivered nor dropped yet."""
        with self._lock:
            return len(self._unmatched) + len(self._pairs)

    @property
    def skipped(self) -> dict[str, int]:
        """Colour images that did not become a frame, by reason: those of a node are the keys of `DROP_REASONS`."""
        with self._lock:
            return dict(self._skipped)

    @property
    def details(self) -> dict[str, str]:
        """The newest message for each reason."""
        with self._lock:
            return dict(self._details)

    def see_color(self, stamp: int, left_out: int = 0) -> bool:
        """Announce a colour image before it is matched, so that unmatched ones and jumps of time are seen.

        Args:
            stamp: of the image, nanoseconds.
            left_out: colour images since the one before that nobody looked at, because the camera is at rest.

        Returns:
            Whether time has just gone back (see `ColorClock`): this image and all waiting ones are dropped. Make a new
            synchroniser and a new transform buffer before you add anything else.
        """
        with self._lock:
            self.received += 1 + left_out
            if left_out:
                self._drop(AT_REST, DROP_REASONS[AT_REST], left_out)
            if self._clock.see(stamp):
                self._begin_anew()
                return True
            if stamp in self._unmatched:
                self._drop("out_of_order", f"colour came twice with stamp {stamp} ns")
            self._unmatched[stamp] = None
            while len(self._unmatched) > self.stream.sync_queue:
                self._drop_unmatched()
            return False

    def add_camera_info(self, stamp: int, read: Callable[[], Intrinsics]) -> None:
        """Calibration of the colour camera; if `read` raises BadFrame, frames that need it get its reason."""
        value: Intrinsics | BadFrame
        try:
            value = read()
        except BadFrame as error:
            value = error
        with self._lock:
            last = self._infos[-1] if self._infos else None
            if last is not None and _same(value, last.value) and stamp >= last.last - TIME_JUMP_NS:
                last.first, last.last = min(stamp, last.first), max(stamp, last.last)
            else:
                self._infos.append(_Info(stamp, stamp, value))

    def add_pair(self, color: Picture, depth: Picture | None, *, at_rest: bool = False) -> None:
        """A colour image, announced by `see_color`, and the depth image that belongs to it; None = no depth camera.

        `at_rest` tells that some depth images since the pair before were not looked at: colour before this one does not
        wait for them.
        """
        with self._lock:
            if color.stamp not in self._unmatched:  # counted as unmatched before its partner came
                return
            del self._unmatched[color.stamp]
            for stamp in [stamp for stamp in self._unmatched if at_rest and stamp < color.stamp]:
                del self._unmatched[stamp]
                self._drop(AT_REST, DROP_REASONS[AT_REST])
            self._pairs.append((color, depth))
            if len(self._pairs) > WAITING_QUEUES * self.stream.sync_queue:
                missing, self._missing = self._missing, None
                self._pairs.popleft()
                text = f"{WAITING_QUEUES * self.stream.sync_queue} images wait"
                if missing is not None:
                    self._drop(missing.reason, f"{text}: {missing}")
                else:
                    self._drop("backlog", f"{text} to be processed: lower the camera's rate or resolution")

    def poll(self) -> LazyView | None:
        """The next view that is complete; None = there is none now.

        Raises:
            Exception: an unexpected error, raised once; the frame counts as ``internal_error``, the next poll goes on.
        """
        with self._lock:
            while self._pairs:
                color, depth = self._pairs[0]
                self._missing = None
                try:
                    view = self._view(color, depth)
                except _Wait as missing:
                    if not self._ended and self._clock.age(color.stamp) <= self.stream.pose_wait * 1e9:
                        self._missing = missing
                        return None
                    self._drop(missing.reason, str(missing))
                except BadFrame as error:
                    self._drop(error.reason, str(error))
                except Exception as error:
                    self._pairs.popleft()
                    self._drop("internal_error", repr(error))
                    raise
                else:
                    self._pairs.popleft()
                    self.delivered += 1
                    return view
                self._pairs.popleft()
            return None

    def end(self) -> None:
        """The stream has ended: unmatched colour is dropped, and `poll` no longer waits for missing data."""
        with self._lock:
            self._ended = True
            while self._unmatched:
                self._drop_unmatched()

    def _begin_anew(self) -> None:
        """Time went back: drop what waits and the image that showed the jump. Only the newest calibration stays."""
        for _ in range(self.waiting + 1):
            self._drop("time_jump", DROP_REASONS["time_jump"])
        self._unmatched.clear()
        self._pairs.clear()
        self._infos = deque(list(self._infos)[-1:], self._infos.maxlen)
        self._missing = self._last_stamp = None

    def _drop(self, reason: str, message: str, count: int = 1) -> None:
        self._skipped[reason] += count
        self._details[reason] = message

    def _drop_unmatched(self) -> None:
        stamp = next(iter(self._unmatched))
        del self._unmatched[stamp]
        self._drop(
            UNMATCHED, f"colour at {stamp} ns had no depth within {self.stream.sync_slop} s: see stream.sync_slop"
        )

    def _refused(self, error: Exception) -> None:
        """A view that was given out cannot be used."""
        with self._lock:
            self.delivered -= 1
            if isinstance(error, BadFrame):
                self._drop(error.reason, str(error))
            else:
                self._drop("internal_error", repr(error))

    def _view(self, color: Picture, depth: Picture | None) -> LazyView:
        check_aligned(color.frame_id, depth.frame_id if depth else "")
        if self._last_stamp is not None and color.stamp <= self._last_stamp:
            raise BadFrame("out_of_order", f"colour at {color.stamp} ns comes after one at {self._last_stamp} ns")
        intrinsics = self._intrinsics_at(color.stamp)
        T_world_camera = self._pose_at(color)
        view = LazyView(
            color.stamp,
            T_world_camera,
            partial(_decoded, color, depth, T_world_camera, intrinsics),
            self._refused,
        )
        self._last_stamp = color.stamp
        return view

    def _intrinsics_at(self, stamp: int) -> Intrinsics:
        """Calibration with the nearest stamp."""
        if not self._infos:
            raise _Wait("no_camera_info", "no camera_info has come: check its topic and publisher")
        info = min(self._infos, key=lambda info: info.distance(stamp))
        age = info.distance(stamp) / 1e9
        if 0 < self.stream.camera_info_age < age:
            raise _Wait(
                "camera_info_stale",
                f"nearest camera_info is {age:.3f} s away from the image: publish it with every image, or raise "
                f"stream.camera_info_age ({self.stream.camera_info_age} s) for a camera that publishes it once",
            )
        if isinstance(info.value, BadFrame):
            raise BadFrame(info.value.reason, str(info.value))  # new: the old one would keep its traceback
        return info.value

    def _pose_at(self, color: Picture) -> NDArray[np.float64]:
        try:
            return self._pose_of(color)
        except TransformUnavailable as error:
            kind = _Wait if error.may_heal else BadFrame
            raise kind("no_pose", f"no pose at {color.stamp} ns: {error}") from error


def _decoded(
    color: Picture, depth: Picture | None, T_world_camera: NDArray[np.float64], intrinsics: Intrinsics
) -> Frame:
    frame = Frame(
        stamp=color.stamp,
        color=color.decode(),  # type: ignore[arg-type]
        depth=depth and depth.decode(),  # type: ignore[arg-type]
        T_world_camera=T_world_camera,
        intrinsics=intrinsics,
        frame_id=color.frame_id,
    )
    if depth and (frame.depth is None or not any(row.any() for row in frame.depth)):  # mostly the first row ends it
        raise BadFrame("no_depth", f"depth at {depth.stamp} ns has no pixel with depth: {DROP_REASONS['no_depth']}")
    return frame


def _same(first: Intrinsics | BadFrame, second: Intrinsics | BadFrame) -> bool:
    """Whether two camera_info say the same; errors have no equality of their own."""
    return first == second or (isinstance(first, BadFrame) and str(first) == str(second))
