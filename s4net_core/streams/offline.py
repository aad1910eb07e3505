"""Streams without ROS: the assembler with a synchroniser and a transform buffer of its own."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.streams.assembler import FrameAssembler, Picture, PoseLookup
from s4net_core.streams.synchroniser import Synchroniser
from s4net_core.streams.transforms import TransformBuffer


class StreamAssembler(FrameAssembler):
    """`FrameAssembler` for recorded streams.

    Add everything in the order of the recording and `poll` after each; at the end call `end`, and `poll` again.

    Args:
        stream: settings.
        pose_of: where poses come from instead of transforms.
        with_depth: whether colour is matched with depth; False = depth is ignored.
    """

    def __init__(self, stream: StreamSettings, pose_of: PoseLookup | None = None, *, with_depth: bool = True) -> None:
        super().__init__(stream, pose_of or self._transformed)
        self._with_depth = with_depth
        self._transforms = TransformBuffer(round(stream.tf_history * 1e9))
        self._synchroniser = self._new_synchroniser()

    def add_color(self, color: Picture) -> None:
        """One colour image."""
        color = replace(color, number=self.received)
        if self.see_color(color.stamp):
            self._transforms = self._transforms.anew()
            self._synchroniser = self._new_synchroniser()
        elif self._with_depth:
            self._match(0, color)
        else:
            self.add_pair(color, None)

    def add_depth(self, depth: Picture) -> None:
        """One depth image, registered to colour."""
        if self._with_depth:
            self._match(1, depth)

    def add_transform(
        self, parent: str, child: str, stamp: int, T_parent_child: NDArray[np.float64], static: bool = False
    ) -> None:
        """One transform of /tf or /tf_static; if it is not rigid, it is left out, see `details`."""
        try:
            self._transforms.set(parent, child, stamp, T_parent_child, static)
        except BadFrame as error:
            self.note(error.reason, f"transform {parent} -> {child}: {error}")

    def note(self, reason: str, message: str) -> None:
        """Keep a message for `details` about left-out data other than frames."""
        self._details[reason] = message

    def _transformed(self, color: Picture) -> NDArray[np.float64]:
        return self._transforms.lookup(self.stream.fixed_frame, color.frame_id, color.stamp)

    def _new_synchroniser(self) -> Synchroniser:
        return Synchroniser(round(self.stream.sync_slop * 1e9), self.stream.sync_queue)

    def _match(self, stream: int, picture: Picture) -> None:
        if pair := self._synchroniser.add(stream, picture.stamp, picture):
            self.add_pair(*pair)
