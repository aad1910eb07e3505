"""Label space: names, order, colours and the two ways of writing 'unlabelled'."""

import numpy as np
import pytest

from s4net_core.errors import S4NetError
from s4net_core.labels import (
    ADE20K_NAMES,
    ADE20K_TO_SUNRGBD37,
    LABEL_MAPS,
    LABEL_SPACES,
    SUNRGBD37,
    from_mask,
    nyu40_to_sunrgbd37,
    table_map,
    to_mask,
)


def test_sun_rgbd_has_37_classes_in_the_published_order():
    assert SUNRGBD37.num_classes == 37 == len(SUNRGBD37.colors)
    ids = {name: i + 1 for i, name in enumerate(SUNRGBD37.names)}
    assert [ids[name] for name in ("wall", "floor", "lamp", "bathtub", "bag")] == [1, 2, 35, 36, 37]
    assert LABEL_SPACES["sunrgbd37"] is SUNRGBD37


def test_names_and_colours_are_unique():
    assert len(set(SUNRGBD37.names)) == len(set(SUNRGBD37.colors)) == 37


def test_colours_follow_the_ids_and_unlabelled_is_black():
    label = np.array([[0, 1, 37], [255, 2, 38]], np.uint8)
    color = SUNRGBD37.colorize(label)
    assert color.shape == (2, 3, 3)
    assert [tuple(c) for c in color[0]] == [(0, 0, 0), SUNRGBD37.colors[0], SUNRGBD37.colors[36]]
    assert (color[1, 0] == 0).all()
    assert (color[1, 2] == 0).all()


def test_unlabelled_is_0_inside_and_255_outside():
    inside, outside = np.array([[0, 1, 37]], np.uint8), np.array([[255, 1, 37]], np.uint8)
    assert (to_mask(inside) == outside).all()
    assert (from_mask(outside) == inside).all()
    assert (from_mask(inside) == inside).all()
    assert to_mask(inside).dtype == from_mask(outside).dtype == np.uint8


def test_nyu40_keeps_its_first_37_and_drops_the_other_ones():
    label = np.array([[0, 1, 36, 37], [38, 39, 40, 255]], np.uint8)
    assert nyu40_to_sunrgbd37(label).tolist() == [[0, 1, 36, 37], [0, 0, 0, 0]]


def test_a_table_maps_8_and_16_bit_ids_and_what_it_lacks_is_unlabelled():
    to_37 = table_map(np.array([0, 7, 37], np.uint8))
    assert to_37(np.array([[0, 1], [2, 3]], np.uint8)).tolist() == [[0, 7], [37, 0]]
    wide = to_37(np.array([[2, 3, 40000, 65535]], np.uint16))
    assert (wide.tolist(), wide.dtype) == ([[37, 0, 0, 0]], np.uint8)


def test_ade20k_has_its_150_names_in_the_order_of_its_benchmark():
    assert len(ADE20K_NAMES) == len(set(ADE20K_NAMES)) == 150
    known = {0: "wall", 3: "floor", 8: "windowpane", 57: "pillow", 89: "television receiver", 115: "bag", 149: "flag"}
    assert {index: ADE20K_NAMES[index] for index in known} == known


def test_ade20k_finds_its_counterparts_by_name():
    ours = {name: id and SUNRGBD37.names[id - 1] for name, id in zip(ADE20K_NAMES, ADE20K_TO_SUNRGBD37, strict=True)}
    expected = {"wall": "wall", "windowpane": "window", "refrigerator": "fridge", "swivel chair": "chair", "sky": 0}
    assert {name: ours[name] for name in expected} == expected
    missing = set(SUNRGBD37.names) - set(ours.values())
    assert missing == {"paper", "shower_curtain", "whiteboard", "night_stand"}, "ADE20K has no such classes"


def test_ids_in_files_of_ade20k_start_at_1():
    assert LABEL_MAPS["ade20k"](np.array([[0, 1, 9, 150, 151]], np.uint8)).tolist() == [[0, 1, 9, 0, 0]]


def test_the_order_of_nyu40_is_the_one_of_the_toolboxes(shared_data):
    import csv

    with (shared_data / "labels" / "scannetv2-labels.combined.tsv").open() as file:
        pairs = {(int(r["nyu40id"]), r["nyu40class"]) for r in csv.DictReader(file, delimiter="\t") if r["nyu40id"]}
    renamed = {"fridge": "refridgerator", "tv": "television"}
    for id, name in pairs:
        if 1 <= id <= 37:
            ours = SUNRGBD37.names[id - 1]
            assert renamed.get(ours, ours).replace("_", " ") == name.replace("_", " ")


def test_foreign_ids_are_named():
    SUNRGBD37.check(np.array([[0, 37, 255]], np.uint8), "label/7.png")
    with pytest.raises(S4NetError, match=r"label/7\.png has class ids \[38, 200\].*1\.\.37"):
        SUNRGBD37.check(np.array([[38, 200, 1]], np.uint8), "label/7.png")


def test_the_overlay_mixes_colour_and_label_and_leaves_unlabelled_pixels_alone():
    color = np.full((3, 5, 3), (200, 100, 0), np.uint8)
    label = np.zeros((3, 5), np.uint8)
    label[1, 4] = 2  # floor
    picture = SUNRGBD37.overlay(color, label, 0.5)
    np.testing.assert_allclose(picture[1, 4], np.mean([(200, 100, 0), (152, 223, 138)], axis=0), atol=1)
    picture[1, 4] = color[1, 4]
    np.testing.assert_array_equal(picture, color)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, (200, 100, 0)), (1.0, (152, 223, 138))])
def test_the_overlay_reaches_both_ends(alpha, expected):
    color = np.full((2, 3, 3), (200, 100, 0), np.uint8)
    picture = SUNRGBD37.overlay(color, np.full((2, 3), 2, np.uint8), alpha)
    assert picture.dtype == np.uint8
    assert (picture == expected).all()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("chair", "chair"),
        ("Chairs", "chair"),
        ("chair-2", "chair"),
        ("floor mat", "floor_mat"),
        ("Shower_Curtain", "shower_curtain"),
        ("book", "books"),
        ("shelf", "shelves"),
        ("couch", "sofa"),
        ("Coffee-Tables 3", "table"),
        ("refrigerator", "fridge"),
    ],
)
def test_classes_are_known_by_the_names_that_people_write(written, name):
    assert SUNRGBD37.names[SUNRGBD37.id_of(written) - 1] == name


def test_every_class_is_known_by_its_own_name():
    assert [SUNRGBD37.id_of(name) for name in SUNRGBD37.names] == list(range(1, 38))


def test_no_class_and_an_unknown_class_are_not_the_same():
    assert [SUNRGBD37.id_of(name) for name in ("unlabelled", "__ignore__", "_background_", "otherprop")] == [0] * 4
    assert SUNRGBD37.id_of("spaceship") is None
    assert SUNRGBD37.id_of("") is None


def test_synonyms_agree_with_the_table_of_scannet(shared_data):
    """ScanNet's table gives raw categories NYU40 ids; ids 1 to 37 are our classes."""
    lines = (shared_data / "labels/scannetv2-labels.combined.tsv").read_text().splitlines()[1:]
    table = {fields[1]: int(fields[4] or 0) for fields in (line.split("\t") for line in lines)}
    shared = [name for name in SUNRGBD37.synonyms if name in table]
    assert len(shared) > 30
    assert {name: SUNRGBD37.id_of(name) for name in shared} == {name: table[name] for name in shared}
