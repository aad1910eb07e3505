"""Endless augmented batches of a source set, read ahead by worker processes; batch k is the same in a resumed run."""

import itertools
import os
import signal
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.augment import Augmentation

ORDER, CHANGES = 0, 1
"""Purpose of a random number: keeps those for the order of the images apart from those for their changes."""

Item = tuple[Tensor, Tensor, Tensor]


class AugmentedImages(Dataset[Item]):
    """The endless sequence of training images: every image once before any repeats, augmented differently each time.

    The item at a position depends on the seed and the position alone, so that any process can make it.

    Args:
        source: labelled images.
        indices: positions in `source` to train on.
        augmentation: applied to each image.
        seed: of the order and of the changes.
    """

    def __init__(self, source: SourceSet, indices: Sequence[int], augmentation: Augmentation, seed: int) -> None:
        self._source = source
        self._indices = list(indices)
        self._augmentation = augmentation
        self._seed = seed
        self._round, self._order = -1, np.zeros(0, np.int64)

    def __getitem__(self, position: int) -> Item:
        """Colour (3, H, W) uint8, class ids (H, W) uint8 and depth (1, H, W) float32 in metres, 0 = none."""
        return self._augmentation(self._source[self.index(position)], draw_seed(self._seed, CHANGES, position))

    def index(self, position: int) -> int:
        """Which image of the source set stands at a position."""
        round, offset = divmod(position, len(self._indices))
        if round != self._round:
            rng = np.random.default_rng((self._seed, ORDER, round))
            self._round, self._order = round, rng.permutation(self._indices)
        return int(self._order[offset])


def draw_seed(*parts: int) -> int:
    """A seed for torch from a few integers; changing any of them gives an unrelated seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def source_loader(
    images: AugmentedImages, batch: int, *, first_step: int = 0, rank: int = 0, ranks: int = 1, workers: int = 0
) -> Iterator[Item]:
    """Batches for one of the processes that share each step.

    Args:
        images: the same in all processes.
        batch: images per step and process; each of the `ranks` processes gets a different part.
        first_step: steps that were done before.
        rank, ranks: which process this is, and of how many.
        workers: processes that read ahead, at most one a core; 0 = this one reads.

    Returns:
        Endless; stacked along a first dimension, on the CPU; see `to_batch`.
    """
    steps = itertools.count(first_step)
    positions = (list(range((step * ranks + rank) * batch, (step * ranks + rank + 1) * batch)) for step in steps)
    loader = DataLoader(
        images,
        batch_sampler=positions,
        num_workers=min(workers, len(os.sched_getaffinity(0))),
        multiprocessing_context="fork" if workers else None,  # open files of a source set cannot be sent to a process
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker if workers else None,
    )
    return iter(loader)


def to_batch(items: Item, device: torch.device) -> SourceBatch:
    """Convert items of `source_loader` for the losses; bytes are moved to the device and become floats there."""
    return SourceBatch.of_bytes(*(part.to(device, non_blocking=True) for part in items))


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the training process handles Ctrl-C
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork; it would wait for them
