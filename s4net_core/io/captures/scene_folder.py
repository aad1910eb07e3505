"""Scene folder: the project's own capture format, made of files that any tool can read.

``color/N.jpg`` (or .png), optional ``depth/N.png`` (16 bit, millimetres, aligned to colour, 0 = none), optional
``label/N.png`` (0 = unlabelled, else class id) or ``labelme/N.json`` or ``annotations/N.json`` (drawn with LabelMe),
optional ``depth_gt/N.png`` (as ``depth`` but exact, for evaluation), ``poses.txt`` (index, then 16 numbers:
T_world_camera row by row), ``intrinsics.json`` (width, height, fx, fy, cx, cy; optional depth_scale, distortion and
``per_frame``: list of fx, fy), optional ``timestamps.txt`` (index, then nanoseconds).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.captures.indexed import IndexedCapture, Place
from s4net_core.io.captures.intrinsics_file import INTRINSICS_FILE, IntrinsicsFile
from s4net_core.io.captures.trajectory import NumberedPoses, Poses, check_stamped, numbered_lines, read_poses
from s4net_core.io.images.codec import MILLIMETRES
from s4net_core.io.images.files import (
    COLOR_SUFFIXES,
    numbered_images,
    read_color,
    read_depth,
    write_color,
    write_depth,
    write_label,
)
from s4net_core.io.label_files.lookup import AS_THEY_ARE, LabelReading, find_label, read_label_file

FIRST_STAMP = 1_000_000_000
"""Stamp of index 0 where there is no timestamps.txt. It is not 0, because tf reads 0 as "the latest"."""
STAMP_STEP = 100_000_000
"""Nanoseconds between two images where there is no timestamps.txt."""
POSES_FILE, STAMPS_FILE = "poses.txt", "timestamps.txt"
_STAMPS_LINE = "a line for each image: its number and its stamp in nanoseconds"
FRAME_ID = "camera_color_optical_frame"
TRUE_DEPTH = "depth_gt"
_OF_OTHER_FORMATS = ("pose", "*.sens", "rgb.txt", "scene", "*traj*", "*.json")
"""What folders of ScanNet, TUM and Open3D have beside color/, and a scene folder without its lens has not."""


class SceneFolder(IndexedCapture):
    """Frames of a scene folder, in the order of their numbers.

    Args:
        path: the folder.
        poses: name of the pose file in the folder, e.g. ``poses_noisy.txt``, or poses from elsewhere.
        stride: take every n-th frame.
        labels: how ``label/`` and annotations are read; None = not at all.

    Raises:
        CaptureError: the folder is not a scene folder, one of its text files is missing or cannot be parsed, no image
            has a name and a format that are read, or poses have stamps and images have none.
    """

    def __init__(
        self,
        path: str | Path,
        poses: str | Poses = POSES_FILE,
        stride: int = 1,
        *,
        labels: LabelReading | None = AS_THEY_ARE,
    ) -> None:
        super().__init__(path, stride)
        self._labels = labels
        if not is_scene_folder(self.path):
            raise CaptureError(f"{self.path} is not a scene folder: it must hold color/ and {INTRINSICS_FILE}")
        self._poses = _read_poses(self.path / poses) if isinstance(poses, str) else poses
        self._stamps = _read_stamps(self.path / STAMPS_FILE)
        self._intrinsics = IntrinsicsFile(self.path / INTRINSICS_FILE)
        self._colors = numbered_images(self.path / "color")
        self._check_images()
        if not self._stamps:
            made_up = (FIRST_STAMP + number * STAMP_STEP for number in self._colors)
            check_stamped(self._poses, made_up, self.path, f"write a {STAMPS_FILE} ({_STAMPS_LINE}), or ")
        numbers = self._poses.poses if isinstance(self._poses, NumberedPoses) else sorted(self._colors)
        self._indices = self.strided(list(numbers))
        self._without_pose = len(self._colors.keys() - numbers) if isinstance(numbers, dict) else 0

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def skipped(self) -> dict[str, int]:
        """As of every capture; images without a pose are ``no_pose``, whatever the stride."""
        counts = Counter(super().skipped)
        counts["no_pose"] += self._without_pose
        return dict(+counts)

    @property
    def details(self) -> dict[str, str]:
        """As of every capture, also for images without a pose."""
        unposed = {"no_pose": f"the file of poses has no line for {self._without_pose} images in color/"}
        return (unposed if self._without_pose else {}) | super().details

    def locate(self, position: int) -> Place:
        """Stamp, pose and the function that reads the images; it raises S4NetError for ids outside the label space."""
        index = self._indices[position]
        color_path = self._color_path(index)
        stamp = self._stamps.get(index, FIRST_STAMP + index * STAMP_STEP)
        T_world_camera = self._poses.at(stamp, index)
        return Place(stamp, T_world_camera, partial(self._load, index, color_path, stamp, T_world_camera))

    def _check_images(self) -> None:
        color, depth = self.path / "color", self.path / "depth"
        if not self._colors:
            raise CaptureError(
                f"{color} {_content(color)}: the name of an image must be its number, e.g. 000000.jpg, and "
                f"{', '.join(COLOR_SUFFIXES)} are read"
            )
        if depth.is_dir() and not any(depth.glob("*.png")):
            raise CaptureError(
                f"{depth} {_content(depth)}: depth must be 16-bit PNG in millimetres, named as the colour image, e.g. "
                f"{self._colors[min(self._colors)].stem}.png; remove the folder if there is no depth"
            )

    def _load(self, index: int, color_path: Path, stamp: int, T_world_camera: NDArray[np.float64]) -> Frame:
        color = read_color(color_path)
        return Frame(
            stamp=stamp,
            color=color,
            depth=self._depth(color_path.stem),
            true_depth=self._true_depth(color_path.stem),
            T_world_camera=T_world_camera,
            intrinsics=self._intrinsics.of(index),
            frame_id=FRAME_ID,
            label=self._label(color_path.stem, (color.shape[0], color.shape[1])),
        )

    def _color_path(self, index: int) -> Path:
        path = self._colors.get(index)
        if path is None:
            raise BadFrame("no_color", f"{self.path / 'color'} has no image {index:06d}: a pose without its image")
        return path

    def _depth(self, stem: str) -> NDArray[np.float32] | None:
        if not (self.path / "depth").is_dir():
            return None
        return read_depth(self.path / "depth" / f"{stem}.png", self._intrinsics.units_per_metre)

    def _true_depth(self, stem: str) -> NDArray[np.float32] | None:
        path = self.path / TRUE_DEPTH / f"{stem}.png"
        return read_depth(path, self._intrinsics.units_per_metre) if path.is_file() else None

    def _label(self, stem: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        labels, path = self._labels, find_label(self.path, stem)
        if labels is None or path is None:
            return None
        return labels.given_out(read_label_file(path, labels.space, labels.map_labels, size))


def is_scene_folder(path: Path) -> bool:
    """Whether `path` looks like a scene folder; one that has poses may lack its lens, which the reader then names."""
    if not (path / "color").is_dir():
        return False
    if (path / INTRINSICS_FILE).is_file():
        return True
    return (path / POSES_FILE).is_file() and not any(any(path.glob(name)) for name in _OF_OTHER_FORMATS)


def write_scene_folder(path: str | Path, frames: Iterable[Frame], *, quality: int = 90) -> int:
    """Write frames as a scene folder.

    Args:
        path: a folder that does not exist yet, or is empty.
        frames: all of one size; only their focal lengths may differ. Depth and label are written where there are any.
        quality: of the JPEG colour images, 1..100; 100 writes lossless PNG instead.

    Returns:
        Number of frames written.

    Raises:
        CaptureError: the folder is not empty, there is no frame, an image cannot be written, or sizes, principal points
            or distortions differ.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CaptureError(f"{path} exists already: give another folder or remove it")
    poses: list[str] = []
    stamps: list[str] = []
    lenses: list[Intrinsics] = []
    for index, frame in enumerate(frames):
        _make_folders(path, frame)
        _write_images(path, f"{index:06d}", frame, color_suffix(quality), quality)
        numbers = " ".join(f"{number:.17g}" for number in frame.T_world_camera.ravel())
        poses.append(f"{index} {numbers}")
        stamps.append(f"{index} {frame.stamp}")
        lenses.append(frame.intrinsics)
    if not lenses:
        raise CaptureError(f"{path}: there is no frame to write: look at what the capture skipped")
    (path / POSES_FILE).write_text("\n".join(poses) + "\n")
    (path / STAMPS_FILE).write_text("\n".join(stamps) + "\n")
    (path / INTRINSICS_FILE).write_text(json.dumps(_intrinsics_json(lenses, path), indent=1) + "\n")
    return len(lenses)


