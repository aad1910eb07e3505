"""LabelMe annotations: every type of shape, names, sizes, damage; masks to polygons and back without a lost pixel."""

import base64
import json
import os

import cv2
import numpy as np
import pytest
from scenes import BED, FLOOR, WALL, make_room_frames

from s4net_core.errors import BadFrame, CaptureError, S4NetError, SourceSetError
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.images.files import write_color
from s4net_core.io.label_files.labelme import polygons, read_labelme, read_labelme_color, write_labelme
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.labels import SUNRGBD37

HEIGHT, WIDTH = 24, 40


def shape(label, points, kind="polygon", **more):
    """As LabelMe 5 writes it."""
    fields = {"group_id": None, "description": "", "shape_type": kind, "flags": {}, "mask": None}
    return {"label": label, "points": points, **fields, **more}


def write(path, *shapes, image="image.jpg", height=HEIGHT, width=WIDTH, data=None):
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": data}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"imageHeight": height, "imageWidth": width}))
    return path


def png(image):
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


def test_a_polygon_covers_its_corners_and_what_lies_between(path):
    label = read_labelme(write(path, shape("bed", [[3, 2], [10, 2], [10, 6], [3, 6]])), SUNRGBD37)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 3:11] = BED
    assert label.dtype == np.uint8
    assert np.array_equal(label, expected)


def test_later_shapes_lie_over_earlier_ones_so_that_holes_can_be_drawn(path):
    shapes = [
        shape("wall", [[0, 0], [39, 0], [39, 23], [0, 23]]),
        shape("table", [[5, 5], [30, 5], [30, 20], [5, 20]]),
        shape("floor", [[10, 10], [20, 10], [20, 15], [10, 15]]),
        shape("unlabelled", [[12, 12], [14, 12], [14, 13], [12, 13]]),
    ]
    label = read_labelme(write(path, *shapes), SUNRGBD37)
    assert [label[0, 39], label[6, 6], label[11, 11], label[12, 13]] == [WALL, 7, FLOOR, 0]


def test_a_rectangle_may_be_drawn_from_any_corner(path):
    """LabelMe's coordinates count from the corner of the image: pixel 3 spans 3.0 to 4.0."""
    shapes = [shape("bed", [[10.7, 6.1], [3.2, 2.9]], "rectangle")]
    label = read_labelme(write(path, *shapes), SUNRGBD37)
    assert label.sum() == BED * 8 * 5
    assert (label[2:7, 3:11] == BED).all()


def test_a_circle_is_given_by_its_centre_and_a_point_on_it(path):
    label = read_labelme(write(path, shape("lamp", [[20, 12], [26, 12]], "circle")), SUNRGBD37)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(u - 20, v - 12)
    assert (label[distance < 5.5] == 35).all()
    assert not label[distance > 6.7].any()


def test_an_oriented_rectangle_is_its_four_corners(path):
    label = read_labelme(
        write(path, shape("box", [[10, 4], [16, 10], [10, 16], [4, 10]], "oriented_rectangle")), SUNRGBD37
    )
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    assert np.array_equal(label == 29, np.abs(u - 10) + np.abs(v - 10) <= 6)


def test_a_mask_is_a_picture_of_its_bounding_box(path):
    mask = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    inside = shape("chair", [[7, 3], [9, 4]], "mask", mask=png(mask))
    beyond = shape("sofa", [[38, 22], [40, 23]], "mask", mask=png(mask))
    label = read_labelme(write(path, inside, beyond), SUNRGBD37)
    assert np.array_equal(label[3:5, 7:10], mask * 5)
    assert (label[22, 38], label[23, 39]) == (6, 6)
    assert np.count_nonzero(label) == 5


def test_what_lies_outside_the_image_is_cut_off(path):
    label = read_labelme(write(path, shape("floor", [[-50, 20], [90.5, 20], [90, 60], [-50, 60]])), SUNRGBD37)
    assert np.array_equal(label == FLOOR, np.arange(HEIGHT)[:, None] >= np.full(WIDTH, 20))


def test_unknown_names_are_told_all_at_once_with_the_nearest_known_ones(path):
    square = [[1, 1], [3, 1], [3, 3]]
    write(path, shape("Couch", square), shape("bookshelv", square), shape("zxqj", square))
    with pytest.raises(S4NetError, match=r"'bookshelv' \(bookshelf\?\), 'zxqj', which sunrgbd37 does not know"):
        read_labelme(path, SUNRGBD37)


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_a_shape_without_area_is_an_error_that_says_so(path, kind):
    with pytest.raises(S4NetError, match=f"'wall' is a {kind}, which covers no area: draw it as one of polygon"):
        read_labelme(write(path, shape("wall", [[1, 1], [3, 1]], kind)), SUNRGBD37)


