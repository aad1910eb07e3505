"""Relative pose of two views: image features give a first pose, and dense RGB-D odometry refines it."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.config import RegistrationSettings
from s4net_core.frames import Intrinsics
from s4net_core.registration.library import open3d
from s4net_core.registration.view import PreparedView

ITERATIONS = (20, 15, 10)
"""Iterations of the odometry on each level of its pyramid, coarse to fine."""
REPROJECTION_ERROR = 3.0
"""Largest reprojection error of a feature that agrees with a pose, pixels at full size."""
RANSAC_ITERATIONS = 300
DIVERGED = 2 * REPROJECTION_ERROR
"""Median reprojection error of the features, pixels, above which the odometry's pose is taken as diverged."""


@dataclass(frozen=True)
class Alignment:
    """Relative pose of two views, and how well they fit.

    Args:
        T_fixed_moving: (4, 4) float64, maps camera coordinates of the moving view to those of the fixed one.
        fitness: share of the moving view's points, 0..1, that lie on the fixed view's surface.
        rmse: distance of these points from that surface, metres, root mean square.
        matches: image features that agree with the pose; 0 = the pose was not found by features.
    """

    T_fixed_moving: NDArray[np.float64]
    fitness: float
    rmse: float
    matches: int


def align(
    moving: PreparedView, fixed: PreparedView, settings: RegistrationSettings, guess: NDArray[np.float64] | None = None
) -> Alignment | None:
    """Align two views.

    Args:
        moving, fixed: views of the same camera.
        settings: thresholds.
        guess: (4, 4) T_fixed_moving to start from where features give no alignment; None = use features alone.

    Returns:
        An alignment whose fitness reaches `registration.min_fitness`, or None.
    """
    seen = _pose_by_features(moving, fixed, settings)
    if seen is not None:
        matches = len(seen.points)
        found = measure(moving, fixed, seen.T_fixed_moving, settings, matches)
        refined = _refine(moving, fixed, seen.T_fixed_moving, settings)
        if refined is not None and seen.agrees_with(refined, fixed.full_lens):
            found = measure(moving, fixed, refined, settings, matches)
        if found.fitness >= settings.min_fitness:
            return found
    refined = None if guess is None else _refine(moving, fixed, guess, settings)
    if refined is None:
        return None
    found = measure(moving, fixed, refined, settings)
    return found if found.fitness >= settings.min_fitness else None


def information(moving: PreparedView, fixed: PreparedView, alignment: Alignment, settings: RegistrationSettings) -> Any:
    """(6, 6) float64: how firmly the common points tie the two views, for the pose graph."""
    return open3d().pipelines.registration.get_information_matrix_from_point_clouds(
        moving.points, fixed.surface, settings.max_distance, alignment.T_fixed_moving
    )


def alike(moving: PreparedView, fixed: PreparedView, most: int) -> int:
    """Number of the `most` strongest features of two views that match each other; needs no pose."""
    return len(_matches(moving.features.descriptors[:most], fixed.features.descriptors[:most]))


def _matches(moving: NDArray[np.uint8], fixed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, 2) indices of features that are each other's nearest."""
    if not len(moving) or not len(fixed):
        return np.zeros((0, 2), np.int64)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(moving, fixed)
    return np.array([(pair.queryIdx, pair.trainIdx) for pair in pairs], np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class _Sighting:
    """A pose found by features, and the features that agree with it.

    Args:
        T_fixed_moving: (4, 4) float64.
        points: (N, 3) float64 in the moving view's camera coordinates, metres.
        pixels: (N, 2) float64 in the fixed view, at full size.
    """

    T_fixed_moving: NDArray[np.float64]
    points: NDArray[np.float64]
    pixels: NDArray[np.float64]

    def agrees_with(self, T_fixed_moving: NDArray[np.float64], lens: Intrinsics) -> bool:
        """Whether most of the features still lie where another pose expects them."""
        T = T_fixed_moving
        expected, _ = cv2.projectPoints(self.points, cv2.Rodrigues(T[:3, :3])[0], T[:3, 3], lens.matrix, None)
        return bool(np.median(np.linalg.norm(expected[:, 0] - self.pixels, axis=1)) <= DIVERGED)


def _pose_by_features(moving: PreparedView, fixed: PreparedView, settings: RegistrationSettings) -> _Sighting | None:
    """Pose from the moving view's points and the fixed view's pixels."""
    pairs = _matches(moving.features.descriptors, fixed.features.descriptors)
    points, pixels = moving.features.points[pairs[:, 0]], fixed.features.pixels[pairs[:, 1]].astype(np.float64)
    known = np.isfinite(points).all(axis=1)
    points, pixels = points[known], pixels[known]
    if len(points) < settings.min_matches:
        return None
    done, rotation, translation, agreeing = cv2.solvePnPRansac(
        points,
        pixels,
        fixed.full_lens.matrix,
        None,
        iterationsCount=RANSAC_ITERATIONS,
        reprojectionError=REPROJECTION_ERROR,
        confidence=0.999,
    )
    if not done or agreeing is None or len(agreeing) < settings.min_matches:
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
    return _Sighting(T, points[agreeing[:, 0]], pixels[agreeing[:, 0]])


def _refine(
    moving: PreparedView, fixed: PreparedView, T_fixed_moving: NDArray[np.float64], settings: RegistrationSettings
) -> NDArray[np.float64] | None:
    """T_fixed_moving refined with colour and depth of all pixels; None when they do not determine a pose."""
    o3d = open3d()
    odometry = o3d.t.pipelines.odometry
    try:
        result = odometry.rgbd_odometry_multi_scale(
            moving.rgbd,
            fixed.rgbd,
            o3d.core.Tensor(moving.lens.matrix),
            o3d.core.Tensor(T_fixed_moving),
            1.0,
            settings.max_depth,
            [odometry.OdometryConvergenceCriteria(count) for count in ITERATIONS],
            odometry.Method.Hybrid,
        )
    except RuntimeError:  # Open3D raises it for a singular system: the views share too little
        return None
    T = np.asarray(result.transformation.numpy(), np.float64)
    return T if np.isfinite(T).all() else None


def measure(
    moving: PreparedView,
    fixed: PreparedView,
    T_fixed_moving: NDArray[np.float64],
    settings: RegistrationSettings,
    matches: int = 0,
) -> Alignment:
    """Measure how well two views fit with a given relative pose."""
    found = open3d().pipelines.registration.evaluate_registration(
        moving.points, fixed.surface, settings.max_distance, T_fixed_moving
    )
    return Alignment(T_fixed_moving, float(found.fitness), float(found.inlier_rmse), matches)
