"""SUN RGB-D in its published form: MATLAB files of the toolbox, one folder an image, depth with rotated bits."""

import os
import sys

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from matlab_files import cell_strings, create_mat73, finish_mat73, put_array, put_cells

from s4net_core.errors import SourceSetError
from s4net_core.io.source_sets.opening import has_official_split, open_source_set
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.io.source_sets.sunrgbd import SunRgbd
from s4net_core.labels import LABEL_MAPS

FOLDERS = (
    "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103-resize",
    "kv1/NYUdata/NYU0001",
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000168-000005617966",
    "realsense/sa/2014_10_21-18_18_54-1311000073",
    "kv1/b3dodata/img_0063",
)
TRAIN, TEST = (1, 2, 4), (0, 3)
SIZES = ((40, 24), (28, 20), (32, 22), (36, 28), (30, 18))
"""Width and height; every camera of SUN RGB-D has its own."""


def millimetres(index):
    """Depth of an image: a ramp from left to right, with a hole, and one pixel beyond 8 m."""
    width, height = SIZES[index]
    depth = np.tile(np.linspace(700, 4000 + index, width).astype(np.uint16), (height, 1))
    depth[:2, :3] = 0
    depth[-1, -1] = 9321
    return depth


def label(index):
    width, height = SIZES[index]
    ids = np.arange(width * height).reshape(height, width) % 38
    return np.roll(ids, index, axis=1).astype(np.uint8)


def rotated(depth):
    """As the PNGs hold it: the 16 bits of each value turned to the left by three."""
    return np.array([[((int(v) << 3) | (int(v) >> 13)) & 0xFFFF for v in row] for row in depth], np.uint16)


def meta(order=FOLDERS):
    fields = ["sequenceName", "rgbpath", "depthpath", "sensorType"]
    entries = np.empty((1, len(order)), dtype=[(field, object) for field in fields])
    for i, folder in enumerate(order):
        base = f"/n/fs/sun3d/data/SUNRGBD/{folder}" + ("//" if folder.startswith("realsense") else "/")
        number = FOLDERS.index(folder)
        entries[0, i] = (
            f"SUNRGBD/{folder}",
            f"{base}image/{number:07d}.jpg",
            f"{base}{'depth' if number == 1 else 'depth_bfx'}/{number:07d}.png",
            folder.split("/")[0],
        )
    return entries


