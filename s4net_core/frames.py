"""What every capture is made of: `Intrinsics`, `View` and `Frame`; `FrameSequence` and `Capture` yield them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame

MAX_DISTANCE = 1e8
"""Largest coordinate of a camera, metres; the Earth's centre and UTM coordinates are nearer."""
MAX_ROTATION_ERROR = 1e-3
"""Largest |R Rᵀ - I| entry that still counts as a rotation (text poses carry about 1e-6)."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera. Pixel centres lie at integer coordinates: the image spans [-0.5, width - 0.5].

    Args:
        width, height: image size, pixels.
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels.
        distortion: OpenCV order (k1, k2, p1, p2, k3, ...); empty = none.

    Raises:
        BadFrame: ``intrinsics`` when a size or focal length is not positive and finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if self.width <= 0 or self.height <= 0 or not np.all(np.isfinite(numbers)) or self.fx <= 0 or self.fy <= 0:
            raise BadFrame(
                "intrinsics",
                f"intrinsics are not usable: {self.width}x{self.height}, fx {self.fx}, fy {self.fy}, cx {self.cx}, "
                f"cy {self.cy}, distortion {self.distortion}: check that they come from a calibrated camera",
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Camera matrix K, (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def scaled(self, width: int, height: int) -> "Intrinsics":
        """The same lens for the same view sampled at another size (pixel centres at integer coordinates)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )


class View(Protocol):
    """Something seen from a known pose whose images may not have been decoded yet. A `Frame` is one."""

    @property
    def stamp(self) -> int:
        """Acquisition time, nanoseconds."""
        ...

    @property
    def T_world_camera(self) -> NDArray[np.float64]:
        """(4, 4), maps camera coordinates (x right, y down, z forward, metres) to world."""
        ...

    def decode(self) -> "Frame":
        """The frame with its images.

        Raises:
            BadFrame: an image is damaged or does not fit the others.
        """
        ...

    def refuse(self, error: Exception) -> None:
        """Report that the frame cannot be used, so that its capture or stream counts it as skipped."""
        ...


