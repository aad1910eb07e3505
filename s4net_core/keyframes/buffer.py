"""The keyframe buffer: takes views that show something new, forgets the most redundant, knows who teaches whom."""

import statistics
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import GeometrySettings, KeyframeSettings, Settings
from s4net_core.errors import KeyframeError, SettingsError
from s4net_core.frames import Frame, View
from s4net_core.geometry.camera import working_frame
from s4net_core.geometry.poses import inverse
from s4net_core.keyframes import store
from s4net_core.keyframes.corrections import Trail, moved_poses
from s4net_core.keyframes.pairing import NEAR_IN_TIME, Pairing
from s4net_core.keyframes.queries import KeyframeQueries
from s4net_core.keyframes.segments import same_pose
from s4net_core.keyframes.view import Decision, Keyframe, keyframe_of, sharpness, usable_depth

BYTES_PER_MEGABYTE = 1_000_000
BYTES_PER_PIXEL = 5
"""uint8 red, green, blue, and uint16 millimetres."""
CHECK_POSES = (
    "check that poses are camera to world in metres and of the time of the image, the unit of depth, and the intrinsics"
)
JUDGED, TOO_MANY = 20, 5
"""How many of the newest keyframes that were judged are remembered, and how many of them must be contradicted, and be
more than a third, before poses and depth are in doubt: one bad frame in ten makes a fifth."""