def test_an_annotation_made_at_another_resolution_is_scaled(path):
    write(path, shape("bed", [[20, 0], [39, 0], [39, 11], [20, 11]]))
    label = read_labelme(path, SUNRGBD37, (48, 80))
    expected = np.zeros((48, 80), np.uint8)
    expected[:24, 40:] = BED
    assert np.array_equal(label, expected)
    assert np.array_equal(read_labelme(path, SUNRGBD37, (12, 20)), expected[::4, ::4])


def test_an_annotation_of_a_picture_of_another_shape_is_refused(path):
    with pytest.raises(BadFrame, match="40x24 but this one is 40x30"):
        read_labelme(write(path, shape("bed", [[0, 0], [3, 0], [3, 3]])), SUNRGBD37, (30, 40))


def test_the_size_comes_from_the_embedded_image_where_old_versions_do_not_write_it(path):
    square = shape("bed", [[0, 0], [3, 0], [3, 3], [0, 3]])
    write(path, square, height=None, width=None, data=png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    assert read_labelme(path, SUNRGBD37).shape == (HEIGHT, WIDTH)
    write(path, square, height=None, width=None)
    assert read_labelme(path, SUNRGBD37, (HEIGHT, WIDTH)).sum() == 16 * BED
    with pytest.raises(BadFrame, match="has no imageHeight"):
        read_labelme(path, SUNRGBD37)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read as JSON"),
        ('{"shapes": [', "cannot be read as JSON"),
        ("[1, 2]", "no list of shapes"),
        ('{"width": 3}', "no list of shapes"),
        ('{"shapes": [{"label": "bed"}], "imageHeight": 3, "imageWidth": 4}', "polygon 'bed' is damaged"),
        ('{"shapes": [{"label": "bed", "points": []}], "imageHeight": 3, "imageWidth": 4}', "is damaged"),
        ('{"shapes": [{"label": "bed", "points": [[1, NaN]]}], "imageHeight": 3, "imageWidth": 4}', "is damaged"),
        ('{"shapes": [{"label": "bed", "points": [1, 2, 3]}], "imageHeight": 3, "imageWidth": 4}', "is damaged"),
    ],
)
def test_damaged_annotations_say_what_is_wrong(path, content, told):
    path.write_text(content)
    with pytest.raises(BadFrame, match=told):
        read_labelme(path, SUNRGBD37)


def test_a_circle_with_one_point_and_a_mask_without_picture_are_damaged(path):
    for damaged in (shape("bed", [[1, 1]], "circle"), shape("bed", [[1, 1], [2, 2]], "mask", mask="no picture")):
        with pytest.raises(BadFrame, match="is damaged"):
            read_labelme(write(path, damaged), SUNRGBD37)


# Masks to polygons and back


def masks():
    """Rooms, rings in rings, and noise, in which every region is a few pixels and some are one."""
    yield make_room_frames(1, 64, 48)[0].label
    rings = np.zeros((HEIGHT, WIDTH), np.uint8)
    for depth, id in enumerate((1, 2, 0, 2, 7, 1)):
        rings[2 + 2 * depth : HEIGHT - 2 * depth, 3 + 2 * depth : WIDTH - 2 * depth] = id
    yield rings
    rng = np.random.default_rng(0)
    for classes, size in ((2, (17, 23)), (3, (31, 20)), (38, (12, 40))):
        yield rng.integers(0, classes, size).astype(np.uint8)
    coarse = rng.integers(0, 6, (6, 10)).astype(np.uint8)
    yield np.kron(coarse, np.ones((4, 4), np.uint8))
    yield np.zeros((5, 7), np.uint8)
    yield np.full((5, 7), 37, np.uint8)


@pytest.mark.parametrize("label", list(masks()))
def test_a_mask_written_as_polygons_comes_back_pixel_by_pixel(path, label):
    write_labelme(path, label, "../color/0.jpg", SUNRGBD37)
    assert np.array_equal(read_labelme(path, SUNRGBD37), label)


def test_fewer_corners_differ_from_the_mask_only_near_borders(path):
    label = make_room_frames(1, 160, 120, seed=3)[0].label
    write_labelme(path, label, "0.jpg", SUNRGBD37, tolerance=1.5)
    again = read_labelme(path, SUNRGBD37)
    assert sum(map(len, json_points(path))) < sum(len(polygon) for _, polygon in polygons(label)) / 2
    different = again != label
    assert 0 < different.mean() < 0.03
    inner = cv2.erode(label, np.ones((5, 5))) == cv2.dilate(label, np.ones((5, 5)))
    assert not different[inner].any()


def json_points(path):
    return [shape["points"] for shape in json.loads(path.read_text())["shapes"]]


