"""Labelled source set S: the interface that every format implements, and the draw of the hold-out."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import SourceSetError
from s4net_core.geometry.camera import resize_color, resize_nearest
from s4net_core.labels import LabelSpace

HOLDOUT_SEED = 0
"""Draws the hold-out of a source set; a constant, not a setting."""


@dataclass(frozen=True)
class LabelledImage:
    """One image of a source set.

    Args:
        color: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids, 0 = unlabelled.
        depth: (H, W) float32 metres, aligned to `color`, 0 = none; None = not known, or not asked for.
    """

    color: NDArray[np.uint8]
    label: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None

    def resized(self, width: int, height: int) -> "LabelledImage":
        """The same image at another size; labels and depth are picked, never mixed."""
        if self.label.shape == (height, width):
            return self
        return LabelledImage(
            resize_color(self.color, width, height),
            resize_nearest(self.label, width, height),
            None if self.depth is None else resize_nearest(self.depth, width, height),
        )


@runtime_checkable
class SourceSet(Protocol):
    """Labelled images, by position."""

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    @property
    def label_space(self) -> LabelSpace:
        """Label space of the ids."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledImage: ...

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label of one image alone, (H, W) uint8, 0 = unlabelled."""
        ...


def split(source: SourceSet, holdout: int) -> tuple[list[int], list[int]]:
    """Positions for training and for the hold-out, each in rising order.

    The draw is random but independent of a run's seed: images on which a base model was measured must stay unseen when
    the model is adapted.

    Raises:
        SourceSetError: no image would be left for training.
    """
    if not 0 <= holdout < len(source):
        raise SourceSetError(
            f"source set {source.name} has {len(source)} images, too few to hold out {holdout}: "
            "lower guard.holdout or add images"
        )
    order = np.random.default_rng(HOLDOUT_SEED).permutation(len(source))
    return sorted(order[holdout:].tolist()), sorted(order[:holdout].tolist())
