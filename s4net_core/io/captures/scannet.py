"""ScanNet (Dai et al., CVPR 2017): scans as published or exported, and the six scenes on which the paper reports.

A scan is a folder ``scene0000_00`` with ``scene0000_00.sens`` and, for evaluation, ``scene0000_00_2d-label-filt.zip``;
both are read without unpacking. Or it is a folder that ScanNet's exporter has written: ``color/0.jpg``,
``depth/0.png``, ``pose/0.txt``, ``intrinsic/intrinsic_color.txt`` and ``intrinsic_depth.txt``, with labels in
``label-filt/`` (ids of ScanNet) or ``label/`` (NYU40 ids). `SCANNET_TABLE` maps ScanNet's ids to the 37 classes; it is
looked for in the scan's folder and the two folders above.

Colour is larger than depth, and the two cameras do not share a viewpoint. Frames have the size of the depth image:
depth is registered to colour, colour is averaged down, and labels are subsampled. Stamps are computed from the frame's
number at 30 Hz, so that both forms give the same frames.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.files import MAX_BYTES, open_regular, read_file
from s4net_core.frames import Frame, Intrinsics, LazyView
from s4net_core.geometry.camera import resize_color, resize_nearest
from s4net_core.geometry.depth_alignment import register_depth
from s4net_core.io.bags.messages import intrinsics_from_calibration
from s4net_core.io.captures.indexed import STEP_30_HZ, IndexedCapture, Place
from s4net_core.io.captures.scene_folder import FIRST_STAMP, FRAME_ID
from s4net_core.io.captures.sens import SensFile
from s4net_core.io.captures.trajectory import Poses, check_stamped, read_pose
from s4net_core.io.images.files import decode_label, numbered_images, read_color, read_depth, read_label
from s4net_core.io.label_files.lookup import AS_THEY_ARE, LabelReading
from s4net_core.io.label_files.tables import SCANNET_TABLE, scannet_label_map
from s4net_core.labels import LabelMap, nyu40_to_sunrgbd37

PAPER_SCENES = ("scene0000", "scene0006", "scene0009", "scene0011", "scene0022", "scene0030")
"""Apartment, hotel room, bathroom, kitchen, lounge, study; each was scanned twice."""
COLOR_SIZE, DEPTH_SIZE = (1296, 968), (640, 480)
"""Width and height of the published images. An export's matrices refer to this size even if its images are smaller."""
RAW_LABELS, NYU40_LABELS = "label-filt", "label"
_COLOR_LENS = ("intrinsic/intrinsic_color.txt", "intrinsic_color.txt", "intrinsics_color.txt")
_DEPTH_LENS = ("intrinsic/intrinsic_depth.txt", "intrinsic_depth.txt", "intrinsics_depth.txt")

_log = logging.getLogger(__name__)


def paper_scan(scans: Path, scene: str, number: int) -> Path:
    """Folder of one scan of a scene of the paper.

    Args:
        scans: ScanNet's folder ``scans``.
        scene: one of `PAPER_SCENES`.
        number: 1 = "Scan 1", unlabelled during adaptation; 2 = "Scan 2", never seen.
    """
    return scans / f"{scene}_{number - 1:02d}"


def is_scannet(path: Path) -> bool:
    """Whether `path` looks like a scan of ScanNet, its .sens file or an exported scan."""
    if path.is_file():
        return path.suffix == ".sens"
    return any(path.glob("*.sens")) or ((path / "color").is_dir() and _first(path, _COLOR_LENS) is not None)


def open_scannet(
    path: Path, poses: Poses | None = None, stride: int = 1, *, labels: LabelReading | None = AS_THEY_ARE
) -> "ScannetScan":
    """A scan in either form.

    Args:
        path: folder of the scan, or its .sens file.
        poses: replace the scan's own poses.
        stride: take every n-th frame; the others are not read.
        labels: how label files are read; without a map their ids are as ScanNet publishes or exports them. None = not
            at all.

    Raises:
        CaptureError: nothing usable is there.
        LabelTableError: `SCANNET_TABLE` is damaged.
    """
    if path.is_file():
        return SensScan(path, poses, stride, labels=labels)
    files = sorted(path.glob("*.sens"))
    if len(files) > 1:
        raise CaptureError(f"{path} has {len(files)} .sens files ({files[0].name}, ...): give one of them")
    if files:
        return SensScan(files[0], poses, stride, labels=labels)
    return ExportedScan(path, poses, stride, labels=labels)


