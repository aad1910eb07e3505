"""What a group of settings is made of."""

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SMALLEST_SIDE = 32


def _large_enough(side: int) -> int:
    if 0 < side < SMALLEST_SIDE:
        raise ValueError(f"too few pixels for a network: give 0 for the default, or {SMALLEST_SIDE} to 4096")
    return side


ImageSide = Annotated[int, AfterValidator(_large_enough)]
"""Width or height of a network's images, pixels; 0 = it follows from something else."""
FilePath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file or folder, or a name in place of one; ~ at its beginning is the user's home, whoever wrote it."""


def setting(default: Any, help: str, *, unit: str = "", live: bool = False, **limits: Any) -> Any:
    """One setting.

    Args:
        default: value when nobody says otherwise.
        help: one line for YAML comments, ``--help`` and the ROS parameter description, which is shown alone: it must
            be understood without its neighbours.
        unit: e.g. ``m``, ``deg``, ``s``; empty = none.
        live: may change while a node runs; everything else is read-only after start-up.
        limits: ``ge``, ``gt``, ``le``, ``lt`` of pydantic's ``Field``.
    """
    return Field(default=default, description=help, json_schema_extra={"unit": unit, "live": live}, **limits)


class Group(BaseModel):
    """Base of every group: unknown names are refused, values are checked on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False)
