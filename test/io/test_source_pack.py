"""Packed source sets give the batches of what they were made from, keep its split, and are refused when damaged."""

import json
import os
import tracemalloc
import zlib
from dataclasses import astuple

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scenes import make_room_frames, make_source_images

from s4net_core.errors import SourceSetError
from s4net_core.io.images.pixels import DEFAULT_MEGAPIXELS, limit_pixels
from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.files import FolderSourceSet, write_source_set
from s4net_core.io.source_sets.opening import has_official_split, open_source_set
from s4net_core.io.source_sets.pack_writer import write_pack
from s4net_core.io.source_sets.packed import PackedSourceSet, read_pack_info
from s4net_core.io.source_sets.source_set import LabelledImage, SourceSet
from s4net_core.labels import SUNRGBD37, LabelSpace

WIDTH, HEIGHT = 40, 24


@pytest.fixture
def folder(tmp_path):
    """Six images, some larger than others; one knows no depth."""
    frames = [make_room_frames(1, *((64, 48) if i % 2 else (56, 50)), seed=i)[0] for i in range(6)]
    images = [LabelledImage(f.color, f.label, None if i == 4 else f.depth) for i, f in enumerate(frames)]
    write_source_set(tmp_path / "rooms", images, quality=80)
    return tmp_path / "rooms"


@pytest.fixture
def pack(folder, tmp_path):
    write_pack(tmp_path / "rooms.s4pack", {"all": FolderSourceSet(folder, with_depth=True)}, WIDTH, HEIGHT)
    return tmp_path / "rooms.s4pack"


def batches(source, **size):
    arguments = {"width": WIDTH, "height": HEIGHT} | size
    return SourceBatches(source, 4, mirror=True, rng=np.random.default_rng(1), cache_megabytes=0, **arguments)


