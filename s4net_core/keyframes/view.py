"""One keyframe, and what is measured on a frame before it may become one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.overlap import coarse_depth
from s4net_core.geometry.views import Views

LARGEST_MILLIMETRES = np.iinfo(np.uint16).max
_LITTLE_DEPTH = (
    "most views have little depth between geometry.min_depth and geometry.max_depth: check the unit of depth, or lower "
    "keyframes.min_depth_coverage"
)
REMEDIES = {
    "no_depth": _LITTLE_DEPTH,
    "little_depth": _LITTLE_DEPTH,
    "blurred": "most new views are blurred: move more slowly, or lower keyframes.min_sharpness",
}
"""What to do when most views are left out for a reason of `Decision`."""
BLUR_WINDOW = 9
"""Length of the box, in pixels, with which `sharpness` blurs a frame once more."""


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One kept view, stored small. Its arrays are read-only.

    Args:
        id: number in the buffer, never used twice.
        stamp: acquisition time, nanoseconds.
        color: (H, W, 3) uint8, RGB.
        depth_mm: (H, W) uint16, millimetres, 0 = none.
        intrinsics: of both images.
        T_world_camera: (4, 4) float64.
        frame_id: name of the optical frame.
        segment: stretch of the stream, see `Segments`.
        revision: number of corrections of its pose.
    """

    id: int
    stamp: int
    color: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    intrinsics: Intrinsics
    T_world_camera: NDArray[np.float64]
    frame_id: str
    segment: int = 0
    revision: int = 0

    def __post_init__(self) -> None:
        for array in (self.color, self.depth_mm, self.T_world_camera):
            array.flags.writeable = False

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) float32, metres, 0 = none; computed at each access."""
        return _metres(self.depth_mm)

    @property
    def key(self) -> tuple[int, int]:
        """Names what follows from images and pose together: it changes when the pose is corrected."""
        return self.id, self.revision

    @property
    def nbytes(self) -> int:
        """Memory of colour and depth, bytes."""
        return self.color.nbytes + self.depth_mm.nbytes

    @cached_property
    def digest(self) -> str:
        """Short hash of what no correction changes; names the keyframe across buffers, which `id` does not."""
        digest = hashlib.blake2b(repr((self.stamp, self.intrinsics, self.frame_id)).encode(), digest_size=8)
        for array in (self.color, self.depth_mm):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Decision:
    """What the buffer decided about a view.

    Args:
        id: of the new keyframe; None = not taken.
        reason: ``new``, or why it was not taken: ``known_view``, ``blurred``, ``little_depth`` or ``no_depth``.
    """

    id: int | None
    reason: str


def views_of(keyframes: Sequence[Keyframe], device: torch.device, *, depth: Tensor | None = None) -> Views:
    """Keyframes of one size as the geometry takes them.

    Args:
        keyframes: at least one.
        device: where depth and camera matrices live.
        depth: (B, 1, H, W), metres, e.g. predicted; None = the depth that the keyframes hold.
    """
    if depth is None:
        depth = torch.from_numpy(np.stack([k.depth for k in keyframes])).unsqueeze(1).to(device)
    K = torch.from_numpy(np.stack([k.intrinsics.matrix for k in keyframes])).float().to(device)
    return Views(depth, K, np.stack([k.T_world_camera for k in keyframes]))


def coarse_view(keyframe: Keyframe, width: int) -> Views:
    """One keyframe with coarse depth, `width` pixels wide, on the CPU: enough to measure overlap."""
    small, intrinsics = coarse_depth(keyframe.depth_mm, keyframe.intrinsics, width)
    K = torch.from_numpy(intrinsics.matrix).float()
    return Views(torch.from_numpy(_metres(small))[None, None], K[None], keyframe.T_world_camera[None])


def keyframe_of(frame: Frame, depth: NDArray[np.float32], id: int, segment: int) -> Keyframe:
    """Copy a frame into a keyframe.

    Args:
        frame: any size.
        depth: (H, W) float32, metres; its usable depth (0 = none).
        id: of the new keyframe.
        segment: of the stream.
    """
    millimetres = np.rint(depth * np.float32(1000))
    return Keyframe(
        id=id,
        stamp=frame.stamp,
        color=np.array(frame.color, order="C"),
        depth_mm=np.where(millimetres <= LARGEST_MILLIMETRES, millimetres, 0).astype(np.uint16),
        intrinsics=frame.intrinsics,
        T_world_camera=np.array(frame.T_world_camera, dtype=np.float64),
        frame_id=frame.frame_id,
        segment=segment,
    )


def usable_depth(depth: NDArray[np.float32], min_depth: float, max_depth: float) -> NDArray[np.float32]:
    """Depth with 0 wherever it is none, not finite or out of range; (H, W) float32, metres."""
    usable = (depth > 0) & (depth >= min_depth) & (depth <= max_depth)
    return np.where(usable, depth, np.float32(0))


def sharpness(color: NDArray[np.uint8]) -> float:
    """How much of the image's contrast between neighbouring pixels is lost when it is blurred once more, 0..1.

    The re-blur measure of Crete et al., *The blur effect* (2007): a blurred image has little left to lose. Unlike the
    variance of the Laplacian it hardly depends on what the image shows. The worse of the two directions counts, so
    that motion blur is seen whatever way it runs.

    Args:
        color: (H, W, 3) uint8, RGB.
    """
    gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    return min(_lost_contrast(gray, axis=0), _lost_contrast(gray, axis=1))


def _metres(depth_mm: NDArray[np.uint16]) -> NDArray[np.float32]:
    metres: NDArray[np.float32] = depth_mm.astype(np.float32) * np.float32(0.001)
    return metres


def _lost_contrast(gray: NDArray[np.uint8], axis: int) -> float:
    blurred = cv2.blur(gray, (1, BLUR_WINDOW) if axis == 0 else (BLUR_WINDOW, 1))
    before, after = _neighbour_contrast(gray, axis), _neighbour_contrast(np.asarray(blurred, np.uint8), axis)
    total = float(cv2.sumElems(before)[0])
    lost = float(cv2.sumElems(cv2.subtract(before, after))[0])  # saturates at 0: contrast gained does not count
    return lost / total if total > 0 else 0.0


def _neighbour_contrast(gray: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    first, second = (gray[1:], gray[:-1]) if axis == 0 else (gray[:, 1:], gray[:, :-1])
    return np.asarray(cv2.absdiff(first, second), dtype=np.uint8)
