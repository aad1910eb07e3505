"""Views with depth, camera and pose, and ordered pairs of them: what the warp and the overlap are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.errors import ShapeError
from s4net_core.geometry.camera import working_dtype
from s4net_core.geometry.shapes import check_shape


@dataclass(frozen=True, eq=False)
class Views:
    """B views of one size.

    Args:
        depth: (B, 1, H, W), metres; not finite, or outside the range in the settings = none.
        K: (B, 3, 3), pixels, pixel centres at integer coordinates; on the device of `depth`.
        T_world_camera: (B, 4, 4) float64, maps camera coordinates to world. It stays on the CPU in double precision,
            because two places far from the world's origin differ by little.

    Raises:
        ShapeError: an array has another shape.
    """

    depth: Tensor
    K: Tensor
    T_world_camera: NDArray[np.float64]

    def __post_init__(self) -> None:
        check_shape("depth", self.depth, "B", 1, "H", "W")
        check_shape("K", self.K, "B", 3, 3, B=len(self))
        check_shape("T_world_camera", self.T_world_camera, "B", 4, 4, B=len(self))

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), pixels."""
        return self.depth.shape[2], self.depth.shape[3]

    def repeated(self, count: int) -> "Views":
        """The same view `count` times, without copies of its depth; for views of which there is exactly one."""
        T_world_camera = np.broadcast_to(self.T_world_camera, (count, 4, 4))
        return Views(self.depth.expand(count, -1, -1, -1), self.K.expand(count, -1, -1), T_world_camera)


def joined(parts: Sequence[Views]) -> Views:
    """The views of all parts, one after the other; they have one size."""
    return Views(
        torch.cat([part.depth for part in parts]),
        torch.cat([part.K for part in parts]),
        np.concatenate([part.T_world_camera for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class Pairs:
    """B ordered pairs: the n-th target with the n-th neighbour.

    Args:
        target: views whose pixels are looked up.
        neighbour: views in which they are looked up; they may have another size.

    Raises:
        ShapeError: there is not one neighbour for each target.
    """

    target: Views
    neighbour: Views

    def __post_init__(self) -> None:
        if len(self.target) != len(self.neighbour):
            raise ShapeError(
                f"pairs have {len(self.target)} targets but {len(self.neighbour)} neighbours: give one for each"
            )

    @cached_property
    def T_neighbour_target(self) -> Tensor:
        """(B, 4, 4), maps target camera coordinates to neighbour camera coordinates.

        Computed in float64, given in the precision and on the device of the target's depth, at least float32.
        """
        T = np.linalg.inv(self.neighbour.T_world_camera) @ self.target.T_world_camera
        return torch.from_numpy(T).to(self.target.depth.device, working_dtype(self.target.depth))