class LazyView:
    """A `View` whose images are decoded on request.

    Args:
        stamp: acquisition time, nanoseconds.
        T_world_camera: (4, 4) float64.
        load: gives the frame; may raise BadFrame.
        refused: called with the exception, once, when the frame cannot be used after all.

    Raises:
        BadFrame: ``pose`` when `T_world_camera` is no rigid transform.
    """

    def __init__(
        self,
        stamp: int,
        T_world_camera: NDArray[np.float64],
        load: "Callable[[], Frame]",
        refused: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        check_pose(T_world_camera)
        self.stamp = stamp
        self.T_world_camera = T_world_camera
        self._load = load
        self._refused: Callable[[Exception], object] | None = refused

    def decode(self) -> "Frame":
        """The frame with its images, read anew at each call.

        Raises:
            BadFrame: an image is damaged or does not fit the others.
        """
        try:
            return self._load()
        except Exception as error:
            self.refuse(error)
            raise

    def refuse(self, error: Exception) -> None:
        """Report that the frame cannot be used, once."""
        refused, self._refused = self._refused, None
        if refused is not None:
            refused(error)


def decoded(views: Iterable[View]) -> "Iterator[Frame]":
    """Decode views; a view that cannot be decoded is left out, and its capture or stream counts it."""
    for view in views:
        try:
            frame = view.decode()
        except BadFrame:
            continue
        yield frame


@dataclass(frozen=True)
class Frame:
    """One posed RGB-D view. Arrays are never modified after construction.

    Args:
        stamp: acquisition time, nanoseconds.
        color: (H, W, 3) uint8, RGB.
        depth: (H, W) float32, metres along the optical axis, aligned to `color`, 0 = none; None = no depth camera.
        T_world_camera: (4, 4) float64, maps camera coordinates (x right, y down, z forward, metres) to world.
        intrinsics: of `color`.
        frame_id: name of the optical frame, for outputs that must carry it.
        label: (H, W) uint8, 0 = unlabelled, else class id; ground truth for evaluation, never read by a learner.
        true_depth: as `depth`, without the camera's noise and holes; for evaluation, never read by a learner.

    Raises:
        BadFrame: ``color_format``, ``depth_format``, ``depth_size``, ``intrinsics_size``, ``label_format`` or ``pose``.
    """

    stamp: int
    color: NDArray[np.uint8]
    depth: NDArray[np.float32] | None
    T_world_camera: NDArray[np.float64]
    intrinsics: Intrinsics
    frame_id: str = ""
    label: NDArray[np.uint8] | None = None
    true_depth: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.color.ndim != 3 or self.color.shape[2] != 3 or self.color.dtype != np.uint8:
            raise BadFrame(
                "color_format", f"colour is {self.color.shape} {self.color.dtype}: it must be (H, W, 3) uint8 RGB"
            )
        size = self.color.shape[:2]
        for depth in (self.depth, self.true_depth):
            _check_depth(depth, size)
        check_intrinsics_size(self.intrinsics, size)
        if self.label is not None and (self.label.shape != size or self.label.dtype != np.uint8):
            raise BadFrame(
                "label_format",
                f"label is {self.label.shape} {self.label.dtype}: it must be ({size[0]}, {size[1]}) uint8",
            )
        check_pose(self.T_world_camera)

    def decode(self) -> "Frame":
        """As `View`: the frame itself, because it is already decoded."""
        return self

    def refuse(self, error: Exception) -> None:
        """As `View`; does nothing, because no capture counts this frame."""


def _check_depth(depth: NDArray[np.float32] | None, size: tuple[int, ...]) -> None:
    if depth is None:
        return
    if depth.ndim != 2 or depth.dtype != np.float32:
        raise BadFrame("depth_format", f"depth is {depth.shape} {depth.dtype}: it must be (H, W) float32 metres")
    check_depth_size(depth, size)


def check_depth_size(depth: NDArray[np.float32], size: tuple[int, ...]) -> None:
    """Refuse depth, (H, W), of another size than its colour image's (height, width).

    Raises:
        BadFrame: ``depth_size``.
    """
    if depth.shape != size:
        raise BadFrame(
            "depth_size",
            f"depth is {depth.shape[1]}x{depth.shape[0]} but colour is {size[1]}x{size[0]}: register depth to colour "
            "(a RealSense camera does with align_depth.enable:=true)",
        )


def check_intrinsics_size(intrinsics: Intrinsics, size: tuple[int, ...]) -> None:
    """Refuse the calibration of an image of another size than (height, width).

    Raises:
        BadFrame: ``intrinsics_size``.
    """
    if (intrinsics.height, intrinsics.width) != size:
        raise BadFrame(
            "intrinsics_size",
            f"intrinsics are of {intrinsics.width}x{intrinsics.height} but colour is {size[1]}x{size[0]}: "
            "give those of the colour images (live: the camera_info of the colour stream)",
        )


def check_aligned(color_frame: str, depth_frame: str) -> None:
    """Refuse depth that names another tf frame than its colour image; an empty name says nothing.

    Raises:
        BadFrame: ``depth_frame``.
    """
    if color_frame and depth_frame and color_frame.lstrip("/") != depth_frame.lstrip("/"):
        raise BadFrame(
            "depth_frame",
            f"depth is in frame {depth_frame} but colour in {color_frame}: launch the camera with "
            "align_depth.enable:=true and subscribe to the aligned depth",
        )


def check_pose(T: NDArray[np.float64]) -> None:
    """Refuse what is not a rigid transform.

    Raises:
        BadFrame: ``pose`` when `T` is not a finite (4, 4) matrix of a rotation and a translation within `MAX_DISTANCE`.
    """
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise BadFrame("pose", f"pose is {T.tolist()}: it must be a finite 4x4 matrix; is tracking lost?")
    if max(map(abs, T[:3, 3].tolist())) > MAX_DISTANCE:
        raise BadFrame("pose", f"pose is at {T[:3, 3].tolist()} m: that is nowhere on Earth; is tracking lost?")
    # Written out, because robots send hundreds of transforms a second: NumPy takes four times as long.
    (a, b, c), (d, e, f), (g, h, i) = rows = T[:3, :3].tolist()
    errors = (a * a + b * b + c * c - 1, d * d + e * e + f * f - 1, g * g + h * h + i * i - 1)
    angles = (a * d + b * e + c * f, a * g + b * h + c * i, d * g + e * h + f * i)
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if max(map(abs, errors + angles)) > MAX_ROTATION_ERROR or determinant < 0:
        raise BadFrame("pose", f"pose has no proper rotation: {rows}: check axis order and quaternion norm")
    x, y, z, w = T[3].tolist()
    if max(abs(x), abs(y), abs(z), abs(w - 1)) > MAX_ROTATION_ERROR:
        raise BadFrame("pose", f"last row of the pose is {[x, y, z, w]}: it must be 0 0 0 1; is the pose transposed?")


@runtime_checkable
class FrameSequence(Protocol):
    """A capture: frames in time order, as often as asked for."""

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    def __len__(self) -> int:
        """Number of frames that iteration tries; it yields fewer when some cannot be used."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Frames in time order; unusable ones are left out and counted in `skipped`."""
        ...

    @property
    def skipped(self) -> dict[str, int]:
        """Frames left out by the last iteration, by `BadFrame.reason`."""
        ...


@runtime_checkable
class Capture(FrameSequence, Protocol):
    """A `FrameSequence` on disk: its images need not be decoded."""

    def views(self) -> Iterator[View]:
        """Views in time order, not decoded; a view whose decoding fails is counted in `skipped` at that moment."""
        ...
