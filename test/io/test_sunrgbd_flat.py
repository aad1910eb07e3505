"""SUN RGB-D as repositories share it: which folders are found, and that number, not order, pairs the files."""

import cv2
import numpy as np
import pytest

from s4net_core.errors import SourceSetError
from s4net_core.io.source_sets.opening import has_official_split, open_source_set
from s4net_core.labels import LABEL_MAPS

WIDTH, HEIGHT = 40, 24
PARTS = {"train": (1, 2, 3), "test": (1, 2)}
OFFSET = {"train": 5050, "test": 0}
"""Where images are numbered through both parts, those to test on come first."""


def class_of(split, number):
    return number + (10 if split == "train" else 20)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def write_set(root, *, color, label, depth=None):
    """Images of one colour, class and depth each; `color`, `label` and `depth` name a file by part and number."""
    for split, numbers in PARTS.items():
        for number in numbers:
            size = (HEIGHT, WIDTH)
            id = class_of(split, number)
            write(root / color(split, number), np.full((*size, 3), 6 * id, np.uint8))
            write(root / label(split, number), np.full(size, id, np.uint8))
            if depth:
                write(root / depth(split, number), np.full(size, (100 * id) << 3, np.uint16))


FORMS = {
    "image, label37": {
        "color": lambda split, n: f"image/{split}/img-{n:06d}.jpg",
        "label": lambda split, n: f"label37/{split}/img37labels-{n:06d}.png",
        "depth": lambda split, n: f"depth/{split}/{n:08d}.png",
    },
    "the archives as they unpack": {
        "color": lambda split, n: f"SUNRGBD-{split}_images/img-{n:06d}.jpg",
        "label": lambda split, n: f"sunrgbd_train_test_labels/img-{n + OFFSET[split]:06d}.png",
        "depth": lambda split, n: f"sunrgbd_{split}_depth/{n}.png",
    },
    "semantic37, labels numbered through both parts": {
        "color": lambda split, n: f"rgb/{split}/img-{n:06d}.jpg",
        "label": lambda split, n: f"semantic37/{split}/img-{n + OFFSET[split]:06d}.png",
        "depth": lambda split, n: f"depth/{split}/{n}.png",
    },
    "annotations": {
        "color": lambda split, n: f"{split}/img-{n:06d}.jpg",
        "label": lambda split, n: f"annotations/{split}/img-{n + OFFSET[split]:06d}.png",
    },
    "train37labels": {
        "color": lambda split, n: f"images/{split}/img-{n:06d}.png",
        "label": lambda split, n: f"{split}37labels/img37labels-{n:06d}.png",
    },
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_both_parts_are_found_with_the_label_of_each_image(tmp_path, form):
    write_set(tmp_path, **form)
    assert has_official_split(tmp_path)
    for split, numbers in PARTS.items():
        source = open_source_set(tmp_path, split=split, with_depth=True)
        assert len(source) == len(numbers)
        for position, number in enumerate(numbers):
            id, image = class_of(split, number), source[position]
            assert (image.label == id).all()
            np.testing.assert_allclose(image.color, 6 * id, atol=3)
            if "depth" in form:
                np.testing.assert_allclose(image.depth, id / 10, rtol=1e-6)
            else:
                assert image.depth is None
    whole = open_source_set(tmp_path, split="all")
    assert [int(whole.label(i)[0, 0]) for i in range(5)] == [11, 12, 13, 21, 22]


def test_images_numbered_through_both_parts_are_paired_too(tmp_path):
    for number in (5051, 10335):
        write(tmp_path / f"image/train/img-{number:06d}.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        write(
            tmp_path / f"sunrgbd_train_test_labels/img-{number:06d}.png", np.full((HEIGHT, WIDTH), number % 7, np.uint8)
        )
    write(tmp_path / "sunrgbd_train_test_labels/img-000001.png", np.full((HEIGHT, WIDTH), 30, np.uint8))
    source = open_source_set(tmp_path)
    assert [int(source.label(i)[0, 0]) for i in range(len(source))] == [5051 % 7, 10335 % 7]


def test_the_first_labels_of_a_common_folder_are_never_taken_for_training(tmp_path):
    write(tmp_path / "SUNRGBD-train_images/img-000001.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    write(tmp_path / "sunrgbd_train_test_labels/img-000001.png", np.full((HEIGHT, WIDTH), 30, np.uint8))
    with pytest.raises(SourceSetError, match=r"no file for 1 of 1 images to train on, first .*img-000001\.jpg"):
        open_source_set(tmp_path)


def test_a_gap_in_the_labels_is_named_instead_of_shifting_them(tmp_path):
    form = FORMS["image, label37"]
    write_set(tmp_path, **form)
    (tmp_path / form["label"]("train", 2)).unlink()
    with pytest.raises(SourceSetError, match=r"no file for 1 of 3 images to train on, first .*img-000002\.jpg"):
        open_source_set(tmp_path)


def test_an_image_that_is_missing_is_left_out_with_its_label(tmp_path):
    form = FORMS["image, label37"]
    write_set(tmp_path, **form)
    (tmp_path / form["color"]("train", 2)).unlink()
    source = open_source_set(tmp_path)
    assert [int(source.label(i)[0, 0]) for i in range(len(source))] == [11, 13]


def test_a_part_that_is_not_there_is_named(tmp_path):
    write_set(tmp_path, **FORMS["image, label37"])
    for path in (tmp_path / "image/test").iterdir():
        path.unlink()
    with pytest.raises(SourceSetError, match="no image to test on"):
        open_source_set(tmp_path, split="test")
    (tmp_path / "image/test").rmdir()
    assert not has_official_split(tmp_path)
    with pytest.raises(SourceSetError, match=r"lacks image/test/ with label37/test/"):
        open_source_set(tmp_path, split="test")


def test_labels_of_13_classes_are_refused(tmp_path):
    form = FORMS["image, label37"]
    write_set(tmp_path, color=form["color"], label=lambda split, n: f"label13/{split}/img13labels-{n:06d}.png")
    with pytest.raises(SourceSetError, match=r"13 classes only.*sunrgbd_train_test_labels\.tar\.gz"):
        open_source_set(tmp_path)


def test_labels_of_nyu40_can_be_mapped(tmp_path):
    form = FORMS["image, label37"]
    write_set(tmp_path, **form)
    write(tmp_path / form["label"]("test", 1), np.full((HEIGHT, WIDTH), 39, np.uint8))
    with pytest.raises(SourceSetError, match=r"class ids \[39\]"):
        open_source_set(tmp_path, split="test").label(0)
    assert not open_source_set(tmp_path, split="test", map_labels=LABEL_MAPS["nyu40"]).label(0).any()


def test_lists_pair_images_and_labels_by_name(tmp_path):
    for i, name in enumerate(("b-7", "a-9", "c-1")):
        write(tmp_path / f"RGB/{name}.jpg", np.full((HEIGHT, WIDTH, 3), 50 * i, np.uint8))
        write(tmp_path / f"labels/{name}.png", np.full((HEIGHT, WIDTH), i + 1, np.uint8))
    (tmp_path / "train.txt").write_text("RGB/b-7.jpg labels/b-7.png\nRGB/a-9.jpg\n\n")
    (tmp_path / "test.txt").write_text("RGB/c-1.jpg\n")
    train = open_source_set(tmp_path)
    assert [int(train.label(i)[0, 0]) for i in range(len(train))] == [1, 2]
    assert (open_source_set(tmp_path, split="test")[0].label == 3).all()
    (tmp_path / "test.txt").write_bytes(b"RGB/\xff.jpg")
    with pytest.raises(SourceSetError, match=r"test\.txt is no list of images"):
        open_source_set(tmp_path, split="test")
    (tmp_path / "labels/a-9.png").unlink()
    with pytest.raises(SourceSetError, match=r"train\.txt names 1 files that are not there, first .*labels/a-9\.png"):
        open_source_set(tmp_path)