def test_a_pack_gives_the_very_batches_of_its_source(folder, pack):
    packed = batches(open_source_set(pack, with_depth=True))
    original = batches(open_source_set(folder, with_depth=True))
    for _ in range(4):
        for a, b in zip(astuple(packed.next()), astuple(original.next()), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_labels_alone_and_depth_where_it_is_known(folder, pack):
    source, original = open_source_set(pack, with_depth=True), open_source_set(folder)
    assert isinstance(source, SourceSet)
    assert (len(source), source.name, source.label_space.name) == (6, "rooms", "sunrgbd37")
    for i in range(6):
        assert np.array_equal(source.label(i), original[i].resized(WIDTH, HEIGHT).label)
    assert [source[i].depth is None for i in range(6)] == [i == 4 for i in range(6)]
    assert open_source_set(pack)[0].depth is None


def test_jpeg_is_smaller_and_nearly_the_same(folder, pack, tmp_path):
    write_pack(tmp_path / "small", {"all": open_source_set(folder)}, WIDTH, HEIGHT, quality=95)
    assert (tmp_path / "small").stat().st_size < pack.stat().st_size
    small, exact = open_source_set(tmp_path / "small"), open_source_set(pack)
    for i in range(6):
        difference = np.abs(small[i].color.astype(int) - exact[i].color)
        assert 0 < difference.mean() < 4
        assert np.array_equal(small[i].label, exact[i].label)


def test_the_header_tells_what_it_was_made_from(folder, pack, tmp_path):
    info = read_pack_info(pack)
    assert (info.width, info.height, info.quality, info.parts, info.depth) == (WIDTH, HEIGHT, 0, {"all": 6}, True)
    assert info.label_space == SUNRGBD37
    whole = FolderSourceSet(folder, with_depth=True)
    again = write_pack(tmp_path / "again", {"all": whole}, 20, 16, quality=50, source="rooms of a test")
    assert (again.source, again.source_sha256) == ("rooms of a test", info.source_sha256)
    label = cv2.imread(str(folder / "label/000002.png"), cv2.IMREAD_UNCHANGED)
    label[0, 0] += 1
    cv2.imwrite(str(folder / "label/000002.png"), label)
    assert write_pack(tmp_path / "changed", {"all": whole}, WIDTH, HEIGHT).source_sha256 != info.source_sha256


def test_the_file_is_one_of_safetensors(pack):
    with safe_open(str(pack), framework="numpy") as file:
        assert set(file.keys()) == {"index", "images", "labels"}
        assert file.get_tensor("index").shape[0] == 6


def test_the_official_split_stays(folder, tmp_path):
    parts = {"train": FolderSourceSet(folder), "test": FolderSourceSet(folder)}
    parts["test"]._files = parts["test"]._files[4:]
    write_pack(tmp_path / "both", parts, WIDTH, HEIGHT)
    assert has_official_split(tmp_path / "both")
    sets = {split: open_source_set(tmp_path / "both", split=split) for split in ("train", "test", "all")}
    assert {split: len(source) for split, source in sets.items()} == {"train": 6, "test": 2, "all": 8}
    assert np.array_equal(sets["test"][1].color, sets["train"][5].color)
    assert np.array_equal(sets["all"][6].label, sets["train"][4].label)


def test_without_an_official_split_every_part_is_the_whole(pack):
    assert not has_official_split(pack)
    assert [len(open_source_set(pack, split=split)) for split in ("train", "test", "all")] == [6, 6, 6]


def test_a_part_that_was_not_packed_is_named(folder, tmp_path):
    write_pack(tmp_path / "train", {"train": FolderSourceSet(folder)}, WIDTH, HEIGHT)
    assert not has_official_split(tmp_path / "train")
    with pytest.raises(SourceSetError, match="no images to test on, only to train on"):
        open_source_set(tmp_path / "train", split="test")


@pytest.mark.parametrize("keep", [0, 7, 300, -1])
def test_a_truncated_file_is_refused(pack, keep):
    content = pack.read_bytes()
    pack.write_bytes(content[:keep])
    with pytest.raises(SourceSetError, match=r"rooms\.s4pack .*(cut off|cannot be read)"):
        open_source_set(pack)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("shopping list, long enough to be a header" * 9)
    with pytest.raises(SourceSetError, match=r"notes\.txt is no packed source set"):
        open_source_set(path)
    save_file({"index": np.zeros((1, 8), np.int64)}, str(path))
    with pytest.raises(SourceSetError, match=r"notes\.txt is no packed source set"):
        open_source_set(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceSetError, match=r"gone\.s4pack"):
        PackedSourceSet(tmp_path / "gone.s4pack")


def test_a_damaged_image_is_named_and_the_other_ones_are_not(pack):
    source = open_source_set(pack)
    with safe_open(str(pack), framework="numpy") as file:
        row = file.get_tensor("index")[2]
    content = bytearray(pack.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little") + 6 * 8 * 8
    content[begin + int(row[0]) + 40] ^= 1
    pack.write_bytes(content)
    source = open_source_set(pack)
    with pytest.raises(SourceSetError, match=r"rooms\.s4pack, image 2 is damaged"):
        source[2]
    assert source[1].color.shape == source[3].color.shape == (HEIGHT, WIDTH, 3)
    assert source.label(2).shape == (HEIGHT, WIDTH)


@pytest.fixture
def one_megapixel():
    limit_pixels(1)
    yield
    limit_pixels(DEFAULT_MEGAPIXELS)


def changed(pack, index=None, labels=None, images=None, **header):
    """Another pack in the file's place: some of its tensors, and some values of its header."""
    with safe_open(str(pack), framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        info = json.loads(file.metadata()["s4net_source_pack"]) | header
    given = {"index": index, "labels": labels, "images": images}
    tensors |= {name: value for name, value in given.items() if value is not None}
    save_file(tensors, str(pack), metadata={"s4net_source_pack": json.dumps(info)})
    return open_source_set(pack, with_depth=True)


def test_a_pack_of_images_beyond_the_limit_is_refused_by_its_header(pack, one_megapixel):
    with pytest.raises(SourceSetError, match=r"rooms\.s4pack.*1001x1000 has more than 1 million .*max_megapixels"):
        changed(pack, width=1001, height=1000)


def test_an_image_that_is_larger_than_the_header_says_is_not_decoded(pack):
    data = np.frombuffer(cv2.imencode(".png", np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))[1].tobytes(), np.uint8)
    index = np.zeros((6, 8), np.int64)
    index[:, 1], index[:, 5] = len(data), zlib.crc32(data.data)
    with pytest.raises(SourceSetError, match=r"image 3 is no image of the pack's size: pack .* again"):
        changed(pack, index, images=data)[3]


@pytest.mark.parametrize("packed", [zlib.compress(bytes(50_000_000)), zlib.compress(b"short"), b"no zlib"])
def test_a_label_takes_no_more_memory_than_the_header_says(pack, packed):
    labels, index = np.frombuffer(packed, np.uint8), np.zeros((6, 8), np.int64)
    index[:, 4], index[:, 7] = len(labels), zlib.crc32(labels.data)
    source = changed(pack, index, labels)
    tracemalloc.start()
    with pytest.raises(SourceSetError, match=r"image 2 is damaged"):
        source.label(2)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_an_index_that_differs_from_the_header_is_not_read(pack):
    with pytest.raises(SourceSetError, match=r"index of \[3, 8\] numbers, its header says \[6, 8\]"):
        changed(pack, index=np.zeros((3, 8), np.int64))
    with pytest.raises(SourceSetError, match=r"parts\.all"):
        changed(pack, parts={"all": -1})


def test_a_pipe_in_place_of_a_pack_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.s4pack")
    with pytest.raises(SourceSetError, match=r"pipe\.s4pack cannot be read \(it is no regular file\)"):
        PackedSourceSet(tmp_path / "pipe.s4pack")


def test_a_pack_keeps_the_synonyms_and_colours_of_own_classes_and_which_means_no_class(tmp_path):
    own = LabelSpace("yard", ("floor", "pallet", "rest"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), {"skid": "pallet"}, {3})
    label = np.tile(np.array([1, 2, 3, 0], np.uint8), (12, 4))
    write_source_set(tmp_path / "yard", [LabelledImage(np.zeros((12, 16, 3), np.uint8), label)], label_space=own)
    folder = open_source_set(tmp_path / "yard")
    write_pack(tmp_path / "yard.s4pack", {"all": folder}, 16, 12)
    found = open_source_set(tmp_path / "yard.s4pack").label_space
    assert found == folder.label_space == own
    assert found.synonyms == own.synonyms
    of_weights = LabelSpace("weights", ("skid", "floor"), ((0, 0, 0), (1, 1, 1)))
    packed = open_source_set(tmp_path / "yard.s4pack", label_space=of_weights)
    assert np.array_equal(packed[0].label, np.tile(np.array([2, 1, 0, 0], np.uint8), (12, 4)))


def test_a_file_of_a_newer_version_is_refused(folder, tmp_path):
    path = tmp_path / "newer"
    write_pack(path, {"all": FolderSourceSet(folder)}, WIDTH, HEIGHT)
    path.write_bytes(path.read_bytes().replace(rb"\"format\":1", rb"\"format\":2"))
    with pytest.raises(SourceSetError, match=r"newer has an unknown header \(format.*newer s4net"):
        open_source_set(path)


def test_a_failure_leaves_what_was_there(folder, pack):
    before = pack.read_bytes()
    (folder / "color/000003.jpg").write_bytes(b"")
    with pytest.raises(SourceSetError, match=r"000003\.jpg"):
        write_pack(pack, {"all": FolderSourceSet(folder)}, WIDTH, HEIGHT)
    assert pack.read_bytes() == before
    assert sorted(path.name for path in pack.parent.iterdir()) == ["rooms", "rooms.s4pack"]


def test_the_training_classes_are_weighted_by_labels_alone(pack):
    source = open_source_set(pack)
    source._images = None
    assert sum(int((source.label(i) > 0).sum()) for i in range(6)) == 6 * WIDTH * HEIGHT


def test_many_images_need_no_room_in_the_header(tmp_path):
    class Many:
        name, label_space = "many", SUNRGBD37
        image = make_source_images(1, 16, 12)[0]

        def __len__(self):
            return 300

        def __getitem__(self, index):
            return LabelledImage(self.image.color + np.uint8(index % 5), self.image.label)

    many = Many()
    write_pack(tmp_path / "many", {"all": many}, 16, 12)
    packed = open_source_set(tmp_path / "many")
    assert len(packed) == 300
    assert np.array_equal(packed[299].color, many[299].color)
