"""Pose files: TUM text, Redwood's .log, Open3D's .json, or a scene folder's poses.txt.

All poses are returned as T_world_camera.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.files import parse_json, read_file, read_text, write_result
from s4net_core.frames import check_pose
from s4net_core.geometry.poses import interpolate, pose_matrix, quaternion_of

EXACT_NS = 1_000_000
"""A pose within this time of an image counts as the image's own, because text files round stamps."""
GAP_NS = 150_000_000
"""Poses are not interpolated across a longer gap than this: the tracker was lost."""
TUM_WORDS, NUMBERED_WORDS = 8, 17
"""Words per line: stamp, translation, quaternion; or number and 4x4 matrix."""
_LOG_LINES = 5
_STAMP_DIGITS = 19
"""Of nanoseconds: they fit into 64 bits."""


class Poses(Protocol):
    """Where the camera was when an image was taken."""

    def at(self, stamp: int, number: int) -> NDArray[np.float64]:
        """T_world_camera, (4, 4).

        Args:
            stamp: of the image, nanoseconds.
            number: of the image: the number in its file's name where the format has one, else its position in the
                capture, from 0.

        Raises:
            BadFrame: ``no_pose`` when the image has none.
        """
        ...


class StampedPoses:
    """Poses by time, interpolated between neighbours unless the gap is longer than `GAP_NS`.

    Args:
        stamps: nanoseconds, any order.
        poses: T_world_camera of each.
        name: for error texts.
    """

    def __init__(self, stamps: Sequence[int], poses: Sequence[NDArray[np.float64]], name: str) -> None:
        ordered = sorted(zip(stamps, poses, strict=True), key=lambda pair: pair[0])
        self.stamps = [stamp for stamp, _ in ordered]
        self._poses = [pose for _, pose in ordered]
        self.name = name

    def at(self, stamp: int, number: int) -> NDArray[np.float64]:
        """T_world_camera at `stamp`; `number` is not used.

        Raises:
            BadFrame: ``no_pose`` when no pose is within `EXACT_NS` and the gap around `stamp` is longer than `GAP_NS`.
        """
        after = bisect_left(self.stamps, stamp)
        near = [i for i in (after - 1, after) if 0 <= i < len(self.stamps)]
        best = min(near, key=lambda i: abs(self.stamps[i] - stamp))
        if abs(self.stamps[best] - stamp) <= EXACT_NS:
            return self._poses[best]
        if len(near) < 2 or self.stamps[after] - self.stamps[after - 1] > GAP_NS:
            raise BadFrame(
                "no_pose",
                f"{self.name} has no pose around {stamp} ns (it spans {self.stamps[0]} to {self.stamps[-1]} ns): do "
                "its stamps count from the same moment as the capture's?",
            )
        first, second = self.stamps[after - 1], self.stamps[after]
        return interpolate(self._poses[after - 1], self._poses[after], (stamp - first) / (second - first))


class NumberedPoses:
    """Poses by the number of the image.

    Args:
        poses: T_world_camera by number.
        name: for error texts.
    """

    def __init__(self, poses: dict[int, NDArray[np.float64]], name: str) -> None:
        self.poses = dict(sorted(poses.items()))
        self._name = name

    def at(self, stamp: int, number: int) -> NDArray[np.float64]:
        """T_world_camera of image `number`; `stamp` is not used.

        Raises:
            BadFrame: ``no_pose``.
        """
        if number not in self.poses:
            raise BadFrame("no_pose", f"{self._name} has no pose of image {number}")
        return self.poses[number]


class _Unknown:
    """Places every image at the origin, for readers that only need the images."""

    def at(self, stamp: int, number: int) -> NDArray[np.float64]:
        """Identity."""
        return np.eye(4)


UNKNOWN_POSES: Poses = _Unknown()
"""Given as `poses` to read a capture without its poses."""


def read_poses(path: Path) -> StampedPoses | NumberedPoses:
    """Poses from a file of any supported format.

    Args:
        path: ``.log`` (Redwood, Open3D), ``.json`` (Open3D's PinholeCameraTrajectory), or text with either 8 words a
            line (TUM: seconds, tx ty tz, qx qy qz qw) or 17 (number, T_world_camera row by row).

    Raises:
        CaptureError: the file is missing or in none of these formats.
    """
    if path.suffix == ".log":
        return _read_log(path)
    if path.suffix == ".json":
        return _read_open3d(path)
    lines = list(numbered_lines(path))
    if not lines:
        raise CaptureError(f"{path} holds no pose: was the capture tracked?")
    if len(lines[0][1]) == TUM_WORDS:
        return _read_tum(path, lines)
    return _read_numbered(path, lines)


def check_stamped(poses: Poses | None, made_up: Iterable[int], folder: Path, remedy: str = "") -> None:
    """Refuse poses by time for images whose stamps a reader made up, which would get the poses of others.

    Args:
        poses: only `StampedPoses` can be refused, and not those that were found for these images (`write_tum_poses`).
        made_up: stamps of all images, nanoseconds.
        folder: of the capture, for the error text.
        remedy: a further one for the error text.

    Raises:
        CaptureError: a pose has a stamp that no image has.
    """
    if isinstance(poses, StampedPoses) and not set(made_up).issuperset(poses.stamps):
        raise CaptureError(
            f"{poses.name} has poses by time, and {folder} does not say when its images were taken: {remedy}begin "
            "every pose with the number of its image, followed by the 16 numbers of its matrix; if `s4net register` "
            "found these, images have gone since: register again"
        )


