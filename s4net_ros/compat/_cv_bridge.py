"""Stand-in for the part of cv_bridge that we use: Image messages to arrays, by rosbags-image."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import ImageError, image_to_cvimage


class CvBridgeError(TypeError):
    """An image cannot be converted."""


class CvBridge:
    """Converts messages."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Image -> (H, W) or (H, W, C) array.

        Args:
            img_msg: sensor_msgs/Image in any encoding of OpenCV's or of sensor_msgs/image_encodings.hpp.
            desired_encoding: e.g. ``rgb8``; ``passthrough`` = as it is.

        Raises:
            CvBridgeError: unknown encoding, impossible conversion, or a message whose sizes do not fit.
        """
        color_space = None if desired_encoding == "passthrough" else desired_encoding
        try:
            return np.asarray(image_to_cvimage(_without_padding(img_msg), color_space))
        except (ImageError, ValueError, TypeError, cv2.error) as error:
            raise CvBridgeError(f"{img_msg.encoding} to {desired_encoding}: {error}") from error


def _without_padding(message: Any) -> Any:
    """rosbags-image ignores `step`: hand it rows without padding."""
    data = np.frombuffer(message.data, np.uint8)
    rows = data[: message.height * message.step].reshape(message.height, message.step)
    used = np.asarray(image_to_cvimage(_like(message, 1, data))).nbytes
    return _like(message, message.height, np.ascontiguousarray(rows[:, :used]))


def _like(message: Any, height: int, data: NDArray[np.uint8]) -> Any:
    return SimpleNamespace(
        height=height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian),
        data=data,
    )
