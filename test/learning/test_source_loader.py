"""The endless sequence of training images: the same whoever reads it, from wherever it is read."""

import itertools

import pytest
import torch

from s4net_core.config import PretrainSettings
from s4net_core.learning.augment import Augmentation
from s4net_core.learning.source_loader import AugmentedImages, source_loader, to_batch

TRAIN = [0, 2, 3, 5, 6, 7]


@pytest.fixture
def images(source):
    return AugmentedImages(source, TRAIN, Augmentation(PretrainSettings(), 48, 32, mirror=True), seed=3)


def take(count, *args, **kwargs):
    return list(itertools.islice(source_loader(*args, **kwargs), count))


def same(a, b):
    return all(
        torch.equal(x, y) for first, second in zip(a, b, strict=True) for x, y in zip(first, second, strict=True)
    )


def test_every_image_comes_once_before_any_comes_again(images):
    order = [images.index(position) for position in range(4 * len(TRAIN))]
    rounds = [order[i : i + len(TRAIN)] for i in range(0, len(order), len(TRAIN))]
    assert all(sorted(part) == TRAIN for part in rounds)
    assert len(set(map(tuple, rounds))) > 1
    assert [images.index(position) for position in reversed(range(len(order)))] == order[::-1]


def test_an_image_looks_different_every_time(images):
    first, again = 0, next(p for p in range(6, 12) if images.index(p) == images.index(0))
    assert not torch.equal(images[first][0], images[again][0])


def test_a_later_start_gives_the_same_batches(images):
    assert same(take(3, images, 4, first_step=5), take(8, images, 4)[5:])


def test_processes_share_what_one_would_see(images):
    whole = take(3, images, 4)
    parts = [take(3, images, 2, rank=rank, ranks=2) for rank in range(2)]
    joined = [tuple(torch.cat(pair) for pair in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert same(joined, whole)


def test_workers_read_the_same(images):
    assert same(take(3, images, 2, workers=2), take(3, images, 2))


def test_a_batch_has_the_shapes_that_losses_take(images):
    batch = to_batch(take(1, images, 2)[0], torch.device("cpu"))
    assert (batch.images.shape, batch.labels.shape, batch.depth.shape) == ((2, 3, 32, 48), (2, 32, 48), (2, 1, 32, 48))
    assert (batch.images.dtype, batch.labels.dtype, batch.depth.dtype) == (torch.float32, torch.int64, torch.float32)
    assert 0.5 < batch.images.max() <= 1
