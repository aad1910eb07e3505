"""Classes of a user's own: their file, its errors, and how labels of other classes lead to them."""

from pathlib import Path

import numpy as np
import pytest
from own_classes import NAMES, five_classes, write_five

from s4net_core.classes import (
    ClassList,
    classes_beside,
    label_space_of,
    named_space,
    read_classes,
    write_classes,
)
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.labels import SUNRGBD37


@pytest.fixture
def five(tmp_path):
    return five_classes(tmp_path)


def test_a_file_gives_names_colours_and_synonyms(five):
    assert (five.name, five.names, five.no_class) == ("warehouse", NAMES, {5})
    assert five.colors[:2] == ((10, 20, 30), (200, 120, 40))
    assert len(set(five.colors)) == 5  # those without a colour get one of their own
    assert [five.id_of(name) for name in ("Pallet", "SKIDS", "euro_pallet", "skid 2", "forklift")] == [2, 2, 2, 2, None]


def test_a_file_may_name_itself(tmp_path):
    (tmp_path / "a.yaml").write_text("name: hall 3\nclasses: [floor, rack]\n")
    assert read_classes(tmp_path / "a.yaml").name == "hall 3"


def test_a_class_of_ones_own_may_be_called_other(tmp_path):
    (tmp_path / "a.yaml").write_text("[floor, {name: other, no_class: true}]")
    space = read_classes(tmp_path / "a.yaml")
    assert (space.id_of("other"), space.id_of("void"), space.id_of("unlabelled")) == (2, 0, 0)


def test_names_that_differ_in_their_number_are_different_classes():
    space = named_space("gates", ["gate 1", "gate 2"])
    assert [space.id_of(name) for name in ("gate-1", "Gate_2", "gate 3")] == [1, 2, None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[floor, floor]", "'floor' names two classes"),
        ("[floor, {name: rack, synonyms: [Floor]}]", "'floor' names two classes, floor and rack"),
        ("[floor, {name: rack, color: [0, 0, 300]}]", r"classes\.2\.color\.3: .*255 \(it is 300\)"),
        ("[floor, {name: rack, color: [0, 0]}]", r"classes\.2\.color"),
        ("[floor, {name: rack, colour: [0, 0, 0]}]", r"classes\.2\.colour: Extra inputs"),
        ("[floor, {name: rack, color: red}]", r"classes\.2\.color"),
        ("[floor]", "at least 2 items"),
        (f"[{', '.join(f'c{i}' for i in range(255))}]", "at most 254 items"),
        ("[floor, 7]", r"classes\.2"),
        ("[floor, unlabelled]", "'unlabelled', which means no class"),
        ("[floor, '']", "at least 1 character"),
        ("[{name: a, no_class: true}, {name: b, no_class: true}]", "every class has no_class"),
        ("name: sunrgbd37\nclasses: [floor, rack]", "'sunrgbd37' is that of built-in classes"),
        ("floor", "valid dictionary"),
        ("", "valid dictionary"),
        ("[floor", "is no YAML"),
        ("a: &a [x]\nclasses: *a", "aliases"),
    ],
)
def test_a_bad_file_is_refused_with_its_entry(tmp_path, text, problem):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SettingsError, match=problem) as caught:
        read_classes(tmp_path / "bad.yaml")
    assert "bad.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(SettingsError, match=r"no classes 'nonsense': give sunrgbd37.* or a file of classes"):
        label_space_of("nonsense")
    with pytest.raises(SettingsError, match=r"file of classes nowhere\.yaml cannot be read"):
        read_classes(Path("nowhere.yaml"))


def test_the_setting_means_a_built_in_name_or_a_file(tmp_path, five):
    assert label_space_of("sunrgbd37") is SUNRGBD37
    assert label_space_of(str(tmp_path / "warehouse.yaml")) == five
    with pytest.raises(SettingsError, match="import-model"):
        label_space_of("native")


def test_a_description_is_the_same_classes_again(five):
    again = ClassList.model_validate_json(ClassList.of(five).model_dump_json()).space()
    assert again == five
    assert again.synonyms == five.synonyms


def test_classes_lie_beside_labels(tmp_path, five):
    assert classes_beside(tmp_path) is None
    write_classes(tmp_path, SUNRGBD37)  # what readers assume needs no file
    assert classes_beside(tmp_path) is None
    write_classes(tmp_path, five)
    (tmp_path / "room").mkdir()
    assert classes_beside(tmp_path) == classes_beside(tmp_path / "room") == five


def test_rooms_of_different_classes_are_not_one_set(tmp_path):
    write_five(tmp_path / "set" / "a", "classes.yaml")
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "set" / "b" / "classes.yaml").write_text("[floor, shelf]")
    with pytest.raises(SettingsError, match=r"mixes the classes 'a' \(5 classes.*'b' \(2 classes: floor, shelf\)"):
        classes_beside(tmp_path / "set")


class TestTable:
    """`LabelSpace.table_to`"""

    def test_ids_follow_names_and_synonyms(self, five):
        data = named_space("data", ["Skid", "wall", "floors", "void"])
        assert data.table_to(five)[[0, 1, 2, 3, 4, 255]].tolist() == [0, 2, 5, 1, 0, 0]

    def test_the_same_names_keep_their_ids(self, five):
        assert named_space("other", NAMES).table_to(five)[:6].tolist() == [0, 1, 2, 3, 4, 5]

    def test_a_class_without_counterpart_is_refused_with_both_spaces(self, five):
        with pytest.raises(
            S4NetError, match=r"'sunrgbd37' \(37 classes.*'warehouse' \(5 classes.*cabinet, bed"
        ) as caught:
            SUNRGBD37.table_to(five)
        assert "wall," not in str(caught.value).partition("counterpart of")[2]  # a synonym of rest

    def test_what_means_no_class_needs_no_counterpart(self, five):
        assert five.table_to(named_space("data", NAMES[:4]))[5] == 0


def test_what_means_no_class_is_not_shown(five):
    label = np.array([[0, 1, 5], [5, 2, 255]], np.uint8)
    assert five.without_no_class(label).tolist() == [[0, 1, 0], [0, 2, 255]]
    assert five.shown_ids == [1, 2, 3, 4]
    assert SUNRGBD37.without_no_class(label) is label
