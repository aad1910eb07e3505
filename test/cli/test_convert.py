"""`s4net convert` from the outside: files in, files out, nothing lost."""

import resource

import cv2
import numpy as np
import pytest
from scenes import make_room_frames, make_source_images, write_source_set

from s4net_core.cli.main import main
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.source_sets.files import FolderSourceSet
from s4net_core.io.source_sets.source_set import LabelledImage


@pytest.fixture
def scene(tmp_path):
    write_scene_folder(tmp_path / "room", make_room_frames(5, 64, 48), quality=100)
    return tmp_path / "room"


def convert(*arguments):
    return main(["convert", *map(str, arguments)])


def test_a_scene_folder_becomes_a_bag_with_the_same_frames(scene, tmp_path, capsys):
    assert convert(scene, tmp_path / "bag") == 0
    for read, written in zip(open_capture(tmp_path / "bag"), SceneFolder(scene), strict=True):
        assert read.stamp == written.stamp
        assert np.array_equal(read.color, written.color)
        assert np.array_equal(read.depth, written.depth)
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-12)
    assert "5 frames" in capsys.readouterr().out


def test_a_bag_becomes_a_scene_folder(scene, tmp_path):
    options = ("--storage", "sqlite3", "--color", "jpeg", "--depth", "compressedDepth")
    assert convert(scene, tmp_path / "bag", *options) == 0
    assert (tmp_path / "bag/bag.db3").is_file()
    assert convert(tmp_path / "bag", tmp_path / "back", "--format", "scene") == 0
    frames = list(SceneFolder(tmp_path / "back"))
    assert np.array_equal(frames[2].depth, SceneFolder(scene)[2].depth)
    assert len(frames) == 5


def test_size_and_stride_make_a_smaller_scene_that_keeps_its_labels(scene, tmp_path):
    assert convert(scene, tmp_path / "small", "--format", "scene", "--stride", 2, "--size", "32x20") == 0
    frames = list(SceneFolder(tmp_path / "small"))
    assert [frame.stamp for frame in frames] == [frame.stamp for frame in list(SceneFolder(scene))[::2]]
    assert frames[0].color.shape == (20, 32, 3)
    assert frames[0].intrinsics == SceneFolder(scene)[0].intrinsics.scaled(32, 20)
    assert set(np.unique(frames[0].label)) <= set(np.unique(SceneFolder(scene)[0].label))
    assert frames[0].label.any()


@pytest.mark.parametrize("of", ["scene", "bag"])
def test_a_capture_is_split_into_frames_to_learn_from_and_frames_to_measure_on(scene, tmp_path, of, capsys):
    assert convert(scene, tmp_path / "bag") == 0
    source, stamps = {"scene": scene, "bag": tmp_path / "bag"}[of], [frame.stamp for frame in SceneFolder(scene)]
    for name, chosen in {":3": slice(3), "3:": slice(3, None), "1:5:2": slice(1, 5, 2)}.items():
        assert convert(source, tmp_path / "part", "--format", "scene", "--frames", name, "--force") == 0
        assert [frame.stamp for frame in SceneFolder(tmp_path / "part")] == stamps[chosen]
    assert convert(source, tmp_path / "none", "--format", "scene", "--frames", "5:") == 2
    assert "--frames leaves no frame of" in capsys.readouterr().err
    assert convert(source, tmp_path / "none", "--frames", ":3", "--stride", 2) == 2
    assert "write the stride as --frames START:STOP:STEP" in capsys.readouterr().err
    for wrong in ("3", "-3:", "::0", "a:b"):
        with pytest.raises(SystemExit):
            convert(source, tmp_path / "none", f"--frames={wrong}")
        assert f"'{wrong}' is not START:STOP" in capsys.readouterr().err


def test_images_of_a_source_set_are_chosen(tmp_path, capsys):
    write_source_set(tmp_path / "source", make_source_images(3, 64, 48))
    options = ("--format", "source-set", "--frames")
    assert convert(tmp_path / "source", tmp_path / "part", *options, "1:") == 0
    assert len(FolderSourceSet(tmp_path / "part")) == 2
    assert convert(tmp_path / "source", tmp_path / "none", *options, "3:") == 2
    assert "--frames leaves none of the 3 images" in capsys.readouterr().err


def test_rate_gives_new_stamps(scene, tmp_path):
    assert convert(scene, tmp_path / "bag", "--rate", 30) == 0
    stamps = np.array([frame.stamp for frame in open_capture(tmp_path / "bag")])
    assert stamps[0] == SceneFolder(scene)[0].stamp
    np.testing.assert_allclose(np.diff(stamps), 1e9 / 30, atol=1)


def test_depth_can_be_left_out(scene, tmp_path):
    assert convert(scene, tmp_path / "flat", "--format", "scene", "--no-depth") == 0
    assert SceneFolder(tmp_path / "flat")[0].depth is None
    assert not (tmp_path / "flat/depth").exists()