DepthPrediction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W, 3) uint8 RGB -> (H, W) float32, metres."""


class KeyframeBuffer(KeyframeQueries):
    """Views of one scene, bounded in bytes.

    A view becomes a keyframe when no keyframe is both near it and looks the same way, it is sharp, and it has enough
    depth. Its overlap with the nearest keyframes is measured once and kept as a graph, so that asking for neighbours
    never looks through all keyframes. A view that most of those near it in time contradict is forgotten, so that its
    place can be seen anew. When memory is full, the view that the others cover best is evicted.

    Neighbours are views whose depths do not contradict each other (`PairGate`), of one segment or of segments that
    were shown to fit (`Segments`). A view is known only by keyframes of such a segment.

    All methods may be called from any thread. Same views in the same order give the same buffer. There are two locks:
    `_lock` guards everything that the buffer holds, and nobody decodes an image, predicts depth or writes a file while
    holding it; `_saving` lets one `save` at a time into a folder.

    Args:
        keyframes: what is taken and kept.
        geometry: which pixels of two views count as the same point.
        min_overlap: share of a view that another one must see to count as covering it.
        size: (width, height), pixels, to which views are brought, without distortion; None = they are taken as they
            come, all of one size and undistorted.
        predict_depth: gives the depth of a view from its colour, for a camera without depth; the depth that a frame has
            of its own is not used then. It is called for each view that is new and sharp, on the caller's thread. What
            is predicted of a view later does not change its depth and overlaps here.
    """

    def __init__(
        self,
        keyframes: KeyframeSettings,
        geometry: GeometrySettings,
        *,
        min_overlap: float,
        size: tuple[int, int] | None = None,
        predict_depth: DepthPrediction | None = None,
    ) -> None:
        super().__init__(keyframes)
        self._geometry = geometry
        self._min_overlap = min_overlap
        self._size = size
        self._predict_depth = predict_depth
        self._saving = threading.Lock()
        self._next_id = 0
        self._contradicted = 0
        self._forget()

    def _forget(self) -> None:
        from_sensor = self._predict_depth is None
        self._pairing = Pairing(self._settings, self._geometry, min_overlap=self._min_overlap, from_sensor=from_sensor)
        self._trail = Trail()
        self._frame = ""
        self._evicted = 0
        self._judged: deque[bool] = deque(maxlen=JUDGED)
        self._recent_sharpness: deque[float] = deque(maxlen=self._settings.sharpness_window)

    def offer(self, view: View) -> Decision:
        """Take the view if it shows something new: its pose decides first, and only then is it decoded.

        Args:
            view: its arrays are copied when it is taken.

        Raises:
            BadFrame: it cannot be decoded, or its lens distortion is of an unknown kind.
            KeyframeError: it has another size than the keyframes, or is larger than the whole buffer may be.
        """
        with self._lock:
            pairing = self._pairing
            segment, T_world_camera = self._follow(view)
            if self._pairing.is_known(T_world_camera, segment):
                return Decision(None, "known_view")
        frame = view.decode()
        if self._size is not None:
            frame = working_frame(frame, *self._size)
        value = sharpness(frame.color) if self._settings.min_sharpness else 0.0
        with self._lock:
            if self._is_blurred(value):
                return Decision(None, "blurred")
        depth = frame.depth if self._predict_depth is None else self._predict_depth(frame.color)
        if depth is not None:
            depth = usable_depth(depth, self._geometry.min_depth, self._geometry.max_depth)
        with self._lock:
            if self._pairing is not pairing:  # cleared or loaded meanwhile: segments are counted anew
                segment, _ = self._follow(view)
            return self._take(frame, depth, segment)

    def move(self, path: Mapping[int, NDArray[np.float64]], *, frame: str = "") -> int:
        """Move keyframes to where a corrected trajectory puts them, and measure anew what has moved.

        The correction is known at those stamps of the trajectory at which the stream gave a pose, and interpolated
        between them. Pairs whose relative pose has changed are measured again one by one, while others may ask: until
        all are, who may teach whom is as it was, unless a keyframe comes or goes.

        Args:
            path: corrected T_world_camera, (4, 4), by stamp, nanoseconds; the stamps need not be those of keyframes.
            frame: name of the world of the trajectory if it is another one than the stream's: views to come are brought
                there by the newest correction. Empty = the stream's own.

        Returns:
            Number of keyframes that have moved.
        """
        with self._lock:
            pairing = self._pairing
            knots = self._trail.knots(path)
            for stamp, T_corrected in path.items():
                keyframe = pairing.at_stamp(stamp)
                if keyframe is not None:
                    correction = T_corrected @ inverse(keyframe.T_world_camera)
                    knots.setdefault(keyframe.segment, {})[stamp] = correction
            moved = moved_poses(pairing.keyframes, knots)
            if knots:  # also where no keyframe moves: views to come need the correction
                self._trail.move(knots, follow=bool(frame))
                self._frame = frame
            if not moved:
                return 0
            stale = pairing.move(moved)
        for id in stale:  # one at a time, so that nobody waits long
            with self._lock:
                pairing.measure_again(id, moved)
        with self._lock:
            pairing.judge_all()
        return len(moved)

    @property
    def frame(self) -> str:
        """Name of the world in which the keyframes are since `move`; empty = the stream's own."""
        return self._frame

    @property
    def evicted(self) -> int:
        """Keyframes forgotten to stay within memory."""
        return self._evicted

    @property
    def contradicted(self) -> int:
        """Keyframes forgotten because most of those near them in time contradicted them; `clear` does not reset it."""
        return self._contradicted

    @property
    def doubt(self) -> str:
        """What speaks against poses and depth of the newest views, and what to check; empty = most views fit."""
        with self._lock:
            judged, bad = len(self._judged), sum(self._judged)
        if bad < TOO_MANY or 3 * bad <= judged:
            return ""
        return f"{bad} of the last {judged} keyframes contradict most of those near them in time: {CHECK_POSES}"

    @property
    def taken(self) -> int:
        """Keyframes taken so far, those that were evicted since among them, but not those that were contradicted."""
        return len(self) + self._evicted

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the keyframes, pixels; None while any size may come."""
        with self._lock:
            first = next(iter(self._pairing.keyframes.values()), None)
        return self._size if first is None else _size_of(first)

    def clear(self) -> None:
        """Forget all keyframes; ids continue, so that an old id never names a new view."""
        with self._lock:
            self._forget()

    def save(self, folder: Path | str) -> None:
        """Write what is not yet in `folder`, and delete what was evicted; readable at any moment.

        Raises:
            KeyframeError: the folder cannot be written.
        """
        with self._saving:
            with self._lock:
                saved = store.Saved(
                    self._next_id,
                    self._evicted,
                    # Copies: a correction may change the pairs while they are written.
                    [(k, self._pairing.up_to_date(k.id)) for k in self._pairing.keyframes.values()],
                    predicted=self._predict_depth is not None,
                    segment=self._pairing.segments.current,
                    joined=self._pairing.segments.joined,
                    frame=self._frame,
                    correction=self._trail.newest,
                )
            store.write(Path(folder), saved)

    def load(self, folder: Path | str) -> list[str]:
        """Replace the contents by saved ones.

        Keyframes that do not fit any more (another size, less memory) are left out or evicted. All are left out if
        their depth was predicted and this buffer holds depth of a camera.

        Returns:
            What was left out, and why; one text a keyframe where it is about single ones.

        Raises:
            KeyframeError: there is no index in `folder`, or it is damaged or of an unknown version.
        """
        saved, problems = store.read(Path(folder))
        keyframes = saved.keyframes
        if saved.predicted and self._predict_depth is None:
            keyframes, problems = [], ["left out, their depth was predicted (setting geometry.depth)"]
        if self._size is not None and any(_size_of(keyframe) != self._size for keyframe, _ in keyframes):
            keyframes = [pair for pair in keyframes if _size_of(pair[0]) == self._size]
            problems.append("left out, images are processed at {}x{} now".format(*self._size))
        with self._lock:
            self._forget()
            self._next_id = max(self._next_id, saved.next_id)
            self._evicted, self._frame = saved.evicted, saved.frame
            self._trail = Trail(saved.correction)
            same_frame = self._settings.after_restart == "keep"
            self._pairing.segments.restore(saved.segment, saved.joined, same_frame=same_frame)
            for keyframe, overlaps in keyframes:
                try:
                    self._check_size(keyframe)
                except KeyframeError as error:
                    problems.append(str(error))
                    continue
                self._pairing.insert(keyframe, overlaps)
                self._evict(newest=keyframe.id)
        return problems

    def _check_size(self, view: Frame | Keyframe) -> None:
        width, height = _size_of(view)
        if self.size not in (None, (width, height)):
            raise KeyframeError(
                f"view at stamp {view.stamp} is {width}x{height} but the keyframes are {self.size}: rescale it, give "
                "the buffer a size, or clear it when the working size has changed"
            )
        if width * height * BYTES_PER_PIXEL > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            raise KeyframeError(
                f"one view of {width}x{height} takes more than keyframes.max_megabytes = "
                f"{self._settings.max_megabytes}: raise it"
            )

    def _follow(self, view: View) -> tuple[int, NDArray[np.float64]]:
        """Segment and corrected pose of a view that is offered.

        A view that was offered before, or is a keyframe, is of a recording that is played again, in the same frame.
        """
        segment = self._pairing.segments.follow(view.stamp, view.T_world_camera)
        T_world_camera = self._trail.corrected(view.T_world_camera, segment)
        known = self._trail.played_again(view.stamp)
        self._trail.add(view.stamp, segment, T_world_camera)
        keyframe = self._pairing.at_stamp(view.stamp)
        if known is None and keyframe is not None:
            known = keyframe.segment, keyframe.T_world_camera
        if known is not None and same_pose(known[1], T_world_camera):
            self._pairing.join(known[0], segment)
        return segment, T_world_camera

    def _take(self, frame: Frame, depth: NDArray[np.float32] | None, segment: int) -> Decision:
        """Make the frame a keyframe if it has enough usable depth."""
        # Checked again: others may have been offered or loaded while this one was decoded and its depth was predicted.
        self._check_size(frame)
        frame = replace(frame, T_world_camera=self._trail.corrected(frame.T_world_camera, segment))
        if self._pairing.is_known(frame.T_world_camera, segment):
            return Decision(None, "known_view")
        pixels = 0 if depth is None else np.count_nonzero(depth)
        if depth is None or pixels == 0:
            return Decision(None, "no_depth")
        if pixels / depth.size < self._settings.min_depth_coverage:
            return Decision(None, "little_depth")
        keyframe = keyframe_of(frame, depth, self._next_id, segment)
        self._next_id += 1
        self._pairing.insert(keyframe)
        self._judge(keyframe.id - NEAR_IN_TIME)
        self._evict(newest=keyframe.id)
        return Decision(keyframe.id, "new")

    def _is_blurred(self, value: float) -> bool:
        """Whether a candidate is much less sharp than those before it; call once a candidate, as it is remembered."""
        if self._settings.min_sharpness == 0:
            return False
        self._recent_sharpness.append(value)
        return value < self._settings.min_sharpness * statistics.median(self._recent_sharpness)

    def _judge(self, id: int) -> None:
        """Forget a keyframe if those near it in time, all of which have come, contradict it."""
        if id not in self:
            return
        contradicted = self._pairing.is_contradicted(id)
        self._judged.append(contradicted)
        if contradicted:
            self._pairing.remove(id)
            self._contradicted += 1

    def _evict(self, newest: int) -> None:
        while self.nbytes > self._settings.max_megabytes * BYTES_PER_MEGABYTE:
            self._pairing.remove(self._pairing.graph.most_covered(but=newest))
            self._evicted += 1


def buffer_for(settings: Settings, predict_depth: DepthPrediction | None = None) -> KeyframeBuffer:
    """An empty buffer at the working size, the same for learning, evaluation and maps.

    Args:
        settings: groups `model` (working size), `keyframes`, `geometry`, and `learner.min_overlap`.
        predict_depth: as of `KeyframeBuffer`; not used where `geometry.depth` is the sensor's.

    Raises:
        SettingsError: one keyframe takes more than `keyframes.max_megabytes`.
    """
    (width, height), most = settings.model.size, settings.keyframes.max_megabytes
    needed = width * height * BYTES_PER_PIXEL / BYTES_PER_MEGABYTE
    if needed > most:
        raise SettingsError(
            f"keyframes.max_megabytes is {most} but a single keyframe of {width}x{height} takes {needed:.1f}: raise "
            "it, or lower model.width and model.height"
        )
    return KeyframeBuffer(
        settings.keyframes,
        settings.geometry,
        min_overlap=settings.learner.min_overlap,
        size=settings.model.size,
        predict_depth=None if settings.geometry.from_sensor else predict_depth,
    )


def _size_of(view: Frame | Keyframe) -> tuple[int, int]:
    return view.intrinsics.width, view.intrinsics.height
