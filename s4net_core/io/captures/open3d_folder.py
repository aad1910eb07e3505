"""Folders as Redwood publishes them and Open3D's tools write them: images, a trajectory, a lens.

``color/`` (or ``rgb/``, ``image/``) and ``depth/`` (16 bit, millimetres unless the lens file has a ``depth_scale``,
aligned to colour), ``trajectory.log`` or ``.json``, also in Open3D's ``scene/``, and the lens in an ``intrinsics.json``
as in a scene folder, or else in any .json with an ``intrinsic_matrix``. Without such a file, Redwood's camera (a
PrimeSense) is assumed, with a warning. Colour and depth are paired by name, or else by order; a trajectory counts
images from 0.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import CaptureError
from s4net_core.files import read_json
from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.bags.messages import intrinsics_from_calibration
from s4net_core.io.captures.indexed import STEP_30_HZ, IndexedCapture, Place
from s4net_core.io.captures.intrinsics_file import INTRINSICS_FILE, lens_beside
from s4net_core.io.captures.scene_folder import FIRST_STAMP, FRAME_ID, POSES_FILE, STAMPS_FILE
from s4net_core.io.captures.trajectory import Poses, check_stamped, read_poses
from s4net_core.io.captures.tum import UNKNOWN_CAMERA
from s4net_core.io.images.codec import MILLIMETRES
from s4net_core.io.images.files import COLOR_SUFFIXES, read_color, read_depth

COLOR_FOLDERS = ("color", "rgb", "image")
DEPTH_FOLDER = "depth"


class Open3dFolder(IndexedCapture):
    """Frames of a folder as Redwood or Open3D writes it.

    Args:
        path: the folder.
        poses: replace the folder's trajectory, which may then be missing.
        stride: take every n-th frame.

    Raises:
        CaptureError: images cannot be paired, there is no trajectory, a text file cannot be parsed, or `poses` are by
            time.
    """

    def __init__(self, path: str | Path, poses: Poses | None = None, stride: int = 1) -> None:
        super().__init__(path, stride)
        pairs = _pairs(self.path)
        check_stamped(poses, (FIRST_STAMP + number * STEP_30_HZ for number in range(len(pairs))), self.path)
        self._poses = poses or read_poses(_trajectory(self.path))
        self._lens, self._units_per_metre = _camera(self.path)
        self._pairs = self.strided(list(enumerate(pairs)))

    def __len__(self) -> int:
        return len(self._pairs)

    def locate(self, position: int) -> Place:
        """Stamp and pose of the frame at that position."""
        number, (color, depth) = self._pairs[position]
        stamp = FIRST_STAMP + number * STEP_30_HZ
        T_world_camera = self._poses.at(stamp, number)
        return Place(stamp, T_world_camera, partial(self._load, color, depth, stamp, T_world_camera))

    def _load(self, color: Path, depth: Path, stamp: int, T_world_camera: NDArray[np.float64]) -> Frame:
        return Frame(
            stamp=stamp,
            T_world_camera=T_world_camera,
            color=read_color(color),
            depth=read_depth(depth, self._units_per_metre),
            intrinsics=self._lens,
            frame_id=FRAME_ID,
        )


def is_open3d_folder(path: Path) -> bool:
    """Whether `path` holds images of colour and depth as Open3D's tools expect them."""
    return (path / DEPTH_FOLDER).is_dir() and _color_folder(path) is not None


def has_only_a_trajectory(path: Path) -> bool:
    """Whether a folder of Open3D has nothing that only a scene folder has: an ``intrinsics.json`` makes it none."""
    own = any((path / name).exists() for name in (POSES_FILE, STAMPS_FILE, "label"))
    return is_open3d_folder(path) and not own and _trajectory_in(path) is not None


def _color_folder(path: Path) -> Path | None:
    return next((path / name for name in COLOR_FOLDERS if (path / name).is_dir()), None)


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    """Colour and depth images that belong together, in order."""
    folder = _color_folder(path)
    if folder is None or not is_open3d_folder(path):
        raise CaptureError(f"{path} must hold {DEPTH_FOLDER}/ and one of {', '.join(COLOR_FOLDERS)}/")
    colors, depths = (
        {file.stem: file for file in sorted(where.iterdir()) if file.suffix.lower() in COLOR_SUFFIXES}
        for where in (folder, path / DEPTH_FOLDER)
    )
    if colors.keys() == depths.keys():
        return [(colors[stem], depths[stem]) for stem in colors]
    if len(colors) != len(depths):
        raise CaptureError(
            f"{path} has {len(colors)} images of colour and {len(depths)} of depth: give both images of a "
            "pair the same name"
        )
    return list(zip(colors.values(), depths.values(), strict=True))


def _trajectory_in(path: Path) -> Path | None:
    named = [path / folder / f"trajectory.{kind}" for folder in (".", "scene") for kind in ("log", "json")]
    others = sorted(path.glob("*traj*.log"))
    return next((file for file in (*named, *others) if file.is_file()), None)


def _trajectory(path: Path) -> Path:
    found = _trajectory_in(path)
    if found is None:
        raise CaptureError(
            f"{path} has no trajectory.log: name another pose file, or let `s4net register` find the poses"
        )
    return found


def _camera(path: Path) -> tuple[Intrinsics, float]:
    """Lens, and depth units per metre; what a user wrote into intrinsics.json goes before what the others say."""
    written = False
    for file in sorted(path.glob("*.json"), key=lambda file: (file.name != INTRINSICS_FILE, file.name)):
        try:
            content = read_json(file)
            camera = _camera_in(content)
            written |= camera is None and file.name == INTRINSICS_FILE  # as in a scene folder
            if camera is not None:
                units = float(content.get("depth_scale", MILLIMETRES))
                return lens_beside(path, UNKNOWN_CAMERA, units) if written else (open3d_intrinsics(camera), units)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise CaptureError(
                f"{file} cannot be read ({type(error).__name__}: {error}): it must be a PinholeCameraIntrinsic or a "
                "PinholeCameraTrajectory of Open3D"
            ) from error
    return lens_beside(path, UNKNOWN_CAMERA, MILLIMETRES)  # the same as Open3D's PrimeSenseDefault


def _camera_in(content: dict[str, Any]) -> dict[str, Any] | None:
    if "parameters" in content:
        intrinsic: dict[str, Any] = content["parameters"][0]["intrinsic"]
        return intrinsic
    return content if "intrinsic_matrix" in content else None


def open3d_intrinsics(camera: dict[str, Any]) -> Intrinsics:
    """`Intrinsics` of Open3D's ``width``, ``height`` and ``intrinsic_matrix``, which lists K column by column.

    Raises:
        ValueError, KeyError, TypeError: a field is missing or malformed.
        BadFrame: ``intrinsics`` when the values are not usable.
    """
    K = np.array(camera["intrinsic_matrix"], np.float64).reshape(3, 3).T
    return intrinsics_from_calibration(camera["width"], camera["height"], K.ravel().tolist(), ())
