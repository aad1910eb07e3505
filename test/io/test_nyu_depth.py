"""NYU Depth v2 in its published form: one HDF5 file with reversed axes, 894 classes, a table and a split beside it."""

import multiprocessing
import os

import h5py
import numpy as np
import pytest
import scipy.io
from matlab_files import create_mat73, finish_mat73, put_array, put_cells, text

from s4net_core.errors import LabelTableError, SourceSetError
from s4net_core.io.label_files.tables import nyu_label_map
from s4net_core.io.source_sets.opening import has_official_split, open_source_set
from s4net_core.io.source_sets.source_set import SourceSet

COUNT, WIDTH, HEIGHT = 5, 40, 24
TABLE = np.array([1 + (7 * i) % 40 for i in range(894)], np.uint8)
"""NYU40 id by class; the first class of NYU has id 1."""
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
LABELS = RNG.integers(0, 895, (COUNT, HEIGHT, WIDTH)).astype(np.uint16)
DEPTHS = RNG.uniform(0.7, 9.9, (COUNT, HEIGHT, WIDTH)).astype(np.float32)


SHARED = []
"""The source set that forked processes inherit: its open file cannot be sent to them."""


@pytest.fixture
def nyu(tmp_path):
    """The folder with the file, its split and its table of classes."""
    file = create_mat73(tmp_path / "nyu_depth_v2_labeled.mat")
    # MATLAB's arrays are H x W x 3 x N and H x W x N.
    put_array(file, "images", np.moveaxis(IMAGES, 0, 3))
    put_array(file, "labels", np.moveaxis(LABELS, 0, 2))
    put_array(file, "depths", np.moveaxis(DEPTHS, 0, 2))
    put_cells(file, file, "names", [text(name) for name in ("book", "bottle", "cabinet")])
    finish_mat73(file)
    scipy.io.savemat(tmp_path / "classMapping40.mat", {"mapClass": TABLE[None]})
    split = {"trainNdxs": np.array([[1], [4], [5]], float), "testNdxs": np.array([[2], [3]], float)}
    scipy.io.savemat(tmp_path / "splits.mat", split)
    return tmp_path


def expected_label(position):
    """Pixel by pixel: 894 -> 40 -> 37."""
    ids = [[0 if v == 0 else int(TABLE[v - 1]) for v in row] for row in LABELS[position]]
    return np.array([[id if id <= 37 else 0 for id in row] for row in ids])


@pytest.mark.parametrize(("split", "positions"), [("train", (0, 3, 4)), ("test", (1, 2)), ("all", range(COUNT))])
def test_images_are_upright_and_classes_mapped(nyu, split, positions):
    source = open_source_set(nyu, split=split, with_depth=True)
    assert isinstance(source, SourceSet)
    assert (len(source), source.name) == (len(positions), "nyu_depth_v2_labeled")
    for index, position in enumerate(positions):
        image = source[index]
        assert np.array_equal(image.color, IMAGES[position])
        assert np.array_equal(image.label, expected_label(position))
        assert image.label.dtype == np.uint8
        assert np.array_equal(image.depth, DEPTHS[position])


def read_in_fork(index):
    return SHARED[0]._file._process == os.getpid(), SHARED[0].label(index), SHARED[0]._file._process == os.getpid()


