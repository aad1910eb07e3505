"""Opens a capture of any supported format."""

from pathlib import Path

from s4net_core.classes import classes_beside
from s4net_core.config import Settings, StreamSettings
from s4net_core.errors import CaptureError, S4NetError
from s4net_core.io.bags.storage import is_bag
from s4net_core.io.captures.indexed import IndexedCapture
from s4net_core.io.captures.open3d_folder import Open3dFolder, has_only_a_trajectory, is_open3d_folder
from s4net_core.io.captures.realsense import RealsenseRecording, is_realsense
from s4net_core.io.captures.recorded import RecordedCapture
from s4net_core.io.captures.rosbag import BagReader
from s4net_core.io.captures.scannet import is_scannet, open_scannet
from s4net_core.io.captures.scene_folder import POSES_FILE, SceneFolder, is_scene_folder
from s4net_core.io.captures.seven_scenes import SevenScenes, is_seven_scenes
from s4net_core.io.captures.trajectory import Poses, read_poses
from s4net_core.io.captures.tum import TumCapture, is_tum
from s4net_core.io.label_files.lookup import LabelReading
from s4net_core.labels import SUNRGBD37, LabelMap, LabelSpace

FORMATS = (
    "scene folder (color/, intrinsics.json, poses.txt), ScanNet (.sens, or color/, depth/, pose/, intrinsic/), "
    "TUM RGB-D (rgb.txt, depth.txt, groundtruth.txt), 7-Scenes (frame-000000.color.png), Redwood or Open3D "
    "(color/, depth/, trajectory.log), rosbag2 (metadata.yaml, or a .mcap or .db3 file), ROS 1 bag (.bag), "
    "RealSense recording (.bag, .db3)"
)


def open_capture(
    path: str | Path,
    *,
    stream: StreamSettings | None = None,
    poses: str | Poses = "",
    map_labels: LabelMap | None = None,
    label_space: LabelSpace | None = None,
    stride: int = 1,
    with_depth: bool = True,
    with_labels: bool = True,
) -> IndexedCapture | RecordedCapture:
    """The capture at `path`; its files tell the format.

    Args:
        path: folder or file.
        stream: how colour, depth and poses are matched; used where each of them has its own stamps.
        poses: replace the capture's own poses, or supply missing ones: `Poses`, or a file that `read_poses` reads, in
            the capture's folder or elsewhere, e.g. ``poses_noisy.txt``; empty = the capture's own.
        map_labels: maps the ids in label files to SUN RGB-D 37, see `label_map`; None = the format's own map.
        label_space: classes to which the labels lead, by name and synonym. Ids in a scene folder without
            ``classes.yaml`` are taken for its ids. None = the capture's own classes; SUN RGB-D 37 if it names none.
        stride: take every n-th frame; the others are not read where the format lets a reader skip images.
        with_depth: False = a bag or TUM sequence is read without depth and need not have any; other formats ignore it.
        with_labels: False = labels are not read, whatever they are.

    Raises:
        CaptureError: nothing is there, it is in none of the formats, `map_labels` is given for a format without
            labels, or one of its classes is not in `label_space`.
        LabelTableError: a ScanNet scan has a damaged table of labels.
    """
    path = Path(path)
    if not path.exists():
        raise CaptureError(f"capture {path} does not exist: check the path")
    given: Poses | None = None
    if poses:
        given = read_poses(pose_file(path, poses)) if isinstance(poses, str) else poses
    if path.is_dir() and is_scene_folder(path) and not has_only_a_trajectory(path):
        own = SUNRGBD37 if map_labels else classes_beside(path) or label_space or SUNRGBD37
        labels = _labels(path, own, label_space, map_labels) if with_labels else None
        return SceneFolder(path, given or POSES_FILE, stride, labels=labels)
    if is_scannet(path):
        labels = _labels(path, SUNRGBD37, label_space, map_labels) if with_labels else None
        return open_scannet(path, given, stride, labels=labels)
    if map_labels is not None:
        raise CaptureError(f"{path} is neither a scene folder nor ScanNet: other formats have no labels to map")
    if path.is_dir() and is_tum(path):
        return TumCapture(path, stream, poses=given, stride=stride, with_depth=with_depth)
    if path.is_dir() and is_seven_scenes(path):
        return SevenScenes(path, given, stride)
    if path.is_dir() and is_open3d_folder(path):
        return Open3dFolder(path, given, stride)
    if is_realsense(path):
        return RealsenseRecording(path, stream, poses=given, stride=stride)
    if is_bag(path):
        return BagReader(path, stream, poses=given, stride=stride, with_depth=with_depth)
    raise CaptureError(
        f"{path} is in no format that can be read: {FORMATS}. If it holds several captures, name one of them; anything "
        "else can be written as a scene folder, which docs/tutorials/own-capture.md describes"
    )


def open_views(
    path: str | Path,
    settings: Settings,
    *,
    labels: LabelSpace | None = None,
    poses: str = "",
    stride: int = 1,
) -> IndexedCapture | RecordedCapture:
    """`open_capture` as a network takes a capture: with depth only if the settings have it from the sensor.

    Args:
        path, poses, stride: as for `open_capture`.
        settings: groups `stream` and `geometry`.
        labels: classes to which the labels lead; None = labels are not read, whatever they are.

    Raises:
        CaptureError, LabelTableError: as `open_capture`.
    """
    return open_capture(
        path,
        stream=settings.stream,
        poses=poses,
        label_space=labels,
        stride=stride,
        with_depth=settings.geometry.from_sensor,
        with_labels=labels is not None,
    )


def pose_file(capture: Path, name: str) -> Path:
    """The file that `open_capture` reads for its argument `poses`.

    Raises:
        CaptureError: it is neither in the capture's folder nor in the current folder.
    """
    folder = capture if capture.is_dir() else capture.parent
    places = [folder / name, Path(name)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise CaptureError(f"pose file {name} is neither in {folder} nor in the current folder: check its name")
    return found


def _labels(path: Path, own: LabelSpace, wanted: LabelSpace | None, map_labels: LabelMap | None) -> LabelReading:
    if wanted is None or wanted.names == own.names:
        return LabelReading(own, map_labels)
    try:
        return LabelReading(own, map_labels, own.table_to(wanted))
    except S4NetError as error:
        raise CaptureError(f"capture {path}: {error}") from error
