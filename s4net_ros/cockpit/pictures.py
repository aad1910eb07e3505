"""Pictures for the page that need no network."""

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.evaluation.pictures import encode


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB -> file content."""
    return encode(image, photo=True)[0]


def shrunk(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The image, not wider than `width` pixels; colour (H, W, 3) is averaged, of labels (H, W) every n-th is taken."""
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    how = cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
