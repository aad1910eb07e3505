"""Pinhole camera: points of pixels, and frames brought to another size or freed from lens distortion."""

import logging
from dataclasses import replace
from functools import cache, lru_cache
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.errors import BadFrame
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.shapes import check_shape

log = logging.getLogger(__name__)

Scalar = TypeVar("Scalar", bound=np.generic)

SMALLEST_Z = 1e-6
"""Points nearer to the camera plane than this count as behind the camera, metres."""
MAX_SQUEEZE = 1.5
"""Images of 16:9 are squeezed by 1.33 to 4:3, which networks bear; upright ones of 3:4 by 1.78."""


def unproject(depth: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Points seen by the pixels.

    Args:
        depth: (B, 1, H, W), metres along the optical axis.
        K: (B, 3, 3), pixels, pixel centres at integer coordinates.

    Returns:
        points (B, 3, H, W) in camera coordinates, metres, 0 where invalid; valid (B, 1, H, W) bool, where depth is
        positive and finite.

    Raises:
        ShapeError: a tensor has another shape.
    """
    check_shape("depth", depth, "B", 1, "H", "W")
    check_shape("K", K, "B", 3, 3, B=depth.shape[0])
    dtype = working_dtype(depth)
    depth = depth.to(dtype)
    valid = (depth > 0) & torch.isfinite(depth)
    rays = affine_image(inverse_camera_matrix(K.to(dtype)), depth.shape[2], depth.shape[3])
    return rays * torch.where(valid, depth, 0.0), valid


def rescale_frame(frame: Frame, width: int, height: int) -> Frame:
    """The same view at another size: colour averaged, depth and label taken from the nearest pixel.

    Args:
        frame: any size.
        width, height: pixels.

    Returns:
        The frame with rescaled intrinsics; `frame` itself when it has this size already.
    """
    if (frame.intrinsics.width, frame.intrinsics.height) == (width, height):
        return frame
    return replace(
        frame,
        color=resize_color(frame.color, width, height),
        depth=None if frame.depth is None else resize_nearest(frame.depth, width, height),
        label=None if frame.label is None else resize_nearest(frame.label, width, height),
        true_depth=None if frame.true_depth is None else resize_nearest(frame.true_depth, width, height),
        intrinsics=frame.intrinsics.scaled(width, height),
    )


@cache
def _warn_of_squeeze(size: tuple[int, int], new: tuple[int, int]) -> None:
    """Warn once where images get another shape, in which things look other than in training."""
    squeeze = size[0] * new[1] / (size[1] * new[0])
    if max(squeeze, 1 / squeeze) > MAX_SQUEEZE:
        log.warning(
            "images of %dx%d are squeezed to %dx%d, where things look other than in training: turn them, or set "
            "model.width and model.height to their shape",
            *(*size, *new),
        )


def undistort_frame(frame: Frame) -> Frame:
    """The view through a pinhole with the same camera matrix; `frame` itself when its lens has no distortion.

    Colour is interpolated; depth and label are taken from the nearest pixel. Pixels outside the lens's view are black,
    without depth and label.

    Raises:
        BadFrame: ``intrinsics`` when OpenCV knows no lens model with this number of coefficients.
    """
    if not any(frame.intrinsics.distortion):
        return frame
    map_x, map_y = _undistortion(frame.intrinsics)

    def remapped(image: NDArray[np.generic], interpolation: int) -> NDArray[np.generic]:
        return np.asarray(cv2.remap(image, map_x, map_y, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=0))

    def remapped_depth(depth: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if depth is None else remapped(depth, cv2.INTER_NEAREST).astype(np.float32, copy=False)

    return replace(
        frame,
        color=remapped(frame.color, cv2.INTER_LINEAR).astype(np.uint8, copy=False),
        depth=remapped_depth(frame.depth),
        true_depth=remapped_depth(frame.true_depth),
        label=None if frame.label is None else remapped(frame.label, cv2.INTER_NEAREST).astype(np.uint8, copy=False),
        intrinsics=replace(frame.intrinsics, distortion=()),
    )


def working_frame(frame: Frame, width: int, height: int) -> Frame:
    """The view as networks see it: of one size and without distortion; see `undistort_frame` and `rescale_frame`."""
    _warn_of_squeeze((frame.intrinsics.width, frame.intrinsics.height), (width, height))
    return rescale_frame(undistort_frame(frame), width, height)


def resize_color(color: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Averaged over areas when it shrinks, so that nothing aliases; interpolated when it grows.

    Args:
        color: (H, W, 3) uint8; returned as it is when it has the size already.
        width, height: new size, pixels.
    """
    old_height, old_width = color.shape[:2]
    if (old_width, old_height) == (width, height):
        return color
    shrinks = width <= old_width and height <= old_height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(color, (width, height), interpolation=interpolation), dtype=np.uint8)


def unit_range(color: Tensor) -> Tensor:
    """Bytes 0..255 -> float32 0..1, of the same shape, on the same device."""
    return color.float().div_(255.0)


def resize_nearest(image: NDArray[Scalar], width: int, height: int) -> NDArray[Scalar]:
    """Every new pixel takes the value of the old pixel nearest to its centre.

    Args:
        image: (H, W), any dtype.
        width, height: new size, pixels.
    """
    rows = _nearest_indices(image.shape[0], height)
    columns = _nearest_indices(image.shape[1], width)
    return image[rows[:, None], columns]


def working_dtype(tensor: Tensor) -> torch.dtype:
    """Precision of geometry: float64 for float64 input, else float32, as half is too coarse for pixels."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def inverse_camera_matrix(K: Tensor) -> Tensor:
    """Inverse of upper triangular camera matrices (B, 3, 3) with last row 0, 0, 1, in closed form."""
    fx, skew, cx, fy, cy = K[:, 0, 0], K[:, 0, 1], K[:, 0, 2], K[:, 1, 1], K[:, 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = (1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy), zero, 1 / fy, -cy / fy, zero, zero, one)
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def affine_image(A: Tensor, height: int, width: int) -> Tensor:
    """``A · (u, v, 1)`` of every pixel.

    Args:
        A: (B, 3, 3).
        height, width: pixels.

    Returns:
        (B, 3, height, width).
    """
    u = torch.arange(width, dtype=A.dtype, device=A.device)
    v = torch.arange(height, dtype=A.dtype, device=A.device).unsqueeze(1)
    columns = A[:, :, 0, None, None] * u + A[:, :, 2, None, None]
    rows = A[:, :, 1, None, None] * v
    return columns + rows


@lru_cache(maxsize=64)
def _nearest_indices(old: int, new: int) -> NDArray[np.int64]:
    return np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)


@lru_cache(maxsize=4)
def _undistortion(intrinsics: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the distorted image each pixel of the pinhole image lies; (H, W) each, pixels."""
    size = (intrinsics.width, intrinsics.height)
    K = intrinsics.matrix
    try:
        map_x, map_y = cv2.initUndistortRectifyMap(K, np.array(intrinsics.distortion), np.eye(3), K, size, cv2.CV_32FC1)
    except cv2.error as error:
        raise BadFrame(
            "intrinsics",
            f"distortion {intrinsics.distortion} has {len(intrinsics.distortion)} coefficients: OpenCV's lens models "
            "have 4, 5, 8, 12 or 14; is the distortion model plumb_bob or rational_polynomial?",
        ) from error
    return np.asarray(map_x, dtype=np.float32), np.asarray(map_y, dtype=np.float32)
