"""The procedural room that other tests rely on is itself geometrically right."""

import numpy as np
import pytest
from scenes import BOX, CEILING, FLOOR, ROOM, WALL, make_intrinsics, make_room_frames, make_source_images

WIDTH, HEIGHT = 64, 40


def world_points(frame):
    v, u = np.mgrid[: frame.intrinsics.height, : frame.intrinsics.width]
    pixels = np.stack([u, v, np.ones_like(u)]).reshape(3, -1).astype(float)
    points = np.linalg.inv(frame.intrinsics.matrix) @ pixels * frame.depth.reshape(1, -1)
    return (frame.T_world_camera @ np.vstack([points, np.ones(points.shape[1])]))[:3].T


@pytest.mark.parametrize("seed", [0, 3])
def test_depth_and_labels_agree_with_the_walls_of_the_room(seed):
    for frame in make_room_frames(3, WIDTH, HEIGHT, seed):
        points, label = world_points(frame), frame.label.ravel()
        assert np.all(points > -1e-4)
        assert np.all(points < ROOM + 1e-4)
        np.testing.assert_allclose(points[label == FLOOR, 2], 0.0, atol=1e-5)
        np.testing.assert_allclose(points[label == CEILING, 2], ROOM[2], atol=1e-5)
        walls = points[label == WALL][:, :2]
        assert np.abs(np.hstack([walls, walls - ROOM[:2]])).min(axis=1).max() < 1e-5


def test_two_views_of_a_point_have_the_same_colour_and_label():
    first, second = make_room_frames(5, WIDTH, HEIGHT, 1)[::4]
    points = np.hstack([world_points(first), np.ones((WIDTH * HEIGHT, 1))])
    seen = (np.linalg.inv(second.T_world_camera) @ points.T)[:3]
    x, y = np.rint((second.intrinsics.matrix @ seen)[:2] / seen[2]).astype(int)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    x, y, z = x[inside], y[inside], seen[2, inside]
    visible = np.abs(second.depth[y, x] - z) < 0.02 * z
    assert visible.mean() > 0.8
    difference = second.color[y, x].astype(int) - first.color.reshape(-1, 3)[inside]
    assert np.abs(difference[visible]).mean() < 3
    assert (second.label[y, x] == first.label.ravel()[inside])[visible].mean() > 0.98


def test_a_seed_gives_the_same_frames_and_another_seed_another_room():
    first, again, other = (make_room_frames(1, WIDTH, HEIGHT, seed)[0] for seed in (5, 5, 6))
    assert np.array_equal(first.color, again.color)
    assert not np.array_equal(first.label, other.label)


def test_a_path_shows_several_classes_and_moves_a_little_between_frames():
    frames = make_room_frames(60, WIDTH, HEIGHT)
    steps = np.diff([frame.T_world_camera[:3, 3] for frame in frames], axis=0)
    assert np.all((np.linalg.norm(steps, axis=1) > 0.02) & (np.linalg.norm(steps, axis=1) < 0.15))
    assert len(np.unique([np.unique(f.label).size for f in frames])) > 1
    assert BOX in np.concatenate([f.label.ravel() for f in frames])
    assert make_intrinsics(WIDTH, HEIGHT) == frames[0].intrinsics


def test_source_images_are_of_different_rooms():
    first, second = make_source_images(2, WIDTH, HEIGHT)
    assert first.color.shape == (HEIGHT, WIDTH, 3)
    assert first.label.shape == (HEIGHT, WIDTH)
    assert not np.array_equal(first.label, second.label)
