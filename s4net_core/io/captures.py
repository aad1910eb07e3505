"""Opens a capture of any format that is read here."""

from pathlib import Path

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import FrameSource
from s4net_core.io.bag_storage import is_bag
from s4net_core.io.rosbag_reader import BagReader
from s4net_core.io.scene_folder import SceneFolder, is_scene_folder
from s4net_core.io.seven_scenes import SevenScenes, is_seven_scenes
from s4net_core.io.tum import TumCapture, is_tum
from s4net_core.labels import LabelMap

FORMATS = (
    "scene folder (color/, intrinsics.json, poses.txt), TUM RGB-D (rgb.txt, depth.txt, groundtruth.txt), 7-Scenes "
    "(frame-000000.color.png), rosbag2 (metadata.yaml, or a .mcap or .db3 file)"
)


def open_capture(
    path: str | Path,
    *,
    stream: StreamSettings | None = None,
    poses: str = "",
    map_labels: LabelMap | None = None,
    with_depth: bool = True,
) -> FrameSource:
    """The capture at `path`, whatever its format.

    Args:
        path: folder, or .mcap or .db3 file.
        stream: how streams are put together; for bags and TUM.
        poses: another file of poses for a scene folder, e.g. ``poses_noisy.txt``; empty = ``poses.txt``.
        map_labels: from the ids in a scene folder to SUN RGB-D 37, one of `LABEL_MAPS`; None = they are those.
        with_depth: False = depth need not be there; in a bag or TUM sequence colour does not wait for it then.

    Raises:
        CaptureError: nothing is there, or it is in none of the formats.
    """
    path = Path(path)
    if not path.exists():
        raise CaptureError(f"capture {path} does not exist: check the path")
    if path.is_dir() and is_scene_folder(path):
        return SceneFolder(path, poses or "poses.txt", map_labels=map_labels)
    if poses:
        raise CaptureError(f"{path} is no scene folder: only a scene folder can be read with other poses ({poses})")
    if map_labels is not None:
        raise CaptureError(f"{path} is no scene folder: only a scene folder has labels that can be mapped")
    if path.is_dir() and is_tum(path):
        return TumCapture(path, stream, with_depth=with_depth)
    if path.is_dir() and is_seven_scenes(path):
        return SevenScenes(path)
    if is_bag(path):
        return BagReader(path, stream, with_depth=with_depth)
    raise CaptureError(f"{path} is in no format that can be read: {FORMATS}")
