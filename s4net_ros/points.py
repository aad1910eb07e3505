"""Labelled points: colour and depth are matched on arrival, labels join them when the network has made them."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import check_aligned
from s4net_core.io.bags.messages import depth_from_image
from s4net_ros.diagnostics import Counts
from s4net_ros.matching import ImageMatcher
from s4net_ros.publishers import SegmentationPublishers
from s4net_ros.worker import Worker, for_log

if TYPE_CHECKING:
    from s4net_core.models.segmenter import Segmentation

WAITING = 2
"""Labelled frames that may wait for their depth: a GPU can label a frame before the camera has sent its depth."""

DepthMessage: TypeAlias = Image | CompressedImage


@dataclass(eq=False)
class Match:
    """A colour image on its way to the network, and its depth image once that has arrived.

    It keeps the depth as long as the image: newer images may fill all queues while a slow network works.

    Args:
        header: of the colour image.
        depth: None = not there yet.
    """

    header: Header
    depth: DepthMessage | None = None


@dataclass(frozen=True, eq=False)
class Labelled:
    """A labelled colour image.

    Args:
        match: header of the colour image, and its depth.
        color: (H, W, 3) uint8 RGB.
        result: label and confidence of the same size.
        info: camera_info of the colour camera.
    """

    match: Match
    color: NDArray[np.uint8]
    result: "Segmentation"
    info: CameraInfo


class PointsThread:
    """Publishes the points of labelled frames that have depth, and counts the other frames.

    `add_color`, `add_depth` and `forget` belong to the executor's thread. Nothing here waits.

    Args:
        outputs: publishes.
        stream: settings.
        counts: gets ``points_skipped.<reason>``.
        published: called after the points of each frame.
        warn: called with reason and text when depth or camera_info cannot be used.
    """

    def __init__(
        self,
        outputs: SegmentationPublishers,
        stream: StreamSettings,
        counts: Counts,
        published: Callable[[], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self._outputs = outputs
        self._counts = counts
        self._published = published
        self._warn = warn
        self._lock = threading.Lock()
        self._matcher = ImageMatcher(stream, self._on_pair)
        self._waiting: deque[Labelled] = deque()
        self._worker: Worker[bool] = Worker("points", lambda _: self._publish_matches(), self._failed)

    def add_color(self, header: Header) -> Match:
        """Take a colour image. Returns its match, which gets the depth image once that arrives."""
        match = Match(header)
        self._matcher.color(match)
        return match

    def add_depth(self, message: DepthMessage) -> None:
        """Take a depth image."""
        self._matcher.depth(message)

    def add_labels(self, labelled: Labelled) -> None:
        """Take a labelled frame."""
        with self._lock:
            self._waiting.append(labelled)
            passed_over = len(self._waiting) > WAITING
            if passed_over:
                self._waiting.popleft()
        if passed_over:
            self._counts.add("points_skipped.no_depth")
        self._worker.put(True)

    def forget(self) -> int:
        """Forget all that waits. Returns how many labelled frames lose their points by this."""
        self._matcher.begin_anew()
        with self._lock:
            forgotten = len(self._waiting)
            self._waiting.clear()
        return forgotten

    def stop(self) -> bool:
        """End the thread; returns whether it has ended."""
        return self._worker.stop()

    def _on_pair(self, match: Match, depth: DepthMessage) -> None:
        match.depth = depth
        self._worker.put(True)

    def _publish_matches(self) -> None:
        for labelled, depth in self._take_matches():
            header = labelled.match.header
            try:
                check_aligned(header.frame_id, depth.header.frame_id)
                depth_m = depth_from_image(depth)
                self._outputs.publish_points(header, labelled.color, labelled.result, labelled.info, depth_m)
                self._published()
            except BadFrame as error:
                self._counts.add(f"points_skipped.{error.reason}")
                self._warn(error.reason, f"no points: {error}")

    def _take_matches(self) -> list[tuple[Labelled, DepthMessage]]:
        matches, waiting = [], deque[Labelled]()
        with self._lock:
            for labelled in self._waiting:
                if (depth := labelled.match.depth) is None:
                    waiting.append(labelled)
                else:
                    matches.append((labelled, depth))
            self._waiting = waiting
        return matches

    def _failed(self, _: bool, error: Exception) -> None:
        self._counts.add(f"points_skipped.{type(error).__name__}")
        self._warn(type(error).__name__, f"no points: {for_log(error)}")
