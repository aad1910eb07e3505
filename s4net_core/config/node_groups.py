"""Groups of settings of the nodes: where frames come from, and what is published."""

import re
from typing import Literal

from s4net_core.config.group import Group, setting


class SegmentationSettings(Group):
    """The live node's outputs."""

    min_confidence: float = setting(
        0.0,
        "Smallest probability of a label; less certain pixels are published as unlabelled. 0 = all are labelled.",
        ge=0,
        le=1,
        live=True,
    )
    overlay_alpha: float = setting(
        0.5, "Opacity of the labels in the overlay image; 0 = colour alone, 1 = labels alone.", ge=0, le=1, live=True
    )
    confidence_encoding: Literal["mono8", "32FC1"] = setting(
        "mono8", "Encoding of the published confidence: mono8 = 0..255, as nav2's layers read it, or 32FC1 = 0..1."
    )
    points_stride: int = setting(
        1,
        "Step between pixels of a row or column that become labelled points; 1 = as many as the mask has.",
        unit="px",
        ge=1,
        le=64,
    )
    points: bool = setting(
        True, "Whether labelled points are published; depth is subscribed to while somebody listens to them."
    )
    output_reliability: Literal["best_effort", "reliable"] = setting(
        "reliable", "QoS reliability of the published images."
    )
    runtime: Literal["torch", "onnx"] = setting("torch", "Library that computes the labels: PyTorch, or ONNX Runtime.")
    execution_provider: str = setting(
        "auto",
        "Execution provider of ONNX Runtime, e.g. TensorrtExecutionProvider; auto = CUDA if there is one, else CPU.",
    )


class MapSettings(Group):
    """The semantic map."""

    voxel_size: float = setting(0.05, "Edge of the voxels of the semantic map.", unit="m", ge=0.005, le=1)
    max_range: float = setting(
        5.0,
        "Largest depth of a pixel that votes in the semantic map: depth cameras err more far away.",
        unit="m",
        gt=0,
        le=100,
    )
    max_voxels: int = setting(
        500_000,
        "Largest number of voxels of the semantic map; once it is full, new places are left out.",
        ge=1000,
        le=20_000_000,
    )
    min_votes: int = setting(
        2,
        "Number of pixels that must have seen a voxel of the semantic map before it is shown.",
        ge=1,
        le=1000,
    )
    passable: str = setting(
        "floor, floor mat, ceiling",
        "Classes that never block in semantic_map/grid, separated by commas; all others do.",
    )
    min_height: float = setting(
        0.1, "Height in the fixed frame above which voxels block in semantic_map/grid.", unit="m", ge=-1000, le=1000
    )
    max_height: float = setting(
        2.0, "Height in the fixed frame up to which voxels block in semantic_map/grid.", unit="m", ge=-1000, le=1000
    )
    period: float = setting(2.0, "Shortest time between two messages of the semantic map.", unit="s", ge=0.1, le=600)


class StreamSettings(Group):
    """How frames are put together from topics or from a bag."""

    fixed_frame: str = setting(
        "odom", "Frame in which the camera is tracked; it must not jump (REP 105: odom, not map)."
    )
    corrected_frame: str = setting(
        "base_link", "Frame whose corrected poses arrive on pose_corrections; rtabmap's are those of its frame_id."
    )
    corrections: Literal["path", "map_graph"] = setting(
        "path",
        "Type of pose_corrections: nav_msgs/Path, or rtabmap_msgs/MapGraph, whose package must be installed then.",
    )
    sync_slop: float = setting(
        0.017,
        "Largest difference between the stamps of a colour and a depth image that belong together.",
        unit="s",
        ge=0,
        le=1,
    )
    sync_queue: int = setting(30, "Number of messages of each topic that wait for the others to arrive.", ge=1, le=1000)
    pose_wait: float = setting(
        1.0, "Longest time for which a frame waits for its pose; later the frame is dropped.", unit="s", ge=0, le=60
    )
    camera_info_age: float = setting(
        1.0, "Largest age of a camera_info that still describes a colour image; 0 = any age.", unit="s", ge=0, le=3600
    )
    rectified: Literal["auto", "always", "never"] = setting(
        "auto", "Whether the images are without lens distortion already; auto = if the topic's name has the word rect."
    )
    tf_history: float = setting(30.0, "Length of the history of transforms that is kept.", unit="s", gt=0, le=3600)
    color_reliability: Literal["best_effort", "reliable"] = setting(
        "best_effort", "QoS reliability of the subscription to colour."
    )
    depth_reliability: Literal["best_effort", "reliable"] = setting(
        "best_effort", "QoS reliability of the subscription to depth."
    )
    queue_depth: int = setting(
        5,
        "QoS depth of the adaptation node's subscriptions to images; above 10, none is left out at rest.",
        ge=1,
        le=1000,
    )
    color_transport: Literal["raw", "compressed"] = setting(
        "raw", "Transport of the colour image that nodes subscribe to."
    )
    depth_transport: Literal["raw", "compressedDepth"] = setting(
        "raw", "Transport of the depth image that nodes subscribe to."
    )
    stall_warning: float = setting(5.0, "Time without a frame after which a node warns.", unit="s", gt=0, le=600)

    def is_rectified(self, topic: str) -> bool:
        """Whether the images of a topic, e.g. ``/camera/image_rect_color``, have no lens distortion any more.

        Their camera_info does not tell: image_proc publishes the same one beside raw and rectified images.
        """
        named = re.search(r"(?<![a-z])rect(ified)?(?![a-z])", topic) is not None
        return self.rectified == "always" or (self.rectified == "auto" and named)


class CockpitSettings(Group):
    """The page that shows in a browser what the robot learns."""

    address: str = setting(
        "127.0.0.1", "Address on which the cockpit serves; one that other computers reach needs cockpit.token."
    )
    port: int = setting(8650, "TCP port of the cockpit.", ge=1, le=65535)
    token: str = setting(
        "",
        "Secret without which the cockpit refuses every request; empty = none, and only browsers of this computer.",
    )
    rate: float = setting(
        2.0, "Largest rate of the pictures, which take a base model of their own to make.", unit="Hz", ge=0.1, le=30
    )
    picture_width: int = setting(640, "Largest width of the pictures.", unit="px", ge=64, le=4096)
