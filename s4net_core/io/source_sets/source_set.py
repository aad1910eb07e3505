"""Labelled source set S: the interface that every format implements, and the draw of the hold-out."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, SourceSetError
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


class _InLabelSpace:
    """A source set whose ids are looked up in a table."""

    def __init__(self, source: SourceSet, label_space: LabelSpace) -> None:
        self.name = source.name
        self.label_space = label_space
        self._source = source
        self._table = source.label_space.table_to(label_space)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> LabelledImage:
        image = self._source[index]
        return replace(image, label=self._table[image.label])

    def label(self, index: int) -> NDArray[np.uint8]:
        return self._table[self._source.label(index)]


def in_label_space(source: SourceSet, label_space: LabelSpace) -> SourceSet:
    """The same images with the ids of another label space, class by class by name and synonym.

    Raises:
        SourceSetError: a class of the source set has no counterpart; the message names both label spaces.
    """
    if source.label_space.names == label_space.names:
        return source
    try:
        return _InLabelSpace(source, label_space)
    except S4NetError as error:
        raise SourceSetError(f"source set {source.name}: {error}") from error


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
