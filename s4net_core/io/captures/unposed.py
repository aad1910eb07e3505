"""RGB-D images of a capture whose poses are unknown, or shall not be looked at: what a registration starts from."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import FrameSequence, Intrinsics
from s4net_core.geometry.camera import undistort_frame
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.trajectory import UNKNOWN_POSES


class RgbdImage(NamedTuple):
    """One view.

    Args:
        stamp: acquisition time, nanoseconds.
        color: (H, W, 3) uint8, RGB, free of lens distortion.
        depth: (H, W) float32, metres along the optical axis, aligned to `color`, 0 = none.
        intrinsics: of both.
    """

    stamp: int
    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    intrinsics: Intrinsics


class UnposedCapture:
    """RGB-D images in time order, as often as asked for.

    Poses that are found for them are given to `open_capture` as a file of TUM text with these stamps (seconds); that
    fits every format.

    Args:
        capture: opened with `UNKNOWN_POSES`.
    """

    def __init__(self, capture: FrameSequence) -> None:
        self._capture = capture

    @property
    def name(self) -> str:
        """Short name for reports."""
        return self._capture.name

    @property
    def skipped(self) -> dict[str, int]:
        """Images left out by the last iteration, by `BadFrame.reason`."""
        return self._capture.skipped

    def __len__(self) -> int:
        """Number of images that iteration will try; 0 when the recording does not say."""
        return len(self._capture)

    def __iter__(self) -> Iterator[RgbdImage]:
        """Images in time order; unusable ones are left out and counted in `skipped`.

        Raises:
            CaptureError: the capture has no depth.
        """
        for frame in map(undistort_frame, self._capture):
            if frame.depth is None:
                raise CaptureError(f"{self.name} has no depth, which is needed here: record it with an RGB-D camera")
            yield RgbdImage(frame.stamp, frame.color, frame.depth, frame.intrinsics)


def open_rgbd(path: str | Path, *, stream: StreamSettings | None = None, stride: int = 1) -> UnposedCapture:
    """The RGB-D images at `path`: any format of `open_capture`, with or without poses, which are not looked at.

    Args:
        path: folder or file.
        stream: how streams are put together; for recordings whose images have stamps of their own.
        stride: take every n-th image.

    Raises:
        CaptureError: nothing is there, or it is in none of the formats.
    """
    return UnposedCapture(open_capture(path, stream=stream, poses=UNKNOWN_POSES, stride=stride))
