"""Recordings of a RealSense (librealsense's .bag, since version 2.58 .db3), read through pyrealsense2.

They hold no poses; a file gives them, e.g. one that `s4net register` wrote. Depth is aligned to colour by
librealsense.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import Intrinsics
from s4net_core.io.bags.messages import intrinsics_from_calibration
from s4net_core.io.bags.storage import Bag, is_bag
from s4net_core.io.captures.recorded import RecordedCapture
from s4net_core.io.captures.scene_folder import FRAME_ID
from s4net_core.io.captures.trajectory import Poses
from s4net_core.io.images.codec import decode_color
from s4net_core.streams.assembler import Picture
from s4net_core.streams.offline import StreamAssembler

TOPIC = "/device_0/sensor_"
"""Every topic of librealsense begins with this, and no topic of realsense2_camera does."""
POLL_MS, SETTLED_MS, END_MS = 100, 1000, 10000
"""One poll; a file is over after the second without images if playback has stopped, and after the third in any case."""
NO_POSES = (
    "a RealSense recording has no poses: give a file of them (`s4net convert --poses FILE`), or find them by "
    "`s4net register`"
)


class RealsenseRecording(RecordedCapture):
    """Frames of a recording.

    Args:
        path: .bag or .db3 file.
        stream: slop of the association of colour and depth.
        poses: of the images; the recording has none.
        stride: take every n-th frame.

    Raises:
        CaptureError: pyrealsense2 cannot be used, the file is damaged or lacks colour or depth, or there are no poses.
    """

    def __init__(
        self, path: str | Path, stream: StreamSettings | None = None, *, poses: Poses | None = None, stride: int = 1
    ) -> None:
        super().__init__(path, stream, poses=poses, stride=stride)
        if poses is None:
            raise CaptureError(f"{path}: {NO_POSES}")
        with Bag(self.path) as bag:
            self.damage = bag.damage
            self._count = sum(bag.count(topic) for topic in bag.topics if "/Color_0/image/data" in topic)
        self._rs = load_pyrealsense2()

    def _play(self, assembler: StreamAssembler) -> Iterator[None]:
        """Add each image once: librealsense repeats it in sets with later images of the other stream."""
        last: dict[str, int] = {}
        for color, depth in self._sets():
            if last.get("depth") != depth.get_frame_number():
                last["depth"] = depth.get_frame_number()
                assembler.add_depth(_picture(depth, _metres(depth)))
            if last.get("color") != color.get_frame_number():
                last["color"] = color.get_frame_number()
                picture = _picture(color, _rgb(color))
                assembler.add_camera_info(picture.stamp, partial(_lens, color))
                assembler.add_color(picture)
            yield

    def _sets(self) -> Iterator[tuple[Any, Any]]:
        """Pairs of colour and aligned depth, as librealsense matches them."""
        rs = self._rs
        pipeline, config, align = rs.pipeline(), rs.config(), rs.align(rs.stream.color)
        config.enable_device_from_file(str(self.path), repeat_playback=False)
        config.enable_stream(rs.stream.color)
        config.enable_stream(rs.stream.depth)
        try:
            playback = config.resolve(rs.pipeline_wrapper(pipeline)).get_device().as_playback()
            playback.set_real_time(False)  # before the start, else the first images are lost
            playback.pause()  # librealsense starts one stream after the other: the first would run ahead
            pipeline.start(config)
        except RuntimeError as error:
            raise CaptureError(
                f"{self.path} cannot be played by librealsense ({error}): it must hold colour and depth, and "
                "must have been closed after recording; `rosbag reindex` may repair a .bag"
            ) from error
        try:
            playback.resume()
            waited = 0
            while waited < (SETTLED_MS if playback.current_status() == rs.playback_status.stopped else END_MS):
                there, images = pipeline.try_wait_for_frames(POLL_MS)
                waited = 0 if there else waited + POLL_MS
                if there:
                    images = align.process(images)
                    yield images.get_color_frame(), images.get_depth_frame()
        finally:
            pipeline.stop()


def is_realsense(path: Path) -> bool:
    """Whether `path` is a recording of librealsense: a ROS bag with librealsense's own topics.

    Raises:
        CaptureError: the bag cannot be read.
    """
    if path.suffix == ".mcap" or path.is_dir() or not is_bag(path):
        return False
    with Bag(path) as bag:
        return any(topic.startswith(TOPIC) for topic in bag.topics)


def load_pyrealsense2() -> Any:
    """Import pyrealsense2.

    Raises:
        CaptureError: it or a library that it needs is not installed; the text says how to install it.
    """
    try:
        import pyrealsense2
    except ModuleNotFoundError as error:
        raise CaptureError("reading a RealSense recording needs pyrealsense2: pip install pyrealsense2") from error
    except ImportError as error:
        raise CaptureError(
            f"pyrealsense2 cannot be loaded ({error}): install the library that it names, on Debian and "
            "Ubuntu by `apt install libusb-1.0-0`"
        ) from error
    return pyrealsense2


def _picture(frame: Any, image: Callable[[], NDArray[Any]]) -> Picture:
    return Picture(round(frame.get_timestamp() * 1e6), FRAME_ID, image)


def _rgb(frame: Any) -> Callable[[], NDArray[np.uint8]]:
    """Copies the image at once, because librealsense has few buffers and reuses them."""
    video = frame.as_video_frame()
    encoding, data = video.get_profile().format().name, np.array(video.get_data())
    height, width, step = video.get_height(), video.get_width(), data.strides[0]
    return lambda: decode_color(encoding, height, width, step, False, data.view(np.uint8).ravel())


def _metres(frame: Any) -> Callable[[], NDArray[np.float32]]:
    values = np.array(frame.get_data())
    units = np.float32(frame.get_units())
    return lambda: values * units


def _lens(frame: Any) -> Intrinsics:
    """The lens as realsense2_camera publishes it: every model but a fisheye's counts as plumb_bob."""
    lens = frame.get_profile().as_video_stream_profile().get_intrinsics()
    model = lens.model.name if lens.model.name in ("kannala_brandt4", "ftheta") else "plumb_bob"
    k = [lens.fx, 0.0, lens.ppx, 0.0, lens.fy, lens.ppy, 0.0, 0.0, 1.0]
    return intrinsics_from_calibration(lens.width, lens.height, k, lens.coeffs, model)
