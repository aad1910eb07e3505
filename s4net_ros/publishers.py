"""Outputs of the segmentation node. Images and points are made only while somebody listens to their topic."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from s4net_core.config import SegmentationSettings
from s4net_core.frames import check_depth_size, check_intrinsics_size
from s4net_core.labels import MASK_UNLABELLED, LabelSpace, to_mask
from s4net_ros.conversions import image_message, intrinsics_from_info, points_message
from s4net_ros.msg import LabelInfo
from s4net_ros.qos import OUTPUT_DEPTH, latched_qos, stream_qos

if TYPE_CHECKING:  # torch takes seconds to import; nothing here needs it
    from s4net_core.models.segmenter import Segmentation

try:
    from vision_msgs.msg import LabelInfo as VisionLabelInfo
    from vision_msgs.msg import VisionClass
except ImportError:  # not installed everywhere, and not on PyPI
    VisionLabelInfo = None


class SegmentationPublishers:
    """Topics ``segmentation/*``; every image keeps the stamp and frame_id of the colour image that it labels.

    Args:
        node: publishes only while it is active.
        space: classes of the mask.
        settings: opacity and stride are read for each frame, so changes act at once.
        rectified: whether the colour images have no lens distortion any more, whatever camera_info says.
    """

    def __init__(
        self, node: LifecycleNode, space: LabelSpace, settings: SegmentationSettings, *, rectified: bool = False
    ) -> None:
        self._node = node
        self._space = space
        self._settings = settings
        self._rectified = rectified
        qos = stream_qos(settings.output_reliability, OUTPUT_DEPTH)
        make = node.create_lifecycle_publisher
        self._mask = make(Image, "segmentation/mask", qos)
        self._confidence = make(Image, "segmentation/confidence", qos)
        self._overlay = make(Image, "segmentation/overlay", qos)
        self._info = make(CameraInfo, "segmentation/camera_info", qos)
        self._points = make(PointCloud2, "segmentation/points", qos) if settings.points else None
        self._label_info = make(LabelInfo, "segmentation/label_info", latched_qos())
        self._vision_info = None
        if VisionLabelInfo is not None:
            self._vision_info = make(VisionLabelInfo, "segmentation/label_info_vision", latched_qos())

    @property
    def wanted(self) -> bool:
        """Whether anybody listens to an output that needs the network."""
        return any(map(_heard, (self._mask, self._confidence, self._overlay, self._points)))

    @property
    def points_wanted(self) -> bool:
        """Whether anybody listens to the points."""
        return _heard(self._points)

    def publish(
        self, header: Header, color: NDArray[np.uint8], result: "Segmentation", info: CameraInfo | None
    ) -> None:
        """Publish the labels of one colour image.

        Args:
            header: of the colour image.
            color: (H, W, 3) uint8 RGB.
            result: label and confidence of the same size.
            info: newest camera_info of the colour stream; None = not received yet.
        """
        if info is not None and _heard(self._info) and (info.height, info.width) == color.shape[:2]:
            self._info.publish(with_header(info, header))
        if _heard(self._mask):
            self._mask.publish(image_message(to_mask(result.label), "mono8", header))
        if _heard(self._confidence):
            self._confidence.publish(image_message(result.confidence, "32FC1", header))
        if _heard(self._overlay):
            picture = self._space.overlay(color, result.label, self._settings.overlay_alpha)
            self._overlay.publish(image_message(picture, "rgb8", header))

    def publish_points(
        self,
        header: Header,
        color: NDArray[np.uint8],
        result: "Segmentation",
        info: CameraInfo,
        depth: NDArray[np.float32],
    ) -> None:
        """Publish the labelled points of one frame.

        Args:
            header, color, result, info: as for `publish`.
            depth: (H, W) float32, metres, 0 = none, aligned to `color`.

        Raises:
            BadFrame: ``depth_size``, ``intrinsics_size`` or ``intrinsics``.
        """
        if self._points is None:
            return
        size = color.shape[:2]
        check_depth_size(depth, size)
        intrinsics = intrinsics_from_info(info, rectified=self._rectified)
        check_intrinsics_size(intrinsics, size)
        stride = self._settings.points_stride
        self._points.publish(points_message(depth, color, to_mask(result.label), intrinsics, header, stride=stride))

    def publish_label_info(self) -> None:
        """Publish the latched names and colours; call when the node has become active."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(label_info(self._space, header))
        if self._vision_info is not None:
            ids, names = self._space.shown_ids, self._space.names
            classes = [VisionClass(class_id=id, class_name=names[id - 1]) for id in ids]
            self._vision_info.publish(VisionLabelInfo(header=header, class_map=classes))

    def destroy(self) -> None:
        """End all topics."""
        for publisher in vars(self).copy().values():
            if isinstance(publisher, LifecyclePublisher):
                self._node.destroy_lifecycle_publisher(publisher)


def label_info(space: LabelSpace, header: Header) -> LabelInfo:
    """Message with the meaning of the mask's values."""
    return LabelInfo(
        header=header,
        label_space=space.name,
        unlabelled=MASK_UNLABELLED,
        ids=space.shown_ids,
        names=[space.names[id - 1] for id in space.shown_ids],
        colors=[channel for id in space.shown_ids for channel in space.colors[id - 1]],
    )


def with_header(info: CameraInfo, header: Header) -> CameraInfo:
    """A camera_info for another image of the same camera; the calibration is shared, not copied."""
    copy = CameraInfo(header=header)
    for name in info.get_fields_and_field_types():
        if name != "header":
            setattr(copy, name, getattr(info, name))
    return copy


def _heard(publisher: LifecyclePublisher | None) -> bool:
    return publisher is not None and publisher.get_subscription_count() > 0
