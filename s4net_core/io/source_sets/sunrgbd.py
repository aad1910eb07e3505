"""SUN RGB-D as its authors publish it: one folder per image, labels and split in the toolbox's MATLAB files."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, S4NetError, SourceSetError
from s4net_core.io.images.codec import MILLIMETRES
from s4net_core.io.images.files import read_color, read_raw_depth
from s4net_core.io.matlab import Mat73, load_mat, strings
from s4net_core.io.source_sets.files import check_sizes
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.labels import SUNRGBD37, from_mask

MAX_DEPTH = 8.0
"""Metres; the toolbox clips depth to this (read3dPoints.m)."""
TOOLBOX = "SUNRGBDtoolbox"
_META = ("Metadata/SUNRGBDMeta.mat", "Metadata/SUNRGBDMeta3DBB_v2.mat", "../SUNRGBDMeta3DBB_v2.mat")
_MOSTLY = 0.5


def is_sunrgbd(path: Path) -> bool:
    """Whether a folder holds ``SUNRGBDtoolbox/``, or is ``SUNRGBD/`` and lies beside it."""
    return _toolbox(path) is not None


class SunRgbd:
    """The official release: images and depth in ``SUNRGBD/``, labels in ``SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat``.

    The labels, 64 GB in memory, are never loaded as a whole; each is read when it is asked for. Depth is the toolbox's
    choice, ``depth_bfx``: holes are filled, and nothing is farther than `MAX_DEPTH`.

    Args:
        path: the folder that holds both, or ``SUNRGBD/`` beside the toolbox.
        split: 5285 images to train on, 5050 to test on, or all.
        with_depth: read depth as well.

    Raises:
        SourceSetError: a part of the release is missing or truncated, or h5py is not installed.
    """

    label_space = SUNRGBD37

    def __init__(self, path: str | Path, *, split: str = "train", with_depth: bool = False) -> None:
        self.path = Path(path)
        toolbox = _toolbox(self.path)
        if toolbox is None:
            raise SourceSetError(f"{path} is no SUN RGB-D: unpack SUNRGBD.zip and SUNRGBDtoolbox.zip into one folder")
        self.name = self.path.resolve().name
        self._with_depth = with_depth
        colors, depths = _images(toolbox)
        self._positions = _positions(colors, toolbox / "traintestSUNRGBD/allsplit.mat", split)
        root = self.path / "SUNRGBD" if (self.path / "SUNRGBD").is_dir() else self.path
        self._colors = [root / color for color in colors]
        self._depths = [root / depth for depth in depths]
        self._check_files()
        self._labels_path = toolbox / "Metadata/SUNRGBD2Dseg.mat"
        self._labels_file = Mat73(self._labels_path, SourceSetError)
        self._labels = self._references(len(colors))

    def _references(self, images: int) -> NDArray[Any]:
        """(images,) references to the labels; as many are read as there are images, whatever the file says."""
        try:
            found = self._labels_file["SUNRGBD2Dseg"]["seglabel"]
            if found.size == images:
                return np.ravel(found[()])
        except (OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise SourceSetError(
                f"{self._labels_path} has no SUNRGBD2Dseg.seglabel, or is cut off: fetch SUNRGBDtoolbox.zip again"
            ) from error
        raise SourceSetError(
            f"{self._labels_path} has {found.size} labels but SUNRGBDMeta names {images} images: take both from the "
            "same SUNRGBDtoolbox.zip"
        )

    def _check_files(self) -> None:
        wanted = [self._colors[i] for i in self._positions]
        wanted += [self._depths[i] for i in self._positions] if self._with_depth else []
        missing = [file for file in wanted if not file.is_file()]
        if missing:
            raise SourceSetError(
                f"SUN RGB-D at {self.path} lacks {len(missing)} of {len(wanted)} files, first {missing[0]}: unpack "
                "SUNRGBD.zip whole"
            )

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> LabelledImage:
        """One image.

        Raises:
            SourceSetError: it cannot be read, or colour, label and depth differ in size.
        """
        position = self._positions[index]
        color_path, depth_path = self._colors[position], self._depths[position]
        try:
            color = read_color(color_path)
            depth = read_sunrgbd_depth(depth_path) if self._with_depth else None
        except BadFrame as error:
            raise SourceSetError(str(error)) from error
        label = self.label(index)
        check_sizes(color, {self._labels_path: label, depth_path: depth}, color_path)
        return LabelledImage(color, label, depth)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image alone, (H, W) uint8, 0 = unlabelled.

        Raises:
            SourceSetError: it cannot be read, or an id is outside the label space.
        """
        position = self._positions[index]
        where = f"{self._labels_path.name}, image {position + 1}"
        ids = self._labels_file.image(where, self._labels[position])
        try:
            SUNRGBD37.check(ids, where)
        except S4NetError as error:
            raise SourceSetError(str(error)) from error
        return from_mask(ids.astype(np.uint8))


