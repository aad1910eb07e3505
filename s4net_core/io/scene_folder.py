"""Scene folder: the project's own capture format, one file an image, readable with any tool.

``color/N.jpg`` (or .png), optional ``depth/N.png`` (16 bit, millimetres, aligned to colour, 0 = none), optional
``label/N.png`` (0 = unlabelled, else class id), optional ``depth_gt/N.png`` (as ``depth`` but exact, for evaluation),
``poses.txt`` (index, then 16 numbers: T_world_camera row by row), ``intrinsics.json`` (width, height, fx, fy, cx, cy;
optional depth_scale, distortion and ``per_frame``: list of fx, fy), optional ``timestamps.txt`` (index, nanoseconds).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.image_codec import MILLIMETRES
from s4net_core.io.image_files import (
    COLOR_SUFFIXES,
    read_color,
    read_depth,
    read_label,
    write_color,
    write_depth,
    write_label,
)
from s4net_core.io.indexed import IndexedCapture
from s4net_core.labels import SUNRGBD37, LabelMap

FIRST_STAMP = 1_000_000_000
"""Stamp of index 0 where there is no timestamps.txt; not 0, which tf takes for "the latest"."""
STAMP_STEP = 100_000_000
"""Nanoseconds between two images where there is no timestamps.txt."""
FRAME_ID = "camera_color_optical_frame"
TRUE_DEPTH = "depth_gt"


class SceneFolder(IndexedCapture):
    """Frames of a scene folder, in the order of `poses_file`.

    Args:
        path: the folder.
        poses_file: name of the file of poses, e.g. ``poses_noisy.txt``.
        stride: take every n-th frame.
        map_labels: from the ids in ``label/`` to SUN RGB-D 37, one of `LABEL_MAPS`; None = they are those.

    Raises:
        CaptureError: the folder is not a scene folder, or its texts cannot be parsed.
    """

    def __init__(
        self,
        path: str | Path,
        poses_file: str = "poses.txt",
        stride: int = 1,
        *,
        map_labels: LabelMap | None = None,
    ) -> None:
        super().__init__(path)
        self._map_labels = map_labels
        if not is_scene_folder(self.path):
            raise CaptureError(f"{self.path} is not a scene folder: it must hold color/ and intrinsics.json")
        if stride < 1:
            raise CaptureError(f"stride is {stride}: it must be 1 or more")
        self._poses = _read_poses(self.path / poses_file)
        self._stamps = _read_stamps(self.path / "timestamps.txt")
        self._intrinsics = _IntrinsicsFile(self.path / "intrinsics.json")
        self._colors = _numbered_images(self.path / "color")
        self._indices = list(self._poses)[::stride]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Frame:
        """The frame at that position.

        Raises:
            BadFrame: it cannot be used.
            S4NetError: its label has class ids outside the label space.
        """
        index = self._indices[position]
        color_path = self._color_path(index)
        return Frame(
            stamp=self._stamps.get(index, FIRST_STAMP + index * STAMP_STEP),
            color=read_color(color_path),
            depth=self._depth(color_path.stem),
            true_depth=self._true_depth(color_path.stem),
            T_world_camera=self._poses[index],
            intrinsics=self._intrinsics.of(index),
            frame_id=FRAME_ID,
            label=self._label(color_path.stem),
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

    def _label(self, stem: str) -> NDArray[np.uint8] | None:
        path = self.path / "label" / f"{stem}.png"
        if not path.is_file():
            return None
        return read_label(path, SUNRGBD37, self._map_labels)


def is_scene_folder(path: Path) -> bool:
    """Whether `path` looks like a scene folder."""
    return (path / "color").is_dir() and (path / "intrinsics.json").is_file()


def write_scene_folder(path: str | Path, frames: Iterable[Frame], *, quality: int = 90) -> int:
    """Write frames as a scene folder.

    Args:
        path: a folder that does not exist yet, or is empty.
        frames: all of one size; only their focal lengths may differ. Depth and label are written where there are any.
        quality: of the JPEG colour images, 1..100; 100 writes PNG, which loses nothing.

    Returns:
        Number of frames written.

    Raises:
        CaptureError: the folder is not empty, there is no frame, or sizes or principal points differ.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CaptureError(f"{path} exists already: give another folder or remove it")
    poses: list[str] = []
    stamps: list[str] = []
    lenses: list[Intrinsics] = []
    for index, frame in enumerate(frames):
        if not lenses:
            _make_folders(path, frame)
        _write_images(path, f"{index:06d}", frame, ".png" if quality >= 100 else ".jpg", quality)
        numbers = " ".join(f"{number:.17g}" for number in frame.T_world_camera.ravel())
        poses.append(f"{index} {numbers}")
        stamps.append(f"{index} {frame.stamp}")
        lenses.append(frame.intrinsics)
    if not lenses:
        raise CaptureError(f"{path}: there is no frame to write: look at what the capture skipped")
    (path / "poses.txt").write_text("\n".join(poses) + "\n")
    (path / "timestamps.txt").write_text("\n".join(stamps) + "\n")
    (path / "intrinsics.json").write_text(json.dumps(_intrinsics_json(lenses, path), indent=1) + "\n")
    return len(lenses)


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