def test_processes_that_are_forked_open_the_file_for_themselves(nyu):
    SHARED[:] = [open_source_set(nyu, split="all")]
    SHARED[0].label(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        opened_before, label, opened_after = pool.apply(read_in_fork, (3,))
    assert (opened_before, opened_after) == (False, True)
    assert np.array_equal(label, expected_label(3))
    assert np.array_equal(SHARED[0].label(0), expected_label(0))


def test_the_file_itself_may_be_named(nyu):
    assert has_official_split(nyu)
    source = open_source_set(nyu / "nyu_depth_v2_labeled.mat")
    assert len(source) == 3
    assert source[0].depth is None


def test_without_the_table_its_origin_is_named_and_another_may_be_given(nyu):
    (nyu / "classMapping40.mat").rename(nyu / "elsewhere.mat")
    with pytest.raises(LabelTableError, match=r"classMapping40\.mat is missing.*Gupta.*--labels FILE"):
        open_source_set(nyu)
    source = open_source_set(nyu, map_labels=nyu_label_map(nyu / "elsewhere.mat"))
    assert np.array_equal(source.label(1), expected_label(3))


def test_without_the_split_nothing_is_guessed(nyu):
    (nyu / "splits.mat").unlink()
    with pytest.raises(SourceSetError, match=r"splits\.mat is missing"):
        open_source_set(nyu)
    assert len(open_source_set(nyu, split="all")) == COUNT


def test_a_split_of_another_data_set_is_refused(nyu):
    scipy.io.savemat(nyu / "splits.mat", {"trainNdxs": np.array([[1], [6]]), "testNdxs": np.array([[0]])})
    for split in ("train", "test"):
        with pytest.raises(SourceSetError, match=rf"{split}Ndxs has images outside of the 5"):
            open_source_set(nyu, split=split)


def test_a_foreign_or_truncated_file_is_refused(nyu):
    path = nyu / "nyu_depth_v2_labeled.mat"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceSetError, match="fetch it again"):
        open_source_set(nyu)
    path.unlink()
    file = create_mat73(path)
    put_array(file, "images", np.moveaxis(IMAGES, 0, 3))
    finish_mat73(file)
    with pytest.raises(SourceSetError, match="no variable 'depths'"):
        open_source_set(nyu)


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_read(nyu):
    with h5py.File(nyu / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file["labels"]
        file.create_dataset("labels", (COUNT, 1_000_000, 1_000_000), np.uint8)  # 5 TB of nothing
    source = open_source_set(nyu)
    with pytest.raises(SourceSetError, match=r"image 4 cannot be read \(an image of 1000000x1000000 has more than 50"):
        source.label(1)


@pytest.mark.parametrize(
    "shape", [(), (COUNT,), (COUNT, WIDTH), (COUNT, 3, WIDTH, HEIGHT), (1, WIDTH, HEIGHT)], ids=str
)
def test_labels_of_another_shape_are_named(nyu, shape):
    with h5py.File(nyu / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file["labels"]
        file.create_dataset("labels", shape, np.uint8)
    with pytest.raises(SourceSetError, match=r"no variable 'labels'|image 4 cannot be read .*fetch the file again"):
        open_source_set(nyu).label(1)


def test_a_split_of_no_numbers_is_refused(nyu):
    scipy.io.savemat(nyu / "splits.mat", {"trainNdxs": "all of them"})
    with pytest.raises(SourceSetError, match=r"splits\.mat: trainNdxs holds no numbers"):
        open_source_set(nyu)


def test_a_table_that_unpacks_to_more_than_is_read_is_refused(nyu, monkeypatch):
    monkeypatch.setattr("s4net_core.io.matlab.MAX_BYTES", 1_000_000)
    many = {"mapClass": np.zeros((1, 1_000_001), np.uint8)}
    scipy.io.savemat(nyu / "classMapping40.mat", many, do_compression=True)
    assert (nyu / "classMapping40.mat").stat().st_size < 10_000
    with pytest.raises(LabelTableError, match=r"classMapping40\.mat .*unpacks to more than 1000000 bytes"):
        open_source_set(nyu)
    few = {"mapClass": TABLE[None]}
    scipy.io.savemat(nyu / "classMapping40.mat", few, do_compression=True)
    assert len(open_source_set(nyu)) == 3


def test_a_damaged_image_is_named(nyu):
    path = nyu / "nyu_depth_v2_labeled.mat"
    with h5py.File(path) as file:
        place = file["images"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 64)
    with pytest.raises(SourceSetError, match=r"nyu_depth_v2_labeled\.mat, image 1"):
        open_source_set(nyu)[0]
