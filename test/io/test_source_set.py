"""Labelled source sets: what is found, what is refused, how batches are drawn."""

from collections import Counter
from dataclasses import astuple

import cv2
import numpy as np
import pytest
import torch
from scenes import make_source_images, write_source_set

from s4net_core.errors import SourceSetError
from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.files import FolderSourceSet
from s4net_core.io.source_sets.source_set import LabelledImage, SourceSet, split
from s4net_core.labels import LABEL_MAPS

WIDTH, HEIGHT = 40, 24


@pytest.fixture
def source(tmp_path):
    """Six images of one colour and one class each, so that a batch tells which images are in it."""
    images = [
        LabelledImage(np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8), np.full((HEIGHT, WIDTH), i + 1, np.uint8))
        for i in range(6)
    ]
    return write_source_set(tmp_path / "source", images)


def test_all_folders_with_colour_and_labels_are_found_in_the_order_of_their_names(tmp_path):
    images = make_source_images(3, WIDTH, HEIGHT)
    for name, image in zip(("b/scan", "a", "c"), images, strict=True):
        write_source_set(tmp_path / "set" / name, [image])
    source = FolderSourceSet(tmp_path / "set")
    assert isinstance(source, SourceSet)
    assert (len(source), source.name, source.label_space.name) == (3, "set", "sunrgbd37")
    for index, expected in enumerate((images[1], images[0], images[2])):
        assert np.array_equal(source[index].label, expected.label)


def test_folders_that_are_links_are_read_too_and_a_link_to_a_parent_ends_nowhere(tmp_path):
    write_source_set(tmp_path / "elsewhere" / "room", make_source_images(3))
    write_source_set(tmp_path / "set" / "own", make_source_images(2))
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere" / "room")
    (tmp_path / "set" / "own" / "back").symlink_to(tmp_path / "set")
    assert len(FolderSourceSet(tmp_path / "set")) == 5
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert len(FolderSourceSet(tmp_path / "link")) == 5