class _IntrinsicsFile:
    """``intrinsics.json``, which may name another focal length for every image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_text())
            self._per_frame = [(float(lens["fx"]), float(lens["fy"])) for lens in content.get("per_frame", ())]
            fx, fy = self._per_frame[0] if self._per_frame else (content["fx"], content["fy"])
            self._shared = Intrinsics(
                width=int(content["width"]),
                height=int(content["height"]),
                fx=float(fx),
                fy=float(fy),
                cx=float(content["cx"]),
                cy=float(content["cy"]),
                distortion=tuple(float(k) for k in content.get("distortion", ())),
            )
            self.units_per_metre = 1.0 / float(content.get("depth_scale", 1.0 / MILLIMETRES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise CaptureError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it must be JSON with width, height, fx, fy, "
                "cx, cy"
            ) from error

    def of(self, index: int) -> Intrinsics:
        if not self._per_frame:
            return self._shared
        if index >= len(self._per_frame):
            raise BadFrame("intrinsics", f"{self.path} has {len(self._per_frame)} lenses, none for image {index}")
        fx, fy = self._per_frame[index]
        return replace(self._shared, fx=fx, fy=fy)


def _numbered_images(folder: Path) -> dict[int, Path]:
    """Images by the number that their name is, however many digits it has."""
    return {int(p.stem): p for p in folder.iterdir() if p.suffix.lower() in COLOR_SUFFIXES and p.stem.isdecimal()}


def _read_poses(path: Path) -> dict[int, NDArray[np.float64]]:
    poses: dict[int, NDArray[np.float64]] = {}
    for number, words in _lines(path, required=True):
        try:
            poses[int(words[0])] = np.array(words[1:], np.float64).reshape(4, 4)
        except ValueError as error:
            raise CaptureError(f"{path}:{number}: a pose is an index and 16 numbers, this has {len(words)}") from error
    if not poses:
        raise CaptureError(f"{path} holds no pose: was the capture tracked?")
    return dict(sorted(poses.items()))


def _read_stamps(path: Path) -> dict[int, int]:
    stamps: dict[int, int] = {}
    for number, words in _lines(path, required=False):
        try:
            index, stamp = words
            stamps[int(index)] = int(stamp)
        except ValueError as error:
            raise CaptureError(f"{path}:{number}: '{' '.join(words)}' is not an index and nanoseconds") from error
    return stamps


def _lines(path: Path, *, required: bool) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that is neither empty nor a comment."""
    if not path.is_file():
        if required:
            raise CaptureError(f"{path} is missing: a scene folder needs the pose of every image")
        return
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()
