"""The pictures of the cockpit: colour, labels of the base model and of the weights that serve, and what differs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.errors import ShapeError
from s4net_core.evaluation.pictures import changes
from s4net_core.labels import UNLABELLED, LabelSpace, from_mask
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.segmenter import Segmenter
from s4net_ros.cockpit.pictures import jpeg, shrunk

OPACITY = 0.6
MAX_CLASSES = 16
"""Classes in the legend, those that cover most."""


class Comparison:
    """Labels frames with the base model, and draws them beside the labels that the segmentation node published.

    Args:
        settings: of the segmentation node: both networks must look at images of the same size.

    Raises:
        S4NetError: the base model is not there, or cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(1)  # the other cores are for the robot's nodes
        file = base_model_file(settings.checkpoint, settings.model)
        self._segmenter = Segmenter(file, settings.device, settings)
        self._width = settings.cockpit.picture_width

    def draw(self, color: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Pictures of one frame, and what to write beside them.

        Args:
            color: (H, W, 3) uint8 RGB.
            mask: (H, W) uint8 class ids of the weights that serve, 255 = unlabelled.

        Returns:
            ``color``, ``before``, ``after`` and ``changes`` as JPEG; and ``changed``, the share of pixels whose
            class differs, with ``classes``, the legend.

        Raises:
            ShapeError: `mask` has another size than `color`.
        """
        if mask.shape != color.shape[:2]:
            raise ShapeError(f"the mask is {mask.shape} but its colour image is {color.shape[:2]}")
        space = self._segmenter.info.label_space
        before, after = self._segmenter.segment(color).label, from_mask(mask)
        facts = {"changed": float((before != after).mean()), "classes": legend(before, after, space)}
        color, before, after = shrunk(color, self._width), shrunk(before, self._width), shrunk(after, self._width)
        pictures = {
            "color": color,
            "before": space.overlay(color, before, OPACITY),
            "after": space.overlay(color, after, OPACITY),
            "changes": changes(color, before, after, None, space),
        }
        return {name: jpeg(image) for name, image in pictures.items()}, facts


def legend(before: NDArray[np.uint8], after: NDArray[np.uint8], space: LabelSpace) -> list[Mapping[str, Any]]:
    """Name, colour and share of pixels before and after of the classes that cover most of one frame."""
    counts = [np.bincount(label.ravel(), minlength=256) / label.size for label in (before, after)]
    most = np.argsort(-np.maximum(*counts), kind="stable")
    shown = [int(id) for id in most if id != UNLABELLED and id <= space.num_classes and max(c[id] for c in counts) > 0]
    return [
        {
            "name": space.names[id - 1],
            "color": "rgb({}, {}, {})".format(*space.colors[id - 1]),
            "before": round(float(counts[0][id]), 4),
            "after": round(float(counts[1][id]), 4),
        }
        for id in shown[:MAX_CLASSES]
    ]
