"""Published label tables lead to the 37 classes by id, and a foreign table is refused."""

import csv
import os

import numpy as np
import pytest
import scipy.io

from s4net_core.errors import LabelTableError
from s4net_core.io.label_files.tables import label_map, nyu_label_map, scannet_label_map
from s4net_core.labels import LABEL_MAPS, SUNRGBD37

SCANNET_ROWS = """id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class
1\twall\twall\t8277\t1\t12\twall\twall
255\tbag\tbag\t3\t37\t7\tbag\tbag
56\ttrash can\ttrash can\t1090\t39\t6\tgarbage bin\totherfurniture
1357\tmattress "sofa"\tcouch\t1\t6\t9\tsofa\tsofa
1200\tthing\tthing\t1\t\t\t\t
"""


def test_scannet_ids_go_through_nyu40_to_the_37_classes(tmp_path):
    path = tmp_path / "scannetv2-labels.combined.tsv"
    path.write_text(SCANNET_ROWS)
    to_37 = scannet_label_map(path)
    label = to_37(np.array([[0, 1, 255], [56, 1357, 1200], [2, 1358, 65535]], np.uint16))
    assert label.tolist() == [[0, 1, 37], [0, 6, 0], [0, 0, 0]]
    assert label.dtype == np.uint8
    assert to_37(np.array([[1, 255]], np.uint8)).tolist() == [[1, 37]]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"id\tname\n1\twall\n", b"id\tnyu40id\n", b"id\tnyu40id\n1\twall\n", b"id\tnyu40id\nwall\t1\n"),
        *(b"id\tnyu40id\n999999999999999\t1\n", b"id\tnyu40id\n-1\t1\n", b"id\tnyu40id\n1\t300\n"),
        *(b"\x89PNG\r\n\x1a\n\xff\0", b"id\tnyu40id\n" + b"1" * 200_000),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_foreign_or_truncated_scannet_table_is_refused(tmp_path, content):
    path = tmp_path / "labels.tsv"
    path.write_bytes(content)
    with pytest.raises(LabelTableError, match=r"labels\.tsv"):
        scannet_label_map(path)


def test_a_scannet_table_that_is_too_large_or_a_pipe_is_not_read(tmp_path):
    with (tmp_path / "large.tsv").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe.tsv")
    for name, told in (("large", "at most 67108864 are read"), ("pipe", "it is no regular file")):
        with pytest.raises(LabelTableError, match=rf"{name}\.tsv cannot be read .*{told}"):
            scannet_label_map(tmp_path / f"{name}.tsv")


def test_a_missing_scannet_table_is_named_with_the_remedy(tmp_path):
    with pytest.raises(LabelTableError, match="comes with ScanNet"):
        scannet_label_map(tmp_path / "labels.tsv")


def test_the_last_row_of_an_id_counts_as_in_the_tools_of_scannet(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("id\tnyu40id\n188\t38\n188\t8\n")
    assert scannet_label_map(path)(np.array([[188]], np.uint16)).tolist() == [[8]]


def test_the_published_scannet_table_agrees_with_its_own_names(shared_data):
    path = shared_data / "labels/scannetv2-labels.combined.tsv"
    to_37 = scannet_label_map(path)
    renamed = {"refridgerator": "fridge", "television": "tv"}
    with path.open(encoding="utf-8", newline="") as file:
        names = {int(row["id"]): row["nyu40class"] for row in csv.DictReader(file, delimiter="\t")}
    for raw, name in names.items():
        ours = renamed.get(name, name.replace(" ", "_"))
        expected = SUNRGBD37.names.index(ours) + 1 if ours in SUNRGBD37.names else 0
        assert to_37(np.array([[raw]], np.uint16)).tolist() == [[expected]], name
    assert len(names) > 500


def test_nyu_classes_go_through_nyu40_by_the_order_of_the_table(tmp_path):
    nyu40 = np.zeros((1, 894), np.uint8)
    nyu40[0, :4], nyu40[0, -1] = (23, 40, 3, 38), 37
    path = tmp_path / "classMapping40.mat"
    scipy.io.savemat(path, {"mapClass": nyu40})
    label = nyu_label_map(path)(np.array([[0, 1, 2, 3], [4, 894, 895, 60000]], np.uint16))
    assert label.tolist() == [[0, 23, 0, 3], [0, 37, 0, 0]]


@pytest.mark.parametrize(
    "content",
    [
        {"mapClass": np.ones((1, 13))},
        {"other": np.ones((1, 894))},
        {"mapClass": "x" * 894},
        {"mapClass": np.full((1, 894), 41)},
    ],
    ids=["few", "other name", "text", "too large"],
)
def test_a_foreign_nyu_table_is_refused(tmp_path, content):
    scipy.io.savemat(tmp_path / "table.mat", content)
    with pytest.raises(LabelTableError, match=r"table\.mat.*mapClass"):
        nyu_label_map(tmp_path / "table.mat")


def test_the_published_nyu_table_agrees_with_its_own_names(shared_data):
    path = shared_data / "labels/nyu_classMapping40.mat"
    found = scipy.io.loadmat(path, squeeze_me=True)
    renamed = {"refridgerator": "fridge", "television": "tv"}
    names = [renamed.get(name, name.replace(" ", "_")) for name in map(str, found["className"])]
    ours = nyu_label_map(path)(np.arange(1, 895, dtype=np.uint16)[None])[0]
    for name, nyu40, id in zip(found["allClassName"], found["mapClass"], ours, strict=True):
        target = names[nyu40 - 1]
        assert id == (SUNRGBD37.names.index(target) + 1 if target in SUNRGBD37.names else 0), name
    ids = {str(name): int(id) for name, id in zip(found["allClassName"], ours, strict=True)}
    examples = {"chair": "chair", "refridgerator": "fridge", "floor mat": "floor_mat", "lamp": "lamp", "bag": "bag"}
    assert {SUNRGBD37.names[ids[name] - 1] for name in examples} == set(examples.values())
    assert ids["light"] == 0, "otherstructure"


def test_a_map_is_named_by_its_data_set_or_by_its_table(tmp_path):
    (tmp_path / "labels.tsv").write_text(SCANNET_ROWS)
    assert label_map("nyu40") is LABEL_MAPS["nyu40"]
    assert label_map(str(tmp_path / "labels.tsv"))(np.array([[1357]], np.uint16)).tolist() == [[6]]
    with pytest.raises(LabelTableError, match=r"'cityscapes' maps no labels.*nyu40, ade20k.*classMapping40\.mat"):
        label_map("cityscapes")
    with pytest.raises(LabelTableError, match=r"gone\.mat is missing"):
        label_map(str(tmp_path / "gone.mat"))