def color_suffix(quality: int) -> str:
    """Suffix of the colour images that `write_scene_folder` writes with this quality."""
    return ".png" if quality >= 100 else ".jpg"


def _make_folders(path: Path, frame: Frame) -> None:
    images = {"color": frame.color, "depth": frame.depth, "label": frame.label, TRUE_DEPTH: frame.true_depth}
    for folder, image in images.items():
        if image is not None:
            (path / folder).mkdir(parents=True, exist_ok=True)


def _write_images(path: Path, stem: str, frame: Frame, suffix: str, quality: int) -> None:
    write_color(path / "color" / (stem + suffix), frame.color, quality)
    if frame.depth is not None:
        write_depth(path / "depth" / f"{stem}.png", frame.depth)
    if frame.label is not None:
        write_label(path / "label" / f"{stem}.png", frame.label)
    if frame.true_depth is not None:
        write_depth(path / TRUE_DEPTH / f"{stem}.png", frame.true_depth)


def _intrinsics_json(lenses: list[Intrinsics], path: Path) -> dict[str, Any]:
    first = lenses[0]
    if any(replace(lens, fx=first.fx, fy=first.fy) != first for lens in lenses):
        raise CaptureError(f"{path}: images differ in size, principal point or distortion: write one folder for each")
    content: dict[str, Any] = {
        "width": first.width,
        "height": first.height,
        "fx": first.fx,
        "fy": first.fy,
        "cx": first.cx,
        "cy": first.cy,
        "depth_scale": 1.0 / MILLIMETRES,
    }
    if any(first.distortion):
        content["distortion"] = list(first.distortion)
    if any(lens != first for lens in lenses):
        content["per_frame"] = [{"fx": lens.fx, "fy": lens.fy} for lens in lenses]
    return content


def _content(folder: Path) -> str:
    """What a folder holds in place of images that can be read, for error texts."""
    first = min((path.name for path in folder.glob("[!.]*")), default="")
    return f"has no image that can be read, but '{first}'" if first else "is empty"


def _read_poses(path: Path) -> Poses:
    if not path.is_file():
        raise CaptureError(
            f"{path} is missing: a scene folder needs the pose of every image; `s4net register` can find poses if "
            "there is depth"
        )
    return read_poses(path)


def _read_stamps(path: Path) -> dict[int, int]:
    stamps: dict[int, int] = {}
    for number, words in numbered_lines(path) if path.is_file() else ():
        try:
            index, stamp = words
            stamps[int(index)] = int(stamp)
        except ValueError as error:
            raise CaptureError(f"{path}:{number}: '{' '.join(words)}' is not an index and nanoseconds") from error
    return stamps
