"""Why frames are dropped: the same words live, offline, in status, diagnostics and pages."""

from collections.abc import Mapping

AT_REST = "at_rest"
"""The one reason that is no fault of anything: nobody has to be warned."""
UNMATCHED = "unmatched"
"""Colour without depth: the stamps say why."""

DROP_REASONS: dict[str, str] = {
    UNMATCHED: "colour had no depth of the same time: set enable_sync:=true or raise stream.sync_slop; harmless when "
    "depth is slower than colour",
    "backlog": "this machine is too slow for the stream: lower the camera's rate or resolution",
    AT_REST: "the camera stands still: at most ten frames a second are looked at; harmless",
    "time_jump": "time went back (looped bag, restarted simulation): frames of half a second are dropped, all goes on; "
    "if it happens again and again: do two publishers share the colour topic?",
    "out_of_order": "stamp is not newer than the last frame's: does the driver set stamps, and is it the only "
    "publisher of the colour topic?",
    "no_camera_info": "no camera_info came: check the topic and its publisher",
    "camera_info_stale": "camera_info is older than stream.camera_info_age: publish it with every image",
    "intrinsics": "camera_info has zero or NaN entries: calibrate the camera",
    "distortion": "camera_info has a lens model that is not undone here: rectify the images first (image_proc)",
    "intrinsics_size": "camera_info has another size than colour: use the camera_info of the colour stream",
    "depth_frame": "depth is not in the colour camera's frame: launch the camera with align_depth.enable:=true",
    "depth_size": "depth has another size than colour: launch the camera with align_depth.enable:=true",
    "no_depth": "no pixel has depth: is the depth camera covered, too near, or its emitter off?",
    "color_format": "colour is damaged or in an encoding that is not read: use rgb8, bgr8, rgba8, bgra8, mono8, "
    "jpeg or png",
    "image_size": "an image has more than max_megapixels million pixels: make it smaller, or raise max_megapixels",
    "depth_format": "depth is damaged or in an encoding that is not read: use 16UC1, 32FC1 or compressedDepth png",
    "no_pose": "no transform from the fixed frame to the camera at the image's time: check stream.fixed_frame, that "
    "tracking runs, and raise stream.pose_wait if it is slow",
    "pose": "pose is not a rigid transform: is tracking lost?",
    "internal_error": "a fault of this program: please report it with the log, which holds the traceback",
}
"""Every reason for which a node drops a frame, with its one-line remedy; files have others, such as ``unreadable``."""


def counted(reasons: Mapping[str, int]) -> str:
    """Number of frames by reason, in one line, e.g. "3 no_pose, 1 no_depth"; empty when there are none."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
