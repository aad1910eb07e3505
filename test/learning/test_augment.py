"""What random changes do to colour, labels and depth together: nothing that a camera could not have seen."""

import warnings

import numpy as np
import pytest
import torch

from s4net_core.config import PretrainSettings
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.learning.augment import Augmentation, _as_jpeg

WIDTH, HEIGHT = 96, 64
OFF = {"max_zoom": 1.0, "color_jitter": 0.0, "hue_jitter": 0.0, "camera_jitter": 0.0}
DEPTH = 2.0


def augmentation(mirror=False, **settings):
    return Augmentation(PretrainSettings(**OFF | settings), WIDTH, HEIGHT, mirror=mirror)


@pytest.fixture
def image():
    """An object of class 3, 24 x 16 pixels, a little off the centre of a 192 x 128 image; holes in the depth."""
    label = np.ones((128, 192), np.uint8)
    label[60:76, 92:116] = 3
    color = np.stack([label * 60, label * 20, 200 - label], axis=-1).astype(np.uint8)
    depth = np.full(label.shape, DEPTH, np.float32)
    depth[::8] = 0
    return LabelledImage(color, label, depth)


def test_switched_off_it_only_resizes(image):
    color, label, depth = augmentation()(image, 5)
    expected = image.resized(WIDTH, HEIGHT)
    assert np.array_equal(color.permute(1, 2, 0), expected.color)
    assert np.array_equal(label, expected.label)
    assert np.array_equal(depth[0], expected.depth)
    assert (color.dtype, label.dtype, depth.dtype) == (torch.uint8, torch.uint8, torch.float32)


def test_half_of_the_images_are_mirrored_with_their_labels_and_depth(image):
    image.depth[:, :50] = 1.0
    plain = augmentation()(image, 0)
    mirrored = 0
    for seed in range(40):
        parts = augmentation(mirror=True)(image, seed)
        is_mirrored = torch.equal(parts[1], plain[1].flip(-1))
        expected = [part.flip(-1) for part in plain] if is_mirrored else plain
        assert all(torch.equal(part, wanted) for part, wanted in zip(parts, expected, strict=True))
        mirrored += is_mirrored
    assert 10 < mirrored < 30


def test_what_is_shown_larger_is_nearer(image):
    """Pinhole camera: an object of width s at depth d is f s / d pixels wide, so width times depth is a constant."""
    zooms = []
    for seed in range(40):
        _, label, depth = augmentation(max_zoom=2.0)(image, seed)
        across, down = (label == 3).any(0), (label == 3).any(1)
        if across[0] or across[-1] or down[0] or down[-1]:
            continue  # cut off
        columns, rows = across.sum(), down.sum()
        (distance,) = depth[depth > 0].unique()
        assert abs(columns * distance - 12 * DEPTH) <= distance, seed  # a pixel
        assert abs(rows * distance - 8 * DEPTH) <= distance, seed
        zooms.append(DEPTH / distance)
    assert 1 <= min(zooms) < 1.2
    assert 1.6 < max(zooms) < 2.1
    assert len(zooms) > 20


def test_a_zoom_shows_colours_where_their_labels_are(image):
    for seed in range(5):
        color, label, _ = augmentation(max_zoom=2.0, mirror=True)(image, seed)
        pure = (color[0] == 60) | (color[0] == 180)  # others are mixtures at the object's border
        assert pure.float().mean() > 0.9
        assert torch.equal(color[0][pure], 60 * label[pure])


def test_a_zoom_keeps_holes_of_the_depth(image):
    _, _, depth = augmentation(max_zoom=2.0)(image, 3)
    assert 0.08 < (depth == 0).float().mean() < 0.18  # of 0.125
    assert len(depth.unique()) == 2


def test_an_image_without_depth_has_none_afterwards(image):
    _, _, depth = augmentation(max_zoom=2.0)(LabelledImage(image.color, image.label), 3)
    assert depth.shape == (1, HEIGHT, WIDTH)
    assert not depth.any()


@pytest.mark.parametrize("name", ["color_jitter", "hue_jitter", "camera_jitter"])
def test_colours_change_but_not_labels_or_depth(image, name):
    plain, changed = augmentation()(image, 4), augmentation(**{name: 0.4})(image, 4)
    assert not torch.equal(changed[0], plain[0])
    assert torch.equal(changed[1], plain[1])
    assert torch.equal(changed[2], plain[2])


def test_what_a_camera_does_warns_of_nothing(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(4):
            augmentation(camera_jitter=1.0)(image, seed)


def test_a_packed_image_is_nearly_the_same(image):
    plain = augmentation()(image, 0)[0]
    fine, coarse = ((_as_jpeg(plain, quality).float() - plain).abs().mean() for quality in (98, 20))
    assert 0 < fine < 0.3 * coarse


def test_another_camera_is_another_colour_sharpness_and_noise_by_the_seed(image):
    """Among some seeds are images with every step of a camera, and without."""
    seen = [augmentation(camera_jitter=1.0)(image, seed)[0] for seed in range(12)]
    for seed, color in enumerate(seen):
        assert (color.shape, color.dtype) == ((3, HEIGHT, WIDTH), torch.uint8)
        assert torch.equal(augmentation(camera_jitter=1.0)(image, seed)[0], color)
    shades = [len(color.flatten(1).unique(dim=1).T) for color in seen]
    assert min(shades) < 150 < 1500 < max(shades)  # smooth or as it was, and noisy
    balance = torch.stack([color[0].float().mean() / color[2].float().mean() for color in seen])
    assert balance.std() > 0.05


def test_a_weak_change_of_camera_changes_little(image):
    plain = augmentation()(image, 0)[0].float()
    weak, strong = (
        np.mean([(augmentation(camera_jitter=s)(image, seed)[0].float() - plain).abs().mean() for seed in range(8)])
        for s in (0.1, 1.0)
    )
    assert 0 < weak < 0.3 * strong


def test_the_seed_decides_everything_and_torchs_own_numbers_stay(image):
    augment = augmentation(mirror=True, max_zoom=1.5, color_jitter=0.3, camera_jitter=1.0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(image, 9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, augment(image, 9), strict=True))
    assert not torch.equal(first[0], augment(image, 10)[0])
