"""RGB-D images of a capture without its poses: the input of a registration."""

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
    """One RGB-D image.

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
    """RGB-D images in time order; they can be iterated over again.

    Poses found for these images can be saved under their stamps with `write_tum_poses`; `open_capture` takes that file
    as `poses` for every format.

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
    """The RGB-D images at `path`, in any format of `open_capture`; poses are ignored and may be missing.

    Args:
        path: folder or file.
        stream: how colour, depth and poses are matched; used where each of them has its own stamps.
        stride: take every n-th image.

    Raises:
        CaptureError: nothing is there, or it is in none of the formats.
    """
    return UnposedCapture(open_capture(path, stream=stream, poses=UNKNOWN_POSES, stride=stride))
