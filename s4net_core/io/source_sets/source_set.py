"""Labelled source set S: the interface that every format implements, and the draw of the hold-out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, SourceSetError
from s4net_core.geometry.camera import resize_color, resize_nearest
from s4net_core.labels import LabelSpace

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_LEFT_OUT = 0.1
"""Largest share of a source set that may be unusable; one image may always be, unless it is the only one."""
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


class Usable:
    """Reads images of a source set and leaves out those that cannot be used, until they are too many.

    An image that could not be read is tried again when it is asked for again: its disk may be back.

    Args:
        name: of the source set, for errors.
        images: number of images that may be asked for.
    """

    def __init__(self, name: str, images: int) -> None:
        self._name = name
        self._images = images
        self._most = min(max(1, int(MAX_LEFT_OUT * images)), images - 1)
        self.left_out: set[int] = set()
        """Positions of the images that could not be used when they were last asked for."""

    def read(self, how: Callable[[int], T], index: int) -> T | None:
        """`how(index)`, or None if the image cannot be used, which the log says once.

        Raises:
            SourceSetError: too many images cannot be used. They are all tried again afterwards.
        """
        try:
            found = how(index)
        except (S4NetError, OSError) as error:
            if index not in self.left_out:
                log.warning("source set %s: an image is left out: %s", self._name, error)
                self.left_out.add(index)
            if len(self.left_out) > self._most:
                count = len(self.left_out)
                self.left_out.clear()
                raise SourceSetError(
                    f"source set {self._name}: {count} of {self._images} images cannot be used, the last because "
                    f"{error}: repair or remove them"
                ) from error
            return None
        self.left_out.discard(index)
        return found


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
