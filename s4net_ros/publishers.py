"""Outputs of the segmentation node. Images and points are made only while somebody listens to their topic."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass

from s4net_core.config import SegmentationSettings
from s4net_core.frames import check_depth_size, check_intrinsics_size
from s4net_core.io.bags.messages import intrinsics_from_info
from s4net_core.io.images.codec import encode_compressed_color, encode_compressed_mask
from s4net_core.labels import LabelSpace, to_mask
from s4net_ros.conversions import compressed_message, image_message, points_message
from s4net_ros.qos import OUTPUT_DEPTH, latched_qos, stream_qos

if TYPE_CHECKING:  # torch takes seconds to import; nothing here needs it
    from s4net_core.models.segmenter import Segmentation

OVERLAY_JPEG_QUALITY = 80


class SegmentationPublishers:
    """Topics ``segmentation/*``; every image keeps the stamp and frame_id of the colour image that it labels.

    Args:
        node: publishes only while it is active.
        space: classes of the mask.
        settings: opacity, stride and confidence are read for each frame, so changes act at once.
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
        self._mask_png = make(CompressedImage, "segmentation/mask/compressed", qos)
        self._confidence = make(Image, "segmentation/confidence", qos)
        self._overlay = make(Image, "segmentation/overlay", qos)
        self._overlay_jpeg = make(CompressedImage, "segmentation/overlay/compressed", qos)
        self._info = make(CameraInfo, "segmentation/camera_info", qos)
        self._points = make(PointCloud2, "segmentation/points", qos) if settings.points else None
        self._label_info = make(LabelInfo, "segmentation/label_info", latched_qos())
        self._threshold = settings.min_confidence

    @property
    def wanted(self) -> bool:
        """Whether anybody listens to an output that needs the network."""
        images = self._mask, self._mask_png, self._confidence, self._overlay, self._overlay_jpeg
        return any(map(_heard, (*images, self._points)))

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
        mask = to_mask(result.label)
        if _heard(self._mask):
            self._mask.publish(image_message(mask, "mono8", header))
        if _heard(self._mask_png):
            self._mask_png.publish(compressed_message(encode_compressed_mask(mask), header))
        if _heard(self._confidence):
            self._confidence.publish(confidence_message(result.confidence, self._settings.confidence_encoding, header))
        if _heard(self._overlay) or _heard(self._overlay_jpeg):
            self._publish_overlay(header, self._space.overlay(color, result.label, self._settings.overlay_alpha))

    def _publish_overlay(self, header: Header, picture: NDArray[np.uint8]) -> None:
        if _heard(self._overlay):
            self._overlay.publish(image_message(picture, "rgb8", header))
        if _heard(self._overlay_jpeg):
            self._overlay_jpeg.publish(
                compressed_message(encode_compressed_color(picture, OVERLAY_JPEG_QUALITY), header)
            )

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
        """Publish the latched class names; call when the node has become active."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._threshold = self._settings.min_confidence
        self._label_info.publish(label_info(self._space, self._threshold, header))

    def follow_threshold(self) -> None:
        """Publish the class names again when their threshold, the smallest confidence, has changed."""
        if self._threshold != self._settings.min_confidence:
            self.publish_label_info()

    def destroy(self) -> None:
        """End all topics."""
        for publisher in vars(self).copy().values():
            if isinstance(publisher, LifecyclePublisher):
                self._node.destroy_lifecycle_publisher(publisher)


def label_info(space: LabelSpace, threshold: float, header: Header) -> LabelInfo:
    """Names of the mask's values; 255 ("unlabelled") has none.

    Args:
        threshold: smallest probability of a label.
    """
    classes = [VisionClass(class_id=id, class_name=space.names[id - 1]) for id in space.shown_ids]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def confidence_message(confidence: NDArray[np.float32], encoding: str, header: Header) -> Image:
    """(H, W) float32 in 0..1 -> Image, ``32FC1`` as it is, or ``mono8`` with 255 = certain."""
    if encoding == "mono8":
        return image_message((confidence * 255 + 0.5).astype(np.uint8), encoding, header)
    return image_message(confidence, encoding, header)


def with_header(info: CameraInfo, header: Header) -> CameraInfo:
    """A camera_info for another image of the same camera; the calibration is shared, not copied."""
    copy = CameraInfo(header=header)
    for name in info.get_fields_and_field_types():
        if name != "header":
            setattr(copy, name, getattr(info, name))
    return copy


def _heard(publisher: LifecyclePublisher | None) -> bool:
    return publisher is not None and publisher.get_subscription_count() > 0