class ScannetScan(IndexedCapture):
    """Base of both forms: depth registered to colour, labels through the table, stamps by number."""

    T_color_depth: NDArray[np.float64]
    _numbers: Sequence[int]
    """Of the images that are taken."""

    def __init__(
        self,
        path: Path,
        poses: Poses | None = None,
        stride: int = 1,
        *,
        folder: Path,
        labels: LabelReading | None = AS_THEY_ARE,
    ) -> None:
        super().__init__(path, stride)
        self._poses = poses
        self._labels = None if labels is None else _Labels(folder, labels)

    def __len__(self) -> int:
        return len(self._numbers)

    def locate(self, position: int) -> Place:
        """Stamp and pose; raises BadFrame ``pose`` where the tracker was lost."""
        number = self._numbers[position]
        stamp = FIRST_STAMP + number * STEP_30_HZ
        T_world_camera = self._poses.at(stamp, number) if self._poses else self._pose(number)
        return Place(stamp, T_world_camera, partial(self._load, number, stamp, T_world_camera))

    def _load(self, number: int, stamp: int, T_world_camera: NDArray[np.float64]) -> Frame:
        color, color_lens = self._color(number)
        depth, depth_lens = self._depth(number)
        larger = color_lens.width > depth_lens.width and color_lens.height > depth_lens.height
        lens = color_lens.scaled(depth_lens.width, depth_lens.height) if larger else color_lens
        label = None if self._labels is None else self._labels.read(number)
        return Frame(
            stamp=stamp,
            color=resize_color(color, lens.width, lens.height),
            depth=register_depth(depth, depth_lens, lens, self.T_color_depth),
            T_world_camera=T_world_camera,
            intrinsics=lens,
            frame_id=FRAME_ID,
            label=None if label is None else resize_nearest(label, lens.width, lens.height),
        )

    def _numbered(self, numbers: Sequence[int]) -> Sequence[int]:
        """Numbers of the images that are taken, of all there are."""
        check_stamped(self._poses, (FIRST_STAMP + number * STEP_30_HZ for number in numbers), self.path)
        return self.strided(numbers)

    @abstractmethod
    def _pose(self, number: int) -> NDArray[np.float64]: ...

    @abstractmethod
    def _color(self, number: int) -> tuple[NDArray[np.uint8], Intrinsics]: ...

    @abstractmethod
    def _depth(self, number: int) -> tuple[NDArray[np.float32], Intrinsics]: ...


class SensScan(ScannetScan):
    """Frames of a .sens file; a truncated file is read up to the damage.

    Args:
        path: the file; labels are looked for beside it.
        poses, stride, labels: see `open_scannet`.

    Raises:
        CaptureError: see `SensFile`.
    """

    def __init__(
        self, path: Path, poses: Poses | None = None, stride: int = 1, *, labels: LabelReading | None = AS_THEY_ARE
    ) -> None:
        super().__init__(path, poses, stride, folder=path.parent, labels=labels)
        self._file = SensFile(path)
        header = self._file.header
        self.T_color_depth = np.linalg.inv(header.T_base_color) @ header.T_base_depth
        self._numbers = self._numbered(range(len(self._file)))

    @property
    def damage(self) -> str:
        """Why the recording ends early; empty = no damage in the part that was read."""
        return self._file.damage

    def views(self) -> Iterator[LazyView]:
        """Views in time order; a truncated file is read up to the damage."""
        yield from super().views()
        if self.damage:
            _log.warning("%s is damaged: %s", self.path, self.damage)

    def _pose(self, number: int) -> NDArray[np.float64]:
        return self._file.pose(number) @ self._file.header.T_base_color

    def _color(self, number: int) -> tuple[NDArray[np.uint8], Intrinsics]:
        return self._file.color(number), self._file.header.color

    def _depth(self, number: int) -> tuple[NDArray[np.float32], Intrinsics]:
        return self._file.depth(number), self._file.header.depth