def test_the_fixed_frame_is_the_settings(scene, tmp_path):
    assert convert(scene, tmp_path / "bag", "--set", "stream.fixed_frame=map") == 0
    assert convert(tmp_path / "bag", tmp_path / "odom", "--format", "scene") == 2
    assert convert(tmp_path / "bag", tmp_path / "map", "--format", "scene", "--set", "stream.fixed_frame=map") == 0


def test_a_source_set_is_shrunk(tmp_path):
    images = make_source_images(5, 64, 48)
    write_source_set(tmp_path / "source/a", images[:3])
    write_source_set(tmp_path / "source/b", images[3:])
    options = ("--format", "source-set", "--size", "32x20", "--stride", 2)
    assert convert(tmp_path / "source", tmp_path / "small", *options) == 0
    small, original = FolderSourceSet(tmp_path / "small"), FolderSourceSet(tmp_path / "source")
    assert len(small) == 3
    assert small[2].color.shape == (20, 32, 3)
    assert np.array_equal(small[1].label, original[2].resized(32, 20).label)


def nyu40(folder):
    """Replace every label below `folder` by one with all the ids of NYU40."""
    ids = np.resize(np.arange(41, dtype=np.uint8), (48, 64))
    for path in folder.rglob("label/*.png"):
        cv2.imwrite(str(path), ids)
    return np.where(ids > 37, 0, ids)


def test_labels_of_a_source_set_are_mapped(tmp_path, capsys):
    write_source_set(tmp_path / "source", make_source_images(2, 64, 48))
    expected = nyu40(tmp_path / "source")
    assert convert(tmp_path / "source", tmp_path / "out", "--format", "source-set") == 2
    assert "class ids [38, 39, 40]" in capsys.readouterr().err
    assert convert(tmp_path / "source", tmp_path / "out", "--format", "source-set", "--labels", "nyu40") == 0
    assert all(np.array_equal(FolderSourceSet(tmp_path / "out").label(i), expected) for i in range(2))


def test_labels_can_be_mapped_by_the_table_of_a_data_set(tmp_path, capsys):
    write_source_set(tmp_path / "source", make_source_images(1, 64, 48))
    (tmp_path / "scannetv2-labels.combined.tsv").write_text("id\tnyu40id\n1\t5\n2\t40\n")
    options = ("--format", "source-set", "--labels")
    table = tmp_path / "scannetv2-labels.combined.tsv"
    original = FolderSourceSet(tmp_path / "source").label(0)
    assert convert(tmp_path / "source", tmp_path / "out", *options, table) == 0
    assert np.array_equal(FolderSourceSet(tmp_path / "out").label(0), np.where(original == 1, 5, 0))
    assert convert(tmp_path / "source", tmp_path / "other", *options, "cityscapes") == 2
    assert "'cityscapes' maps no labels" in capsys.readouterr().err


def test_depth_of_a_source_set_is_kept_unless_left_out(tmp_path):
    depth = np.full((48, 64), 1.25, np.float32)
    image = make_source_images(1, 64, 48)[0]
    write_source_set(tmp_path / "source", [LabelledImage(image.color, image.label, depth)])
    options = ("--format", "source-set", "--size", "32x20")
    assert convert(tmp_path / "source", tmp_path / "out", *options) == 0
    assert np.array_equal(FolderSourceSet(tmp_path / "out", with_depth=True)[0].depth, depth[:20, :32])
    assert convert(tmp_path / "source", tmp_path / "flat", *options, "--no-depth") == 0
    assert FolderSourceSet(tmp_path / "flat", with_depth=True)[0].depth is None


def test_a_part_of_a_source_set_with_parts_is_chosen(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for number in range(1, count + 1):
            (tmp_path / f"sun/image/{split}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"sun/label37/{split}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"sun/image/{split}/img-{number:06d}.png"), np.zeros((24, 40, 3), np.uint8))
            label = np.full((24, 40), number + count, np.uint8)
            cv2.imwrite(str(tmp_path / f"sun/label37/{split}/img-{number:06d}.png"), label)
    for split, expected in (("train", [3, 4]), ("test", [2]), ("all", [3, 4, 2])):
        assert convert(tmp_path / "sun", tmp_path / split, "--format", "source-set", "--split", split) == 0
        source = FolderSourceSet(tmp_path / split)
        assert [int(source.label(i)[0, 0]) for i in range(len(source))] == expected


def test_labels_of_a_scene_folder_are_mapped(scene, tmp_path, capsys):
    expected = nyu40(scene)
    assert convert(scene, tmp_path / "out", "--format", "scene", "--labels", "nyu40") == 0
    assert np.array_equal(SceneFolder(tmp_path / "out")[1].label, expected)
    assert convert(scene, tmp_path / "bag", "--labels", "nyu40") == 0
    assert convert(tmp_path / "bag", tmp_path / "back", "--labels", "nyu40") == 2
    assert "neither a scene folder nor ScanNet" in capsys.readouterr().err


