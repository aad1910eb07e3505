"""Puts `Frame`s together from colour, depth if there is any, camera_info and poses: the same for topics and bags."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Frame, Intrinsics, check_aligned
from s4net_core.geometry.time_jumps import TIME_JUMP_NS
from s4net_core.geometry.transforms import TransformUnavailable

DROP_REASONS: dict[str, str] = {
    "unmatched": "colour had no depth of the same time: set enable_sync:=true or raise stream.sync_slop; harmless when "
    "depth is slower than colour",
    "backlog": "this machine is too slow for the stream: lower the camera's rate or resolution",
    "time_jump": "time went back (looped bag, restarted simulation): frames that waited were dropped, all goes on",
    "out_of_order": "stamp is not newer than the last frame's: do two publishers share the colour topic?",
    "no_camera_info": "no camera_info came: check the topic and its publisher",
    "camera_info_stale": "camera_info is older than stream.camera_info_age: publish it with every image",
    "intrinsics": "camera_info has zero or NaN entries: calibrate the camera",
    "distortion": "camera_info has a lens model that is not undone here: rectify the images first (image_proc)",
    "intrinsics_size": "camera_info has another size than colour: use the camera_info of the colour stream",
    "depth_frame": "depth is not in the colour camera's frame: launch the camera with align_depth.enable:=true",
    "depth_size": "depth has another size than colour: launch the camera with align_depth.enable:=true",
    "no_depth": "no pixel has depth: is the depth camera covered, too near, or its emitter off?",
    "color_format": "colour is damaged or in an encoding that is not read: use rgb8, bgr8, rgba8, bgra8, mono8, "
    "jpeg or png",
    "depth_format": "depth is damaged or in an encoding that is not read: use 16UC1, 32FC1 or compressedDepth png",
    "no_pose": "no transform from the fixed frame to the camera at the image's time: check stream.fixed_frame, that "
    "tracking runs, and raise stream.pose_wait if it is slow",
    "pose": "pose is not a rigid transform: is tracking lost?",
    "pose_jump": "pose moved farther than stream.max_pose_jump between two frames: use a fixed frame that does not "
    "jump (odom, not map)",
    "internal_error": "a fault of this program: please report it with the log, which holds the traceback",
}
"""Every reason for which a frame is dropped, with its one-line remedy; the keys of `FrameAssembler.skipped`."""

POSE_JUMP_NS = 200_000_000
"""Frames farther apart in time than this may lie anywhere."""

WAITING_QUEUES = 4
"""Matched views that wait for pose and camera_info, in multiples of ``stream.sync_queue``: bounds the memory."""

PoseLookup = Callable[[str, str, int], NDArray[np.float64]]
"""(target frame, source frame, stamp ns) -> T_target_source (4, 4), at once; raises TransformUnavailable."""


@dataclass(frozen=True)
class Picture:
    """One image as it arrived. It is decoded only when its frame is complete.

    Args:
        stamp: acquisition time, nanoseconds.
        frame_id: coordinate frame named in the header.
        decode: gives (H, W, 3) uint8 RGB for colour, (H, W) float32 metres for depth; raises BadFrame.
    """

    stamp: int
    frame_id: str
    decode: Callable[[], NDArray[np.uint8]] | Callable[[], NDArray[np.float32]]


@dataclass
class _Info:
    """A calibration, or why it cannot be used, and the span of stamps over which it was repeated."""

    first: int
    last: int
    value: Intrinsics | BadFrame

    def distance(self, stamp: int) -> int:
        return max(self.first - stamp, stamp - self.last, 0)


class _Wait(BadFrame):
    """Something is missing that may still come; the reason under which the frame is dropped if it does not."""


class FrameAssembler:
    """Matched colour and depth in, posed frames out; everything that does not become a frame is counted by reason.

    At any time ``received == delivered + sum(skipped.values()) + waiting``. A frame waits for its pose and camera_info
    until data that is newer by ``stream.pose_wait`` has been seen; a pose that lies before the transform history is not
    waited for. Frames come in time order, so that one that waits holds back the later ones. Not thread safe.

    Args:
        stream: settings.
        pose_of: where poses come from, e.g. ``TransformBuffer.lookup``.
    """

    def __init__(self, stream: StreamSettings, pose_of: PoseLookup) -> None:
        self.stream = stream
        self.received = 0
        self.delivered = 0
        self.resets = 0
        self.skipped: Counter[str] = Counter()
        self.details: dict[str, str] = {}
        self._pose_of = pose_of
        self._unmatched: dict[int, None] = {}
        self._views: deque[tuple[Picture, Picture | None]] = deque()
        self._ready: list[Frame] = []
        self._infos: deque[_Info] = deque(maxlen=stream.sync_queue)
        self._newest: int | None = None
        self._last_stamp: int | None = None
        self._last_pose: tuple[int, NDArray[np.float64]] | None = None

    @property
    def waiting(self) -> int:
        """Colour images that are neither delivered nor dropped yet."""
        return len(self._unmatched) + len(self._views) + len(self._ready)

    def see_color(self, stamp: int) -> None:
        """Announce a colour image before it is matched, so that unmatched ones and jumps are seen."""
        if self._newest is not None and stamp < self._newest - TIME_JUMP_NS:
            self._restart(stamp)
        self._newest = stamp if self._newest is None else max(stamp, self._newest)
        self.received += 1
        if stamp in self._unmatched:
            self._drop("out_of_order", f"colour came twice with stamp {stamp} ns")
        self._unmatched[stamp] = None
        while len(self._unmatched) > self.stream.sync_queue:
            self._drop_unmatched()

    def add_camera_info(self, stamp: int, read: Callable[[], Intrinsics]) -> None:
        """Calibration of the colour camera; if `read` raises BadFrame, frames that need it are dropped for that."""
        value: Intrinsics | BadFrame
        try:
            value = read()
        except BadFrame as error:
            value = error
        last = self._infos[-1] if self._infos else None
        if last is not None and str(value) == str(last.value) and stamp >= last.last - TIME_JUMP_NS:
            last.first, last.last = min(stamp, last.first), max(stamp, last.last)
        else:
            self._infos.append(_Info(stamp, stamp, value))

    def add_view(self, color: Picture, depth: Picture | None) -> None:
        """A colour image, announced by `see_color`, and the depth image that belongs to it; None = no depth camera."""
        self._settle(color.stamp)
        try:
            check_aligned(color.frame_id, depth.frame_id if depth else "")
        except BadFrame as error:
            self._drop(error.reason, str(error))
            return
        self._views.append((color, depth))
        if len(self._views) > WAITING_QUEUES * self.stream.sync_queue:
            self._views.popleft()
            self._drop("no_pose", f"more than {WAITING_QUEUES * self.stream.sync_queue} frames wait for their pose")

    def poll(self) -> list[Frame]:
        """Frames that are complete now, oldest first."""
        return self._collect(final=False)

    def flush(self) -> list[Frame]:
        """Frames that are complete; the others are dropped, as nothing more will come."""
        frames = self._collect(final=True)
        while self._unmatched:
            self._drop_unmatched()
        return frames

    def drop_color(self, stamp: int, reason: str, message: str) -> None:
        """A colour image, announced by `see_color`, will not come: count it under one of `DROP_REASONS`."""
        self._settle(stamp)
        self._drop(reason, message)

    def _restart(self, stamp: int) -> None:
        """Colour goes back to `stamp`: drop what waits."""
        self.resets += 1
        for _ in range(self.waiting):
            self._drop("time_jump", "time went back while the frame waited for its partner, pose or camera_info")
        self._views.clear()
        self._ready.clear()
        self._unmatched.clear()
        # One that was published only once, or is ahead of colour, still holds.
        kept = [info for info in self._infos if info.last <= stamp + TIME_JUMP_NS]
        self._infos = deque(kept or list(self._infos)[-1:], self._infos.maxlen)
        self._newest = self._last_stamp = self._last_pose = None

    def _settle(self, stamp: int) -> None:
        """The colour image at `stamp` waits for its depth no longer; one that was not announced counts as received."""
        if stamp in self._unmatched:
            del self._unmatched[stamp]
        else:
            self.received += 1

    def _drop(self, reason: str, message: str) -> None:
        self.skipped[reason] += 1
        self.details[reason] = message

    def _drop_unmatched(self) -> None:
        stamp = next(iter(self._unmatched))
        del self._unmatched[stamp]
        self._drop(
            "unmatched", f"colour at {stamp} ns had no depth within {self.stream.sync_slop} s: see stream.sync_slop"
        )

    def _collect(self, final: bool) -> list[Frame]:
        while self._views:
            color, depth = self._views[0]
            try:
                self._ready.append(self._assemble(color, depth))
            except _Wait as missing:
                if not final and not self._waited_enough(color.stamp):
                    break
                self._drop(missing.reason, str(missing))
            except BadFrame as error:
                self._drop(error.reason, str(error))
            except Exception as error:
                self._views.popleft()  # the next poll goes on behind it
                self._drop("internal_error", repr(error))
                raise
            self._views.popleft()
        frames, self._ready = self._ready, []
        self.delivered += len(frames)
        return frames

    def _waited_enough(self, stamp: int) -> bool:
        return self._newest is not None and self._newest - stamp > self.stream.pose_wait * 1e9

    def _assemble(self, color: Picture, depth: Picture | None) -> Frame:
        """Cheap checks first: nothing is decoded for a frame that cannot be used."""
        if self._last_stamp is not None and color.stamp <= self._last_stamp:
            raise BadFrame("out_of_order", f"colour at {color.stamp} ns comes after one at {self._last_stamp} ns")
        intrinsics = self._intrinsics_at(color.stamp)
        T_world_camera = self._pose_at(color)
        self._last_stamp = color.stamp
        self._check_jump(color.stamp, T_world_camera[:3, 3])
        frame = Frame(
            stamp=color.stamp,
            color=color.decode(),  # type: ignore[arg-type]
            depth=depth and depth.decode(),  # type: ignore[arg-type]
            T_world_camera=T_world_camera,
            intrinsics=intrinsics,
            frame_id=color.frame_id,
        )
        if depth and (frame.depth is None or not frame.depth.any()):
            raise BadFrame("no_depth", f"depth at {depth.stamp} ns has no pixel with depth: {DROP_REASONS['no_depth']}")
        return frame

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
            raise BadFrame(info.value.reason, str(info.value))  # a fresh one: a raised one keeps its traceback
        return info.value

    def _pose_at(self, color: Picture) -> NDArray[np.float64]:
        try:
            return self._pose_of(self.stream.fixed_frame, color.frame_id, color.stamp)
        except TransformUnavailable as error:
            kind = BadFrame if error.reason == "too_old" else _Wait
            raise kind("no_pose", f"no pose at {color.stamp} ns: {error}") from error

    def _check_jump(self, stamp: int, position: NDArray[np.float64]) -> None:
        """Compare with the last pose, also if that was refused itself: after one lost frame a lasting jump is over."""
        last, self._last_pose = self._last_pose, (stamp, position)
        if last is None or self.stream.max_pose_jump == 0 or stamp - last[0] >= POSE_JUMP_NS:
            return
        distance = float(np.linalg.norm(position - last[1]))
        if distance > self.stream.max_pose_jump:
            raise BadFrame(
                "pose_jump",
                f"pose moved {distance:.2f} m in {(stamp - last[0]) / 1e9:.3f} s (stream.max_pose_jump is "
                f"{self.stream.max_pose_jump} m): use a fixed frame that does not jump (odom, not map)",
            )