def write_tum_poses(path: Path, poses: Mapping[int, NDArray[np.float64]]) -> None:
    """Write poses as TUM text, which `read_poses` reads back and which fits captures of every format.

    Args:
        path: text file.
        poses: T_world_camera by stamp, nanoseconds.

    Raises:
        CaptureError: it cannot be written.
    """
    lines = ["# seconds tx ty tz qx qy qz qw"]
    for stamp, T in sorted(poses.items()):
        numbers = " ".join(f"{number:.9g}" for number in (*T[:3, 3], *quaternion_of(T)))
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {numbers}")
    write_result(path, "\n".join(lines) + "\n", CaptureError)


def read_pose(path: Path) -> NDArray[np.float64]:
    """T_world_camera of one image, from a text of 4 rows of 4 numbers.

    Raises:
        BadFrame: ``pose`` when the file is missing or holds no such matrix, or the tracker was lost.
    """
    try:
        T_world_camera = np.array(read_file(path).split(), np.float64).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise BadFrame("pose", f"{path} holds no 4x4 matrix ({error}): fetch the sequence again") from error
    check_pose(T_world_camera)
    return T_world_camera


def numbered_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that is neither empty nor a comment.

    Raises:
        CaptureError: the file is missing or is not text.
    """
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()


def text_of(path: Path) -> str:
    """Content of a text file of a capture.

    Raises:
        CaptureError: the file is missing, is not text, or is too large.
    """
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise CaptureError(f"{path} is missing or is not text ({error}): check its name, or fetch it again") from error


def nanoseconds(text: str, where: str) -> int:
    """Seconds as text -> nanoseconds, without a float's rounding.

    Raises:
        CaptureError: `text` is not a number of seconds; `where` tells the reader its file and line.
    """
    seconds, _, fraction = text.partition(".")
    digits = seconds + fraction[:9].ljust(9, "0")
    if not digits.isdecimal() or len(digits) > _STAMP_DIGITS:
        raise CaptureError(f"{where}: '{text}' is not a stamp in seconds")
    return int(digits)


def _read_tum(path: Path, lines: list[tuple[int, list[str]]]) -> StampedPoses:
    stamps, poses = [], []
    for number, words in lines:
        where = f"{path}:{number}"
        try:
            numbers = [float(word) for word in words[1:]]
            stamps.append(nanoseconds(words[0], where))
            poses.append(pose_matrix(numbers[:3], numbers[3:]))
        except (ValueError, BadFrame) as error:
            raise CaptureError(f"{where}: a pose is a stamp and 7 numbers, this is '{' '.join(words)}'") from error
    return StampedPoses(stamps, poses, str(path))


def _read_numbered(path: Path, lines: list[tuple[int, list[str]]]) -> NumberedPoses:
    poses: dict[int, NDArray[np.float64]] = {}
    for number, words in lines:
        try:
            poses[int(words[0])] = np.array(words[1:], np.float64).reshape(4, 4)
        except ValueError as error:
            remedy = (
                ": put the number in the image's name before its matrix" if len(words) == NUMBERED_WORDS - 1 else ""
            )
            raise CaptureError(
                f"{path}:{number}: a pose is the image's number and 16 numbers, {NUMBERED_WORDS} in all, and this line "
                f"has {len(words)} and begins with '{words[0]:.20}'{remedy}"
            ) from error
    return NumberedPoses(poses, str(path))


def _read_log(path: Path) -> NumberedPoses:
    """Five lines per pose: the image's number (twice, then an unused number), then the rows of T_world_camera."""
    lines = list(numbered_lines(path))
    poses: dict[int, NDArray[np.float64]] = {}
    for start in range(0, len(lines), _LOG_LINES):
        block = [words for _, words in lines[start : start + _LOG_LINES]]
        try:
            number, T_world_camera = int(block[0][0]), np.array(block[1:], np.float64).reshape(4, 4)
        except ValueError as error:
            raise CaptureError(
                f"{path}:{lines[start][0]}: a pose is a line of numbers and four rows of a matrix: is it truncated?"
            ) from error
        if number in poses:
            raise CaptureError(f"{path}:{lines[start][0]}: image {number} has a second pose: this is no trajectory")
        poses[number] = T_world_camera
    if not poses:
        raise CaptureError(f"{path} holds no pose: was the capture tracked?")
    return NumberedPoses(poses, str(path))


def _read_open3d(path: Path) -> NumberedPoses:
    """PinholeCameraTrajectory: `extrinsic` is T_camera_world, column by column."""
    try:
        cameras = parse_json(text_of(path))["parameters"]
        extrinsics = [np.array(camera["extrinsic"], np.float64).reshape(4, 4).T for camera in cameras]
        poses = {number: np.linalg.inv(T_camera_world) for number, T_camera_world in enumerate(extrinsics)}
    except (ValueError, KeyError, TypeError, np.linalg.LinAlgError) as error:
        raise CaptureError(
            f"{path} is no PinholeCameraTrajectory of Open3D ({type(error).__name__}: {error})"
        ) from error
    if not poses:
        raise CaptureError(f"{path} holds no pose: was the capture tracked?")
    return NumberedPoses(poses, str(path))