@pytest.fixture
def release(tmp_path):
    """SUNRGBD.zip and SUNRGBDtoolbox.zip, unpacked beside each other."""
    root = tmp_path / "sun"
    for i, folder in enumerate(FOLDERS):
        width, height = SIZES[i]
        for name in ("image", "depth", "depth_bfx"):
            (root / "SUNRGBD" / folder / name).mkdir(parents=True)
        color = np.full((height, width, 3), (250, 10 * i, 40 * i), np.uint8)
        cv2.imwrite(str(root / f"SUNRGBD/{folder}/image/{i:07d}.jpg"), color[..., ::-1])
        cv2.imwrite(str(root / f"SUNRGBD/{folder}/depth/{i:07d}.png"), rotated(millimetres(i) // 2))
        cv2.imwrite(str(root / f"SUNRGBD/{folder}/depth_bfx/{i:07d}.png"), rotated(millimetres(i)))
    toolbox = root / "SUNRGBDtoolbox"
    file = create_mat73(toolbox / "Metadata/SUNRGBD2Dseg.mat")
    group = file.create_group("SUNRGBD2Dseg")
    put_cells(file, group, "seglabelall", [label(i).astype(np.uint16) + 500 for i in range(5)])
    put_cells(file, group, "seglabel", [label(i) if i % 2 else label(i).astype(float) for i in range(5)])
    finish_mat73(file)
    scipy.io.savemat(toolbox / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": meta()})
    (toolbox / "traintestSUNRGBD").mkdir()
    paths = [f"/data1/SUNRGBD/{f}" + ("/" if f.startswith("realsense") else "") for f in FOLDERS]
    split = {"alltrain": [paths[i] for i in TRAIN], "alltest": [paths[i] for i in TEST]}
    cells = {name: cell_strings(folders) for name, folders in split.items()}
    scipy.io.savemat(toolbox / "traintestSUNRGBD/allsplit.mat", cells)
    return root


@pytest.mark.parametrize(("split", "expected"), [("train", TRAIN), ("test", TEST), ("all", range(5))])
def test_every_image_of_a_part_has_its_own_colour_and_label(release, split, expected):
    source = open_source_set(release, split=split)
    assert isinstance(source, SourceSet)
    assert (len(source), source.name, source.label_space.name) == (len(expected), "sun", "sunrgbd37")
    for position, i in enumerate(expected):
        image = source[position]
        assert image.color.shape[1::-1] == SIZES[i]
        np.testing.assert_allclose(image.color[3, 5], (250, 10 * i, 40 * i), atol=3)
        assert np.array_equal(image.label, label(i))
        assert np.array_equal(source.label(position), label(i))
        assert image.label.dtype == np.uint8
        assert image.depth is None


def test_depth_is_in_metres_with_filled_holes_and_ends_at_8(release):
    for position, i in enumerate(TRAIN):
        depth = open_source_set(release, with_depth=True)[position].depth
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, np.minimum(millimetres(i) / 1000, 8.0), rtol=1e-6)


def test_the_folder_of_images_leads_to_the_toolbox_beside_it(release):
    assert len(open_source_set(release / "SUNRGBD", split="all")) == 5
    assert has_official_split(release)
    for other in ("SUNRGBD/kv1", "SUNRGBDtoolbox"):
        assert not has_official_split(release / other)


def test_an_empty_path_is_not_taken_for_the_current_folder(release, monkeypatch):
    monkeypatch.chdir(release)
    with pytest.raises(SourceSetError, match=r"source\.path is empty"):
        open_source_set("")
    assert not has_official_split("")


def test_the_order_of_the_labels_is_that_of_the_meta_file(release):
    path = release / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
    path.unlink()
    scipy.io.savemat(
        path.with_name("SUNRGBDMeta3DBB_v2.mat"), {"SUNRGBDMeta": meta([FOLDERS[i] for i in (3, 1, 0, 2, 4)])}
    )
    with pytest.raises(SourceSetError, match="must show the same pixels"):
        open_source_set(release, split="test")[0]


def test_plain_millimetres_are_not_taken_for_rotated_ones(release):
    path = release / f"SUNRGBD/{FOLDERS[1]}/depth_bfx/0000001.png"
    cv2.imwrite(str(path), millimetres(1) + 1)
    with pytest.raises(SourceSetError, match=r"0000001\.png is not depth of SUN RGB-D.*depth_bfx"):
        open_source_set(release, with_depth=True)[0]


def test_images_that_are_not_there_are_counted(release):
    (release / f"SUNRGBD/{FOLDERS[4]}/image/0000004.jpg").unlink()
    with pytest.raises(SourceSetError, match=r"lacks 1 of 3 files.*0000004\.jpg.*SUNRGBD\.zip"):
        open_source_set(release)
    assert len(open_source_set(release, split="test")) == 2


@pytest.mark.parametrize(
    "name", ["Metadata/SUNRGBD2Dseg.mat", "Metadata/SUNRGBDMeta.mat", "traintestSUNRGBD/allsplit.mat"]
)
@pytest.mark.parametrize("keep", [None, 0, 300])
def test_a_missing_or_truncated_file_of_the_toolbox_is_named(release, name, keep):
    path = release / "SUNRGBDtoolbox" / name
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[:keep])
    with pytest.raises(SourceSetError, match=rf"{path.name}.*fetch"):
        open_source_set(release)


@pytest.mark.parametrize("name", ["Metadata/SUNRGBD2Dseg.mat", "traintestSUNRGBD/allsplit.mat"])
@pytest.mark.parametrize("kind", ["pipe", "sparse"])
def test_files_of_the_toolbox_are_read_within_bounds(release, name, kind):
    path = release / "SUNRGBDtoolbox" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(SourceSetError, match=rf"{path.name} cannot be read .*fetch it again"):
        open_source_set(release)


def test_labels_that_are_no_references_are_refused(release):
    path = release / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"
    with h5py.File(path, "r+") as file:
        del file["SUNRGBD2Dseg/seglabel"]
        file["SUNRGBD2Dseg"].create_dataset("seglabel", (10**6, 10**6), np.uint8)
    with pytest.raises(SourceSetError, match="1000000000000 labels but SUNRGBDMeta names 5 images"):
        open_source_set(release)
    with h5py.File(path, "r+") as file:
        del file["SUNRGBD2Dseg/seglabel"]
        file["SUNRGBD2Dseg"].create_dataset("seglabel", (5, 1), np.uint8)
    with pytest.raises(SourceSetError, match=r"SUNRGBD2Dseg\.mat, image 2 cannot be read"):
        open_source_set(release).label(0)
    with h5py.File(path, "r+") as file:
        del file["SUNRGBD2Dseg"]
        file.create_dataset("SUNRGBD2Dseg", (5, 1), np.uint8)
    with pytest.raises(SourceSetError, match=r"has no SUNRGBD2Dseg\.seglabel"):
        open_source_set(release)


def test_files_of_different_releases_are_refused(release):
    toolbox = release / "SUNRGBDtoolbox"
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat", "r+") as file:
        refs = file["SUNRGBD2Dseg/seglabel"][:3]
        del file["SUNRGBD2Dseg/seglabel"]
        file["SUNRGBD2Dseg"].create_dataset("seglabel", data=refs, dtype=h5py.ref_dtype)
    with pytest.raises(SourceSetError, match="3 labels but SUNRGBDMeta names 5 images"):
        open_source_set(release)
    foreign = cell_strings(["/data1/SUNRGBD/kv1/elsewhere", f"/data1/SUNRGBD/{FOLDERS[1]}"])
    scipy.io.savemat(toolbox / "traintestSUNRGBD/allsplit.mat", {"alltrain": foreign, "alltest": foreign})
    with pytest.raises(SourceSetError, match="has 2 images to train on, but SUNRGBDMeta has 1 of them"):
        open_source_set(release)


def test_ids_outside_of_the_37_classes_are_named(release):
    with h5py.File(release / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat", "r+") as file:
        put_array(file, "new", np.full((20, 28), 300, np.uint16))
        file["SUNRGBD2Dseg/seglabel"][1, 0] = file["new"].ref
    with pytest.raises(SourceSetError, match=r"SUNRGBD2Dseg\.mat, image 2 has class ids \[300\]"):
        open_source_set(release).label(0)


def test_labels_are_not_mapped_twice(release):
    with pytest.raises(SourceSetError, match="leave --labels out"):
        open_source_set(release, map_labels=LABEL_MAPS["nyu40"])


def test_without_h5py_the_remedy_is_named(release, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceSetError, match=r"pip install h5py"):
        open_source_set(release)


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(SourceSetError, match=r"SUNRGBD\.zip and SUNRGBDtoolbox\.zip"):
        SunRgbd(tmp_path)


def test_the_published_split_has_5285_and_5050_images_in_disjoint_folders(shared_data):
    from s4net_core.io.source_sets.sunrgbd import _positions, _relative

    path = shared_data / "labels/sunrgbd_allsplit.mat"
    found = scipy.io.loadmat(path)
    folders = [str(cell[0]) for name in ("alltest", "alltrain") for cell in found[name].ravel()]
    colors = [_relative(folder) / "image" / "x.jpg" for folder in folders]
    assert len(set(colors)) == 10335
    assert _positions(colors, path, "test") == list(range(5050))
    assert _positions(colors, path, "train") == list(range(5050, 10335))