def test_what_is_written_follows_the_schema_that_labelme_checks(path):
    """The checks of labelme's LabelFile (6.3), which itself has loaded such files."""
    label = make_room_frames(1, 64, 48)[0].label.copy()
    label[5, 5], label[20:22, 20:22] = 29, 0
    write_labelme(path, label, "../color/0.jpg", SUNRGBD37)
    content = json.loads(path.read_text())
    assert {"imagePath", "imageData", "shapes", "version", "flags"} <= set(content)
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (48, 64, None)
    for found in content["shapes"]:
        assert isinstance(found["label"], str)
        assert found["shape_type"] == "polygon"
        assert len(found["points"]) >= 3
        assert all(len(point) == 2 and all(isinstance(number, int) for number in point) for point in found["points"])
        assert (found["group_id"], found["description"], found["flags"], found["mask"]) == (None, "", {}, None)


# Annotations beside captures and source sets


@pytest.fixture
def scene(tmp_path):
    write_scene_folder(tmp_path / "room", make_room_frames(3, 64, 48), quality=100)
    return tmp_path / "room"


@pytest.mark.parametrize("folder", ["labelme", "annotations", "color"])
def test_annotations_beside_colour_are_the_labels_of_a_capture(scene, folder):
    for path in (scene / "label").iterdir():
        path.unlink()
    write(scene / folder / "000001.json", shape("bed", [[8, 8], [19, 8], [19, 15], [8, 15]]), height=24, width=32)
    labels = [frame.label for frame in open_capture(scene)]
    assert labels[0] is labels[2] is None
    expected = np.zeros((48, 64), np.uint8)
    expected[16:32, 16:40] = BED
    assert np.array_equal(labels[1], expected)


def test_what_a_person_has_drawn_wins_over_the_mask(scene):
    before = [frame.label for frame in open_capture(scene)]
    corrected = before[2].copy()
    corrected[:9] = 29
    (scene / "labelme").mkdir()
    write_labelme(scene / "labelme/000002.json", corrected, "../color/000002.png", SUNRGBD37)
    after = [frame.label for frame in open_capture(scene)]
    assert np.array_equal(after[1], before[1])
    assert np.array_equal(after[2], corrected)
    assert np.array_equal(open_source_set(scene)[2].label, corrected)


def test_a_frame_whose_annotation_is_damaged_is_left_out_and_counted(scene):
    write(scene / "labelme/000001.json", shape("bed", [[0, 0], [3, 0], [3, 3]]), height=64, width=48)
    capture = open_capture(scene)
    assert len(list(capture)) == 2
    assert capture.skipped == {"label_size": 1}


def test_unknown_names_stop_the_capture(scene):
    write(scene / "labelme/000001.json", shape("spaceship", [[0, 0], [3, 0], [3, 3]]))
    with pytest.raises(S4NetError, match="spaceship"):
        list(open_capture(scene))


def test_images_with_their_annotations_are_a_source_set(tmp_path):
    """As LabelMe leaves them: side by side, or with the image inside, or named with the path of another system."""
    color = make_room_frames(1, WIDTH, HEIGHT)[0].color
    (tmp_path / "set").mkdir()
    write_color(tmp_path / "set/office 1.png", color)
    bed = shape("bed", [[0, 0], [WIDTH, 0], [WIDTH, 5], [0, 5]])
    write(tmp_path / "set/a.json", bed, image="office 1.png")
    write(tmp_path / "set/b.json", image="lost.png", data=png(cv2.cvtColor(color, cv2.COLOR_RGB2BGR)))
    write(tmp_path / "set/more/c.json", bed, image="..\\office 1.png")
    (tmp_path / "set/notes.json").write_text("{}")
    source = open_source_set(tmp_path / "set")
    assert (source.name, len(source), source.label_space) == ("set", 3, SUNRGBD37)
    for index in range(3):
        assert np.array_equal(source[index].color, color)
        assert np.array_equal(source[index].label, source.label(index))
        assert source[index].label.any() == (index != 1)


def test_an_annotation_whose_image_is_lost_is_an_error_that_names_it(tmp_path):
    write(tmp_path / "set/a.json", image="lost.png")
    with pytest.raises(SourceSetError, match=r"lost.png cannot be read"):
        open_source_set(tmp_path / "set")[0]


def test_a_folder_of_other_json_files_is_no_source_set(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises((SourceSetError, CaptureError)):
        open_source_set(tmp_path)


def test_a_size_that_would_take_the_memory_is_refused(path):
    with pytest.raises(BadFrame, match=r"a\.json: an image of 1000000x1000000 has more than 50 million") as caught:
        read_labelme(write(path, height=10**6, width=10**6), SUNRGBD37)
    assert caught.value.reason == "image_size"


def test_embedded_images_and_masks_that_would_take_the_memory_are_refused(path):
    huge = png(np.zeros((10000, 6000), np.uint8))
    with pytest.raises(BadFrame, match="6000x10000"):
        read_labelme_color(write(path, data=huge))
    with pytest.raises(BadFrame, match="6000x10000"):
        read_labelme(write(path, shape("bed", [[0, 0], [9, 9]], "mask", mask=huge)), SUNRGBD37)


def test_a_pipe_is_no_annotation_and_is_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(BadFrame, match="no regular file"):
        read_labelme(path, SUNRGBD37)