class ExportedScan(ScannetScan):
    """Frames of an exported scan. Its images may be smaller than published; its matrices refer to the published size.

    Args:
        path: folder.
        poses, stride, labels: see `open_scannet`.

    Raises:
        CaptureError: a matrix is missing or cannot be read, or there is no image.
    """

    def __init__(
        self, path: Path, poses: Poses | None = None, stride: int = 1, *, labels: LabelReading | None = AS_THEY_ARE
    ) -> None:
        super().__init__(path, poses, stride, folder=path, labels=labels)
        self._colors = numbered_images(path / "color")
        if not self._colors:
            raise CaptureError(f"{path / 'color'} has no image 0.jpg: export the scan again")
        self._K_color, self._K_depth = (_read_matrix(path, names) for names in (_COLOR_LENS, _DEPTH_LENS))
        self._T_base_color, T_base_depth = (
            _read_matrix(path, (name,)) if (path / name).is_file() else np.eye(4)
            for name in ("intrinsic/extrinsic_color.txt", "intrinsic/extrinsic_depth.txt")
        )
        self.T_color_depth = np.linalg.inv(self._T_base_color) @ T_base_depth
        self._numbers = self._numbered(sorted(self._colors))

    def _pose(self, number: int) -> NDArray[np.float64]:
        return read_pose(self.path / "pose" / f"{self._colors[number].stem}.txt") @ self._T_base_color

    def _color(self, number: int) -> tuple[NDArray[np.uint8], Intrinsics]:
        color = read_color(self._colors[number])
        return color, _lens_for(self._K_color, color.shape, COLOR_SIZE)

    def _depth(self, number: int) -> tuple[NDArray[np.float32], Intrinsics]:
        depth = read_depth(self.path / "depth" / f"{self._colors[number].stem}.png")
        return depth, _lens_for(self._K_depth, depth.shape, DEPTH_SIZE)


class _Labels:
    """Ground truth of a scan, from the zip or from a folder beside the images; both may be missing."""

    def __init__(self, folder: Path, labels: LabelReading) -> None:
        self._reading = labels
        self._folder: Path | None = None
        self._archive: ZipFile | None = None
        archives = sorted(folder.glob("*_2d-label-filt.zip"))
        raw = bool(archives) or (folder / RAW_LABELS).is_dir()
        self._map = labels.map_labels or (_table(folder) if raw else nyu40_to_sunrgbd37)
        if self._map is None:
            return
        if archives:
            try:
                open_regular(archives[0]).close()  # not waiting for a pipe
                self._archive = ZipFile(archives[0])
            except (BadZipFile, OSError) as error:
                raise CaptureError(f"{archives[0]} is no whole zip file ({error}): fetch it again") from error
        else:
            self._folder = folder / (RAW_LABELS if raw else NYU40_LABELS)

    def read(self, number: int) -> NDArray[np.uint8] | None:
        """(H, W) uint8, or None where there is no label.

        Raises:
            BadFrame: ``unreadable`` or ``label_format``.
        """
        label = self._read(number)
        return None if label is None else self._reading.given_out(label)

    def _read(self, number: int) -> NDArray[np.uint8] | None:
        if self._archive is not None:
            return self._unpacked(self._archive, f"{RAW_LABELS}/{number}.png")
        path = self._folder / f"{number}.png" if self._folder else None
        return read_label(path, self._reading.space, self._map) if path and path.is_file() else None

    def _unpacked(self, archive: ZipFile, name: str) -> NDArray[np.uint8] | None:
        where = f"{archive.filename}/{name}"
        try:
            size = archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise BadFrame("unreadable", f"{where} unpacks to {size} bytes, at most {MAX_BYTES} are read")
            content = archive.read(name)
        except KeyError:
            return None
        except (BadZipFile, OSError, ZlibError, EOFError, RuntimeError) as error:  # RuntimeError: it is encrypted
            raise BadFrame("unreadable", f"{where} is damaged ({error}): fetch the zip file again") from error
        return decode_label(content, where, self._reading.space, self._map)


def _table(folder: Path) -> LabelMap | None:
    folder = folder.resolve()
    tables = [place / SCANNET_TABLE for place in (folder, *folder.parents[:2])]
    found = next((table for table in tables if table.is_file()), None)
    if found is None:
        _log.warning(
            "labels of %s are not read: %s is neither there nor in the two folders above", folder, SCANNET_TABLE
        )
        return None
    return scannet_label_map(found)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_matrix(folder: Path, names: tuple[str, ...]) -> NDArray[np.float64]:
    path = _first(folder, names)
    if path is None:
        raise CaptureError(f"{folder} has no {names[0]}: export the scan again, with its intrinsics")
    try:
        numbers = read_file(path).split()
        rows = 4 if len(numbers) == 16 else 3
        return np.array(numbers, np.float64).reshape(rows, rows)
    except (OSError, ValueError) as error:
        raise CaptureError(
            f"{path} holds no camera matrix of 4x4 or 3x3 numbers ({error}): export the scan again"
        ) from error


def _lens_for(K: NDArray[np.float64], shape: tuple[int, ...], published: tuple[int, int]) -> Intrinsics:
    """Lens of an image: K is for its own size if the principal point is near its middle, else for `published`."""
    height, width = shape[:2]
    numbers = K[:3, :3].ravel().tolist()
    if abs(K[0, 2] / width - 0.5) < 0.125:
        return intrinsics_from_calibration(width, height, numbers, ())
    return intrinsics_from_calibration(*published, numbers, ()).scaled(width, height)
