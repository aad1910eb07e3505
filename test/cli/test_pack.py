"""`s4net pack` and `s4net bench source` as a user runs them."""

import cv2
import numpy as np
import pytest
from scenes import make_source_images, write_source_set

from s4net_core.cli.main import main
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.io.source_sets.packed import read_pack_info

SIZE = ("--set", "model.width=48", "--set", "model.height=32")


@pytest.fixture
def source(tmp_path):
    write_source_set(tmp_path / "source", make_source_images(5))
    return tmp_path / "source"


def pack(*arguments):
    return main(["pack", *map(str, arguments), *SIZE])


def test_a_folder_is_packed_at_the_size_of_training(source, tmp_path, capsys):
    assert pack(source, tmp_path / "out.s4pack") == 0
    assert "out.s4pack: 5 images, 48x32, PNG, no depth" in capsys.readouterr().out
    packed, original = open_source_set(tmp_path / "out.s4pack"), open_source_set(source)
    assert np.array_equal(packed[3].color, original[3].resized(48, 32).color)
    assert read_pack_info(tmp_path / "out.s4pack").source == str(source)
    assert main(["pack", str(source), str(tmp_path / "new.s4pack")]) == 0
    assert read_pack_info(tmp_path / "new.s4pack").width == 480
    assert read_pack_info(tmp_path / "new.s4pack").height == 360


def test_both_parts_of_the_official_split_are_packed(tmp_path, capsys):
    for split, count in (("train", 3), ("test", 2)):
        for name, array in (("image", np.zeros((24, 40, 3), np.uint8)), ("label37", np.ones((24, 40), np.uint8))):
            (tmp_path / "sun" / name / split).mkdir(parents=True)
            for number in range(1, count + 1):
                cv2.imwrite(str(tmp_path / f"sun/{name}/{split}/img-{number:06d}.png"), array)
    assert pack(tmp_path / "sun", tmp_path / "both.s4pack") == 0
    assert "3 images to train on, 2 images to test on" in capsys.readouterr().out
    assert [len(open_source_set(tmp_path / "both.s4pack", split=s)) for s in ("train", "test", "all")] == [3, 2, 5]
    assert pack(tmp_path / "sun", tmp_path / "train.s4pack", "--split", "train", "--quality", 90) == 0
    assert read_pack_info(tmp_path / "train.s4pack").parts == {"train": 3}
    assert pack(tmp_path / "both.s4pack", tmp_path / "again.s4pack") == 0
    assert read_pack_info(tmp_path / "again.s4pack").parts == {"train": 3, "test": 2}


def test_what_is_there_of_an_official_split_keeps_its_name(tmp_path, capsys):
    for name, array in (("image", np.zeros((24, 40, 3), np.uint8)), ("label37", np.ones((24, 40), np.uint8))):
        (tmp_path / "sun" / name / "train").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / f"sun/{name}/train/img-000001.png"), array)
    assert pack(tmp_path / "sun", tmp_path / "train.s4pack") == 0
    assert pack(tmp_path / "train.s4pack", tmp_path / "again.s4pack") == 0
    assert read_pack_info(tmp_path / "again.s4pack").parts == {"train": 1}
    assert pack(tmp_path / "again.s4pack", tmp_path / "test.s4pack", "--split", "test") == 2
    assert "no images to test on" in capsys.readouterr().err


def test_labels_are_mapped_on_the_way(source, tmp_path):
    cv2.imwrite(str(source / "label/000000.png"), np.full((48, 64), 40, np.uint8))
    assert pack(source, tmp_path / "out.s4pack") == 2
    assert pack(source, tmp_path / "out.s4pack", "--labels", "nyu40") == 0
    assert not open_source_set(tmp_path / "out.s4pack").label(0).any()


def test_nothing_is_replaced_unless_forced(source, tmp_path, capsys):
    assert pack(source, tmp_path / "out.s4pack") == 0
    assert pack(source, tmp_path / "out.s4pack") == 2
    assert "--force" in capsys.readouterr().err
    assert pack(source, tmp_path / "out.s4pack", "--force") == 0
    assert pack(source, source, "--force") == 2
    assert "source set itself" in capsys.readouterr().err
    assert pack(tmp_path / "out.s4pack", tmp_path / "out.s4pack", "--force") == 2
    assert len(open_source_set(tmp_path / "out.s4pack")) == 5


@pytest.mark.parametrize("quality", [-1, 101])
def test_quality_out_of_range_is_refused(source, tmp_path, quality, capsys):
    assert pack(source, tmp_path / "out.s4pack", "--quality", quality) == 2
    assert "from 0 (PNG) to 100" in capsys.readouterr().err
