"""Labelled points: labels wait for the depth image of their time, which may come before them or after."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import check_aligned
from s4net_ros.conversions import depth_from_image, stamp_ns
from s4net_ros.diagnostics import Counts
from s4net_ros.publishers import SegmentationPublishers
from s4net_ros.worker import Worker

if TYPE_CHECKING:
    from s4net_core.models.segmenter import Segmentation

WAITING = 2
"""Labelled frames that wait for their depth; a GPU labels a frame before the camera has sent it."""

DepthMessage: TypeAlias = Image | CompressedImage


@dataclass(frozen=True, eq=False)
class Labelled:
    """A labelled colour image.

    Args:
        header: of the colour image.
        color: (H, W, 3) uint8 RGB.
        result: label and confidence of the same size.
        info: camera_info of the colour camera.
        depths: depth images that were there when the colour image came; a slow network outlives the newer ones.
    """

    header: Header
    color: NDArray[np.uint8]
    result: "Segmentation"
    info: CameraInfo
    depths: Sequence[DepthMessage] = ()


class PointsThread:
    """Publishes the points of every labelled frame that finds its depth; the others are counted.

    `add_depth` and `add_labels` never wait and may be called from any thread.

    Args:
        outputs: publishes.
        stream: settings.
        counts: gets ``points_skipped.<reason>``.
        warn: called with reason and text when depth or camera_info cannot be used.
    """

    def __init__(
        self,
        outputs: SegmentationPublishers,
        stream: StreamSettings,
        counts: Counts,
        warn: Callable[[str, str], None],
    ) -> None:
        self._outputs = outputs
        self._slop = stream.sync_slop
        self._counts = counts
        self._warn = warn
        self._lock = threading.Lock()
        self._depths: deque[DepthMessage] = deque(maxlen=stream.sync_queue)
        self._waiting: deque[Labelled] = deque()
        self._worker: Worker[bool] = Worker("points", lambda _: self._publish_matches(), self._failed)

    @property
    def depths(self) -> tuple[DepthMessage, ...]:
        """The newest depth images."""
        with self._lock:
            return tuple(self._depths)

    def add_depth(self, message: DepthMessage) -> None:
        """A depth image came."""
        with self._lock:
            self._depths.append(message)
        self._worker.put(True)

    def add_labels(self, labelled: Labelled) -> None:
        """A frame was labelled."""
        with self._lock:
            self._waiting.append(labelled)
            passed_over = len(self._waiting) > WAITING
            if passed_over:
                self._waiting.popleft()
        if passed_over:
            self._counts.add("points_skipped.no_depth")
        self._worker.put(True)

    def clear(self, *, depth: bool = True) -> None:
        """Forget the labels that wait, and with `depth` the depth images as well."""
        with self._lock:
            self._waiting.clear()
            if depth:
                self._depths.clear()

    def stop(self) -> bool:
        """End the thread; returns whether it has ended."""
        return self._worker.stop()

    def _publish_matches(self) -> None:
        for labelled, depth in self._take_matches():
            try:
                check_aligned(labelled.header.frame_id, depth.header.frame_id)
                depth_m = depth_from_image(depth)
                self._outputs.publish_points(labelled.header, labelled.color, labelled.result, labelled.info, depth_m)
            except BadFrame as error:
                self._counts.add(f"points_skipped.{error.reason}")
                self._warn(error.reason, f"no points: {error}")

    def _take_matches(self) -> list[tuple[Labelled, DepthMessage]]:
        matches, waiting = [], []
        with self._lock:
            for labelled in self._waiting:
                depth = nearest((*labelled.depths, *self._depths), stamp_ns(labelled.header), self._slop)
                if depth is None:
                    waiting.append(labelled)
                else:
                    matches.append((labelled, depth))
            self._waiting = deque(waiting)
        return matches

    def _failed(self, _: bool, error: Exception) -> None:
        self._counts.add(f"points_skipped.{type(error).__name__}")
        self._warn(type(error).__name__, f"no points: {type(error).__name__}: {error}")


def nearest(messages: Sequence[DepthMessage], stamp: int, slop: float) -> DepthMessage | None:
    """The message whose stamp is nearest to `stamp` (nanoseconds), if within `slop` seconds."""
    best = min(messages, key=lambda m: abs(stamp_ns(m.header) - stamp), default=None)
    return best if best is not None and abs(stamp_ns(best.header) - stamp) <= slop * 1e9 else None