def read_sunrgbd_depth(path: Path) -> NDArray[np.float32]:
    """Depth of SUN RGB-D -> (H, W) float32 metres, 0 = none, at most `MAX_DEPTH`.

    Its PNGs hold millimetres whose 16 bits are rotated to the left by three.

    Raises:
        BadFrame: ``unreadable``; ``depth_format`` when it is not a 16-bit image with one channel, or not rotated.
    """
    raw = read_raw_depth(path)
    depth = ((raw >> 3) | (raw << 13)).astype(np.float32) / np.float32(MILLIMETRES)
    measured = depth > 0
    if measured.any() and (depth[measured] > MAX_DEPTH).mean() > _MOSTLY:
        raise BadFrame(
            "depth_format",
            f"{path} is not depth of SUN RGB-D, whose bits are rotated: {(depth > MAX_DEPTH).mean():.0%} of it would "
            f"be farther than {MAX_DEPTH:g} m; take it from SUNRGBD.zip (depth_bfx), or remove the folder of depth",
        )
    return np.asarray(depth.clip(max=MAX_DEPTH), np.float32)


def _toolbox(path: Path) -> Path | None:
    candidates = [path / TOOLBOX, path / TOOLBOX / TOOLBOX]
    if path.resolve().name == "SUNRGBD":
        candidates.append(path.resolve().parent / TOOLBOX)
    return next((folder for folder in candidates if (folder / "Metadata").is_dir()), None)


def _images(toolbox: Path) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Paths of every image's colour and filled depth, in the order of the labels, relative to ``SUNRGBD/``."""
    path = next((toolbox / name for name in _META if (toolbox / name).is_file()), toolbox / _META[0])
    (images,) = load_mat(path, ["SUNRGBDMeta"], SourceSetError)
    try:
        paths = [(_relative(image.rgbpath), _relative(image.depthpath)) for image in np.atleast_1d(images)]
    except AttributeError as error:
        raise SourceSetError(f"{path}: {error}: SUNRGBDMeta must have rgbpath and depthpath; fetch it again") from error
    return [color for color, _ in paths], [color.parent.parent / "depth_bfx" / depth.name for color, depth in paths]


def _positions(colors: Sequence[PurePosixPath], path: Path, split: str) -> list[int]:
    """Positions of the images in one part of the official split."""
    if split == "all":
        return list(range(len(colors)))
    (folders,) = load_mat(path, [f"all{split}"], SourceSetError)
    wanted = {_relative(folder) for folder in strings(folders)}
    positions = [index for index, color in enumerate(colors) if color.parent.parent in wanted]
    if len(positions) != len(wanted):
        raise SourceSetError(
            f"{path} has {len(wanted)} images to {split} on, but SUNRGBDMeta has {len(positions)} of them: take both "
            "from the same SUNRGBDtoolbox.zip"
        )
    return positions


def _relative(path: str) -> PurePosixPath:
    """``/n/fs/sun3d/data/SUNRGBD/kv1/...`` or ``/data1/SUNRGBD/kv1/...`` -> ``kv1/...``."""
    return PurePosixPath(str(path).partition("SUNRGBD/")[2])
