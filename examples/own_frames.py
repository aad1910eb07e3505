"""Adapt to frames of your own: a `FrameSequence` is any object that yields posed frames in time order.

This one renders a box-shaped room. Put your camera, simulator or file format in its place. Every function that takes a
capture takes a `FrameSequence`: `adapt`, `evaluate`, `s4net_core.io.captures.scene_folder.write_scene_folder`.

python examples/own_frames.py [FRAMES [STEPS]]     (20 steps: a minute on a CPU)
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from s4net_core import adapt, evaluate, load_model
from s4net_core.config import load_settings
from s4net_core.frames import Frame, Intrinsics
from s4net_core.labels import SUNRGBD37

DEMO = Path(__file__).resolve().parents[1] / "demo"
SIZE = np.array([4.0, 3.0, 2.5])
"""Width, length and height of the room, metres; z points up, the origin is a corner of the floor."""

WALL, FLOOR, CEILING = (SUNRGBD37.names.index(name) + 1 for name in ("wall", "floor", "ceiling"))


class BoxRoom:
    """An empty room, seen from its middle by a camera that turns around and looks up and down.

    Args:
        frames: number of views, 10° from each other.
    """

    name = "box room"

    def __init__(self, frames: int) -> None:
        self.skipped: dict[str, int] = {}  # frames that could not be used, by reason
        self._frames = frames
        self._lens = Intrinsics(width=160, height=120, fx=110.0, fy=110.0, cx=79.5, cy=59.5)

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[Frame]:
        return map(self._frame, range(self._frames))

    def _frame(self, index: int) -> Frame:
        yaw, pitch = np.radians(10 * index), np.radians(30 * np.sin(0.5 * index))
        # Columns: where the camera's x (right), y (down) and z (forward) point in the world.
        forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        T_world_camera = np.eye(4)
        T_world_camera[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
        T_world_camera[:3, 3] = SIZE / 2
        depth, color, label = self._render(T_world_camera)
        return Frame(
            stamp=index * 100_000_000,  # nanoseconds
            color=color,
            depth=depth,
            T_world_camera=T_world_camera,
            intrinsics=self._lens,
            label=label,  # only for `evaluate`; None where you have none
        )

    def _render(self, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Follow a ray from each pixel: depth (H, W) float32 metres, colour (H, W, 3) uint8, class ids (H, W) uint8."""
        lens, eye = self._lens, T_world_camera[:3, 3]
        v, u = np.mgrid[: lens.height, : lens.width]
        rays = (
            np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones(u.shape)], -1)
            @ T_world_camera[:3, :3].T
        )
        with np.errstate(divide="ignore"):
            exits = np.where(rays > 0, (SIZE - eye) / rays, -eye / rays)
        exits[rays == 0] = np.inf
        depth, side = exits.min(-1), exits.argmin(-1)
        label = np.where(side < 2, WALL, np.where(rays[..., 2] < 0, FLOOR, CEILING)).astype(np.uint8)
        pattern = 0.8 + 0.2 * np.sin(6 * (eye + depth[..., None] * rays)).prod(-1)
        color = SUNRGBD37.colorize(label) * pattern[..., None]
        return depth.astype(np.float32), color.astype(np.uint8), label


def main(frames: str = "72", steps: str = "20") -> None:
    """Adapt the demo's network to the room, and measure it before and after."""
    room = BoxRoom(int(frames))
    base = load_model(DEMO / "weights/base.safetensors", load_settings(DEMO / "demo.yaml"))
    # An empty room has three classes. By default the guard would take the loss of all other classes for a collapse.
    guard = {"min_class_ratio": 0.0}
    adapted = adapt(base, room, DEMO / "source", adaptation={"max_steps": int(steps)}, guard=guard)
    for name, model in (("before", base), ("after", adapted)):
        print(f"{name:6}: pixel accuracy {evaluate(model, room).pooled.pixel_accuracy:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