def test_images_without_a_label_are_left_out(source):
    next(iter((source.path / "label").iterdir())).unlink()
    assert len(FolderSourceSet(source.path)) == 5


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceSetError, match=r"nowhere is no folder"):
        FolderSourceSet(tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_taken_for_the_current_folder(path, source, monkeypatch):
    monkeypatch.chdir(source.path)
    with pytest.raises(SourceSetError, match=r"source\.path is empty"):
        FolderSourceSet(path)


def test_labels_are_read_without_their_colour(source):
    for color in (source.path / "color").iterdir():
        color.write_bytes(b"")
    assert [int(source.label(index)[0, 0]) for index in range(6)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(SourceSetError, match=r"000002\.jpg"):
        source[2]


def test_a_source_set_of_other_ids_is_mapped_before_its_ids_are_checked(source):
    ids = np.repeat(np.array([[0, 1, 37, 38, 40, 255]], np.uint8), 4, axis=0)
    cv2.imwrite(str(source.path / "label/000000.png"), ids)
    with pytest.raises(SourceSetError, match=r"\[38, 40\].*convert --labels"):
        source.label(0)
    mapped = FolderSourceSet(source.path, map_labels=LABEL_MAPS["nyu40"])
    assert mapped.label(0)[2].tolist() == [0, 1, 37, 0, 0, 0]


def test_an_empty_source_set_is_refused(tmp_path):
    (tmp_path / "room/color").mkdir(parents=True)
    (tmp_path / "room/label").mkdir()
    with pytest.raises(SourceSetError, match="is empty"):
        FolderSourceSet(tmp_path)


def test_class_ids_outside_the_label_space_are_named(source):
    label = source.path / "label/000002.png"
    cv2.imwrite(str(label), np.full((HEIGHT, WIDTH), 40, np.uint8))
    with pytest.raises(SourceSetError, match=rf"{label.name} has class ids \[40\]"):
        source[2]


def test_255_is_unlabelled(source):
    cv2.imwrite(str(source.path / "label/000000.png"), np.full((HEIGHT, WIDTH), 255, np.uint8))
    assert not source[0].label.any()


def test_colour_and_label_of_different_size_are_refused(source):
    cv2.imwrite(str(source.path / "label/000001.png"), np.ones((WIDTH, HEIGHT), np.uint8))
    with pytest.raises(SourceSetError, match=rf"{HEIGHT}x{WIDTH} but 000001.jpg is {WIDTH}x{HEIGHT}"):
        source[1]


def test_a_coloured_label_picture_is_refused(source):
    cv2.imwrite(str(source.path / "label/000001.png"), np.ones((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(SourceSetError, match="one channel"):
        source[1]


def test_a_truncated_image_is_named(source):
    path = source.path / "color/000000.jpg"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SourceSetError, match=path.name):
        source[0]


def test_depth_is_read_where_it_is_asked_for_and_mirrored_with_its_image(tmp_path):
    ramp = np.tile(np.arange(1, WIDTH + 1, dtype=np.float32), (HEIGHT, 1)) / 8
    color = np.repeat((ramp * 40).astype(np.uint8)[..., None], 3, axis=2)
    write_source_set(tmp_path, [LabelledImage(color, np.ones((HEIGHT, WIDTH), np.uint8), ramp)])
    assert FolderSourceSet(tmp_path)[0].depth is None
    source = FolderSourceSet(tmp_path, with_depth=True)
    np.testing.assert_allclose(source[0].depth, ramp, atol=5e-4)
    batch = SourceBatches(source, 32, WIDTH, HEIGHT, True, np.random.default_rng(0), cache_megabytes=1).next()
    assert batch.depth.shape == (32, 1, HEIGHT, WIDTH)
    rises_in_color = batch.images[:, 0, 0, -1] > batch.images[:, 0, 0, 0]
    rises_in_depth = batch.depth[:, 0, 0, -1] > batch.depth[:, 0, 0, 0]
    assert rises_in_color.any()
    assert not rises_in_color.all()
    assert torch.equal(rises_in_color, rises_in_depth)


def test_depth_of_another_size_is_refused(tmp_path):
    image = make_source_images(1)[0]
    write_source_set(tmp_path, [image])
    (tmp_path / "depth").mkdir()
    cv2.imwrite(str(tmp_path / "depth/000000.png"), np.ones((5, 7), np.uint16))
    with pytest.raises(SourceSetError, match=r"depth/000000.png is 7x5"):
        FolderSourceSet(tmp_path, with_depth=True)[0]


def test_split_is_repeatable_disjoint_and_complete(source):
    train, holdout = split(source, 2)
    assert (train, holdout) == split(source, 2)
    assert len(holdout) == 2
    assert sorted(train + holdout) == list(range(6))
    assert holdout != [0, 1]


def test_a_split_that_leaves_nothing_to_train_on_is_refused(source):
    with pytest.raises(SourceSetError, match=r"guard\.holdout"):
        split(source, 6)


def batches(source, **options):
    arguments = {"batch": 4, "width": 32, "height": 16, "mirror": False, "rng": np.random.default_rng(0)}
    arguments |= {"cache_megabytes": 1} | options
    return SourceBatches(source, **arguments)


def test_a_batch_is_rgb_from_0_to_1_with_ids_of_the_same_pixels(source):
    batch = batches(source).next()
    images, labels = batch.images, batch.labels
    assert (images.shape, images.dtype) == ((4, 3, 16, 32), torch.float32)
    assert (labels.shape, labels.dtype) == ((4, 16, 32), torch.int64)
    expected = (labels.float() - 1) * 40 / 255
    assert (images - expected[:, None]).abs().max() < 3 / 255


def test_every_image_comes_once_before_any_comes_again(source):
    drawn = batches(source)
    seen = [int(label[0, 0]) for _ in range(6) for label in drawn.next().labels]
    assert Counter(seen) == dict.fromkeys(range(1, 7), 4)
    assert sorted(seen[:6]) == sorted(seen[6:12])
    assert seen[:6] != seen[6:12]


def test_only_the_given_positions_are_drawn(source):
    drawn = batches(source, indices=[1, 4])
    assert {int(label[0, 0]) for label in drawn.next().labels} == {2, 5}


def test_no_position_at_all_is_refused(source):
    with pytest.raises(SourceSetError, match="no image is left"):
        batches(source, indices=[])


def test_mirroring_turns_colour_and_label_together_about_half_of_the_time(tmp_path):
    image = make_source_images(1, WIDTH, HEIGHT)[0]
    drawn_from = write_source_set(tmp_path, [image])
    drawn = batches(drawn_from, batch=40, width=WIDTH, height=HEIGHT, mirror=True)
    plain = torch.from_numpy(drawn_from[0].color.copy()).permute(2, 0, 1) / 255
    plain_label = torch.from_numpy(drawn_from[0].label).long()
    batch = drawn.next()
    images, labels = batch.images, batch.labels
    mirrored = [torch.equal(label, plain_label.flip(1)) for label in labels]
    assert 10 < sum(mirrored) < 30
    for color, label, turned in zip(images, labels, mirrored, strict=True):
        assert torch.equal(color, plain.flip(2) if turned else plain)
        assert turned or torch.equal(label, plain_label)


def test_the_cache_changes_nothing_but_the_number_of_reads(source):
    class Counting:
        def __init__(self):
            self.reads = 0
            self.name, self.label_space = source.name, source.label_space

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            self.reads += 1
            return source[index]

        def label(self, index):
            return source.label(index)

    with_cache, without = Counting(), Counting()
    cached, uncached = batches(with_cache), batches(without, cache_megabytes=0)
    for _ in range(6):
        for a, b in zip(astuple(cached.next()), astuple(uncached.next()), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert (with_cache.reads, without.reads) == (6, 24)


def test_labels_are_picked_and_never_mixed_when_resized():
    label = np.zeros((24, 40), np.uint8)
    label[:, 20:] = 37
    resized = LabelledImage(np.zeros((24, 40, 3), np.uint8), label).resized(13, 7)
    assert resized.color.shape == (7, 13, 3)
    assert set(np.unique(resized.label)) == {0, 37}


def test_the_source_set_of_the_demo_is_read(demo):
    source = FolderSourceSet(demo / "source")
    assert len(source) == 360
    image = source[123]
    assert image.color.shape == (120, 160, 3)
    assert np.unique(image.label).size > 3


class Spoilt:
    """A source set of ten images of which some fail while they are in `bad`."""

    name = "spoilt"

    def __init__(self, bad, error):
        self.bad, self.error, self.asked = set(bad), error, Counter()

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.asked[index] += 1
        if index in self.bad:
            raise self.error
        return LabelledImage(np.full((16, 32, 3), index, np.uint8), np.full((16, 32), index + 1, np.uint8))


@pytest.mark.parametrize("error", [SourceSetError("label is 3x3"), OSError(5, "Input/output error")])
def test_an_image_that_cannot_be_read_is_left_out_counted_and_taken_again_when_it_is_back(error, caplog):
    source = Spoilt({3}, error)
    drawn = batches(source, batch=9, cache_megabytes=0)
    seen = Counter(index for _ in range(4) for index, _ in drawn.next().keys)
    assert seen == {index: 4 for index in range(10) if index != 3}
    assert drawn.left_out == 1
    assert caplog.text.count("left out") == 1
    source.bad.clear()
    assert 3 in [index for _ in range(2) for index, _ in drawn.next().keys]
    assert drawn.left_out == 0


def test_too_many_images_that_cannot_be_read_are_an_error_that_names_one_and_all_are_tried_again():
    lost = FileNotFoundError(2, "No such file or directory", "/disk/3.jpg")
    source = Spoilt({3, 5}, lost)
    drawn = batches(source, batch=10)
    with pytest.raises(SourceSetError, match=r"spoilt: 2 of 10 images cannot be used.*/disk/3\.jpg") as told:
        drawn.next()
    assert told.value.__cause__ is lost  # so that the learner's thread tries again
    source.bad.clear()
    assert len(drawn.next()) == 10


def test_the_only_image_may_not_be_left_out():
    source = Spoilt({0}, SourceSetError("bad"))
    with pytest.raises(SourceSetError, match="1 of 1 images"):
        batches(source, indices=[0]).next()