def test_nothing_is_replaced_unless_forced(scene, tmp_path, capsys):
    assert convert(scene, tmp_path / "bag") == 0
    assert convert(scene, tmp_path / "bag", "--stride", 2) == 2
    assert "--force" in capsys.readouterr().err
    assert len(open_capture(tmp_path / "bag")) == 5
    assert convert(scene, tmp_path / "bag", "--stride", 2, "--force") == 0
    assert len(open_capture(tmp_path / "bag")) == 3


def test_force_removes_captures_only(scene, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    assert convert(scene, tmp_path / "thesis", "--force") == 2
    assert (tmp_path / "thesis/chapter.txt").is_file()
    assert "neither a capture nor a source set" in capsys.readouterr().err


@pytest.mark.parametrize("leads_to", ["bag", "nowhere"])
def test_a_link_in_place_of_the_output_is_refused_before_the_work(scene, tmp_path, capsys, monkeypatch, leads_to):
    assert convert(scene, tmp_path / "bag") == 0
    (tmp_path / "link").symlink_to(tmp_path / leads_to)
    monkeypatch.setattr("s4net_core.cli.convert._convert_capture", lambda *_: pytest.fail("it was converted"))
    assert convert(scene, tmp_path / "link", "--force") == 2
    told = "".join(capsys.readouterr().err.split())
    assert f"linkisalinkto{tmp_path}/{leads_to}:namethatfolderitself" in told
    assert len(open_capture(tmp_path / "bag")) == 5


def test_the_source_is_never_replaced(scene, tmp_path, capsys):
    for output in (scene, tmp_path):
        assert convert(scene, output, "--force") == 2
        assert "holds the source" in capsys.readouterr().err
    assert len(list(SceneFolder(scene))) == 5


def test_a_failure_leaves_what_was_there(scene, tmp_path, capsys):
    assert convert(scene, tmp_path / "bag") == 0
    for path in (scene / "depth").iterdir():
        path.write_bytes(b"damaged")
    assert convert(scene, tmp_path / "bag", "--force") == 2
    assert f"{scene} has no frame that can be used (5 x unreadable: {scene}/depth/000004.png" in capsys.readouterr().err
    assert len(list(open_capture(tmp_path / "bag"))) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "room"]


def test_frames_that_were_left_out_are_reported(scene, tmp_path, capsys):
    (scene / "color/000001.png").unlink()
    (scene / "depth/000002.png").write_bytes(b"")
    assert convert(scene, tmp_path / "bag", "--rate", 30) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "left out: 1 no_color, 1 unreadable" in told
    assert f"left out: 1 no_color, e.g. {scene}/color has no image 000001: a pose" in told
    assert f"left out: 1 unreadable, e.g. {scene}/depth/000002.png" in told
    poses = "".join(f"{second} 0 0 0 0 0 0 1\n" for second in (1, 1.033333333))
    (tmp_path / "slam.txt").write_text(poses)
    assert convert(tmp_path / "bag", tmp_path / "back", "--poses", tmp_path / "slam.txt", "--format", "scene") == 0
    assert f"no_pose, e.g. {tmp_path}/slam.txt has no pose around" in capsys.readouterr().out


def test_a_bag_has_no_labels_and_that_is_said(scene, tmp_path, capsys):
    (scene / "label/000001.png").unlink()
    assert convert(scene, tmp_path / "bag") == 0
    assert (
        "5 frames; a bag has no place for labels, which 4 of them have: --format scene keeps them,"
        in capsys.readouterr().out
    )
    assert convert(scene, tmp_path / "flat", "--format", "scene") == 0
    assert convert(tmp_path / "bag", tmp_path / "again") == 0
    assert "no place for labels" not in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_disk_that_takes_no_more_is_told_with_the_folder(scene, tmp_path, capsys, storage):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert convert(scene, tmp_path / "bag", "--storage", storage) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "/bag cannot be written (" in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


def test_a_foreign_folder_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert convert(tmp_path / "empty", tmp_path / "bag") == 2
    assert "no format that can be read" in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("option", [("--size", "32"), ("--stride", "0"), ("--rate", "-1"), ("--quality", "101")])
def test_options_out_of_range_are_refused(scene, tmp_path, option):
    with pytest.raises(SystemExit):
        convert(scene, tmp_path / "bag", *option)


def test_the_capture_of_the_demo_becomes_a_bag(demo, tmp_path):
    options = ("--stride", 12, "--color", "jpeg", "--depth", "compressedDepth", "--size", "120x90", "--rate", 10)
    assert convert(demo / "capture", tmp_path / "bag", *options) == 0
    bag = open_capture(tmp_path / "bag")
    assert len(list(bag)) + sum(bag.skipped.values()) == 10


def test_an_output_below_a_file_is_refused_without_a_traceback(scene, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert convert(scene, tmp_path / "file" / "x") == 2
    assert "file/x cannot be written" in " ".join(capsys.readouterr().err.split())
