"""An RGB-D view prepared for alignment: RGB-D image, point clouds, image features."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.errors import RegistrationError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.camera import resize_color, resize_nearest, undistort_frame
from s4net_core.registration.library import open3d

SURFACE_DENSITY = 5
"""`registration.max_distance` divided by the distance between the points of a surface."""


@dataclass(frozen=True)
class Features:
    """ORB features of an image.

    Args:
        pixels: (N, 2) float32 x, y.
        descriptors: (N, 32) uint8.
        points: (N, 3) float64 in camera coordinates, metres; NaN where there is no depth.
    """

    pixels: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    points: NDArray[np.float64]


@dataclass(frozen=True)
class PreparedView:
    """A view that can be aligned with others.

    Args:
        stamp: nanoseconds.
        rgbd: Open3D's tensor RGBDImage at the working width, metres.
        points: Open3D's PointCloud in camera coordinates, thinned to `registration.max_distance`.
        surface: the same cloud, denser, so that the distance of another view's `points` from it is meaningful.
        lens: of `rgbd`.
        full_lens: of the image in which `features` were found.
        features: at full size.
    """

    stamp: int
    rgbd: Any
    points: Any
    surface: Any
    lens: Intrinsics
    full_lens: Intrinsics
    features: Features


def prepare(frame: Frame, settings: Settings) -> PreparedView:
    """Prepare a view for alignment.

    Args:
        frame: any size and lens; its pose is not looked at.
        settings: group `registration`, and `geometry.min_depth`.

    Raises:
        RegistrationError: it has no depth.
    """
    registration, image = settings.registration, undistort_frame(frame)
    if image.depth is None:
        raise RegistrationError(
            f"the image at {image.stamp} ns has no depth, which is needed here: record it with an RGB-D camera"
        )
    usable = (image.depth >= settings.geometry.min_depth) & (image.depth <= registration.max_depth)
    depth = np.where(usable, image.depth, np.float32(0))
    full = image.intrinsics
    width = min(registration.width, full.width)
    lens = full.scaled(width, max(1, round(full.height * width / full.width)))
    color = np.ascontiguousarray(resize_color(image.color, lens.width, lens.height))
    small = np.ascontiguousarray(resize_nearest(depth, lens.width, lens.height))
    o3d = open3d()
    rgbd = o3d.t.geometry.RGBDImage(o3d.t.geometry.Image(color), o3d.t.geometry.Image(small))
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(_points(small, lens)))
    features = _features(image.color, depth, full, registration.features)
    return PreparedView(
        stamp=image.stamp,
        rgbd=rgbd,
        points=cloud.voxel_down_sample(registration.max_distance),
        surface=cloud.voxel_down_sample(registration.max_distance / SURFACE_DENSITY),
        lens=lens,
        full_lens=full,
        features=features,
    )


def _points(depth: NDArray[np.float32], lens: Intrinsics) -> NDArray[np.float64]:
    """(N, 3) points of the pixels with depth."""
    v, u = np.nonzero(depth)
    return _unproject(u, v, depth[v, u], lens)


def _unproject(u: NDArray[Any], v: NDArray[Any], z: NDArray[Any], lens: Intrinsics) -> NDArray[np.float64]:
    """(N, 3) float64 points, as Open3D takes them; `geometry.camera.unproject` is for whole images in torch."""
    return np.stack([(u - lens.cx) / lens.fx * z, (v - lens.cy) / lens.fy * z, z], axis=-1).astype(np.float64)


def _features(color: NDArray[np.uint8], depth: NDArray[np.float32], lens: Intrinsics, count: int) -> Features:
    detector = cv2.ORB.create(count)
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), None)
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
    if descriptors is None:
        descriptors = np.zeros((0, 32), np.uint8)
    columns, rows = np.rint(pixels.T).astype(int)
    z = depth[rows, columns].astype(np.float64)
    z[z == 0] = np.nan
    return Features(pixels, descriptors, _unproject(pixels[:, 0], pixels[:, 1], z, lens))
