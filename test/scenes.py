"""A small labelled room, ray-cast in NumPy, so that tests have colour, exact depth, labels and poses without any data.

The world's z axis points up; the room is 4 x 3 x 2.5 m with boxes on the floor and pictures on the walls. Texture is a
function of the 3D point alone: two views of one point have the same colour, which is what geometric tests compare.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.source_sets.files import FolderSourceSet
from s4net_core.io.source_sets.files import write_source_set as write_labelled_images
from s4net_core.io.source_sets.source_set import LabelledImage

ROOM = np.array([4.0, 3.0, 2.5])
WALL, FLOOR, CABINET, BED, TABLE, PICTURE, CEILING, BOX = 1, 2, 3, 4, 7, 11, 22, 29
FRAME_ID = "camera_color_optical_frame"
FIRST_STAMP = 1_000_000_000
COLORS = {
    WALL: (205, 200, 185),
    FLOOR: (120, 80, 45),
    CABINET: (60, 90, 150),
    BED: (190, 60, 70),
    TABLE: (90, 140, 60),
    PICTURE: (230, 180, 40),
    CEILING: (235, 235, 240),
    BOX: (140, 70, 160),
}


def make_intrinsics(width: int = 64, height: int = 48) -> Intrinsics:
    """A lens with about 75° of horizontal view whose principal point is not the centre."""
    return Intrinsics(width, height, 0.65 * width, 0.66 * width, 0.51 * width - 0.5, 0.48 * height - 0.5)


def make_room_frames(n: int, width: int = 64, height: int = 48, seed: int = 0, *, hz: float = 10.0) -> list[Frame]:
    """`n` views along a smooth path, about 8 cm and 2° from each other; `seed` moves furniture, colours and path."""
    rng = np.random.default_rng(seed)
    boxes, tint = _boxes(rng), rng.uniform(0.8, 1.1, 3)
    phase, height_of_camera = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 1.5)
    frames = []
    for i in range(n):
        angle = phase + 0.08 * i
        eye = np.array([2.0 + 0.9 * np.cos(angle), 1.5 + 0.6 * np.sin(angle), height_of_camera])
        target = np.array([2.0 - 1.5 * np.cos(0.4 * angle), 1.5 - 1.2 * np.sin(0.4 * angle + 0.4), 0.7])
        stamp = FIRST_STAMP + round(i * 1e9 / hz)
        frames.append(_render(stamp, look_at(eye, target), make_intrinsics(width, height), boxes, tint))
    return frames


def make_source_images(n: int, width: int = 64, height: int = 48, seed: int = 100) -> list[LabelledImage]:
    """`n` unrelated labelled views, each of another room."""
    frames = [make_room_frames(1, width, height, seed + i)[0] for i in range(n)]
    return [LabelledImage(frame.color, frame.label) for frame in frames if frame.label is not None]


def write_source_set(folder: Path, images: Iterable[LabelledImage | Frame]) -> FolderSourceSet:
    """Write images (or the labelled part of frames) as a source set and open it."""
    labelled = [LabelledImage(i.color, i.label) if isinstance(i, Frame) and i.label is not None else i for i in images]
    write_labelled_images(folder, labelled)
    return FolderSourceSet(folder)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """T_world_camera (4, 4) of an upright optical frame at `eye` that looks at `target`."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    T_world_camera[:3, 3] = eye
    return T_world_camera


def _boxes(rng: np.random.Generator) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Furniture: class id, lower and upper corner; on the floor along the walls, so that the camera passes."""
    x, y = rng.uniform(0.0, 0.6, 2)
    return [
        (CABINET, np.array([0.0, 0.9 + y, 0.0]), np.array([0.4, 1.9 + y, 1.1])),
        (BED, np.array([2.4 + x, 0.0, 0.0]), np.array([3.4 + x, 0.6, 0.5])),
        (TABLE, np.array([1.2 + x, 2.5, 0.0]), np.array([2.4 + x, 3.0, 0.75])),
        (BOX, np.array([3.5, 1.2 + y, 0.0]), np.array([4.0, 1.7 + y, 0.6])),
        (PICTURE, np.array([0.3 + x, 0.0, 1.2]), np.array([1.3 + x, 0.02, 1.9])),
        (PICTURE, np.array([3.98, 0.6 + y, 1.2]), np.array([4.0, 1.5 + y, 1.9])),
    ]


def _render(stamp: int, T_world_camera: np.ndarray, lens: Intrinsics, boxes: list, tint: np.ndarray) -> Frame:
    v, u = np.mgrid[: lens.height, : lens.width].astype(float)
    rays_camera = np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones_like(u)], axis=-1)
    rays = rays_camera @ T_world_camera[:3, :3].T  # z = 1 in the camera: the ray's parameter is the depth
    eye = T_world_camera[:3, 3]
    depth, label = _hit_walls(eye, rays)
    for class_id, lower, upper in boxes:
        near, hit = _hit_box(eye, rays, lower, upper)
        nearer = hit & (near < depth)
        depth = np.where(nearer, near, depth)
        label = np.where(nearer, class_id, label)
    points = eye + depth[..., None] * rays
    return Frame(
        stamp=stamp,
        color=_texture(points, label, tint),
        depth=depth.astype(np.float32),
        T_world_camera=T_world_camera,
        intrinsics=lens,
        frame_id=FRAME_ID,
        label=label.astype(np.uint8),
    )


def _hit_walls(eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and class where rays leave the room."""
    with np.errstate(divide="ignore"):
        exits = np.where(rays > 0, (ROOM - eye) / rays, np.where(rays < 0, -eye / rays, np.inf))
    axis = exits.argmin(axis=-1)
    downwards = rays[..., 2] < 0
    label = np.where(axis == 2, np.where(downwards, FLOOR, CEILING), WALL)
    return exits.min(axis=-1), label


def _hit_box(eye: np.ndarray, rays: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth at which rays enter a box, and whether they do (slab method)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (lower - eye) / rays, (upper - eye) / rays
    near, far = np.minimum(a, b).max(axis=-1), np.maximum(a, b).min(axis=-1)
    return near, (near < far) & (near > 0)


def _texture(points: np.ndarray, label: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """Colour of the class, with smooth waves of 0.5 to 1 m that tell places apart."""
    palette = np.zeros((256, 3))
    for class_id, color in COLORS.items():
        palette[class_id] = color
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    waves = 0.12 * np.sin(9 * x + 3 * z) + 0.12 * np.sin(7 * y - 5 * z + 1) + 0.08 * np.sin(11 * z + 4 * x - 6 * y)
    return np.clip(palette[label] * tint * (1 + waves[..., None]), 0, 255).astype(np.uint8)
