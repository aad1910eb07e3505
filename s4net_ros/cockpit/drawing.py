"""Turns a colour image and its mask into the pictures of the page, on a thread of its own."""

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from s4net_core.config import Settings
from s4net_core.errors import S4NetError
from s4net_core.io.bags.messages import stamp_ns
from s4net_ros.cockpit.board import Board
from s4net_ros.cockpit.server import PICTURES
from s4net_ros.conversions import color_from_topic
from s4net_ros.worker import for_log

if TYPE_CHECKING:  # imports torch, which takes seconds and memory
    from s4net_ros.cockpit.comparison import Comparison

FRAME, NOTE = "frame", "note"
TRY_AGAIN_S = 5.0
"""Seconds before a base model that could not be loaded is tried again."""
LOADING = "the base model is being loaded"


@dataclass(frozen=True)
class Pair:
    """A colour image and the mask of the same stamp; None = nobody labels."""

    color: Image | CompressedImage
    mask: Image | None


class Drawing:
    """Puts pictures onto the board. The base model is loaded with the first frame that somebody labelled.

    Args:
        board: takes the values `PICTURES`, `FRAME` and `NOTE`.
        settings: of the segmentation node.
        logger: takes what was not foreseen.
    """

    def __init__(self, board: Board, settings: Settings, logger: RcutilsLogger) -> None:
        self._board, self._settings, self._logger = board, settings, logger
        self._comparison: Comparison | None = None
        self._problem, self._try_again = "", -math.inf
        self.rest_until = -math.inf
        """When the next frame may come, monotonic seconds: it rests as long as it worked, the robot comes first."""

    def draw(self, pair: Pair) -> None:
        """Draw one frame."""
        started, color, stamp = time.monotonic(), color_from_topic(pair.color), stamp_ns(pair.color.header) / 1e9
        if pair.mask is None:
            self._show(self._only(color), stamp, "no labels come: is the segmentation node active?")
        else:
            if self._comparison is None and started >= self._try_again:
                self._show(self._only(color), stamp, LOADING)
                self._load()
            if self._comparison is None:
                self._show(self._only(color), stamp, self._problem)
            else:
                pictures, facts = self._comparison.draw(color, color_from_topic(pair.mask)[..., 0])
                self._show(pictures, stamp, "", **facts)
        now = time.monotonic()
        self.rest_until = 2 * now - started

    def failed(self, pair: Pair, error: Exception) -> None:
        """Say why a frame was not drawn."""
        self.rest_until = time.monotonic() + TRY_AGAIN_S
        self._board.put(NOTE, f"a frame is not shown: {error}")
        if not isinstance(error, S4NetError):  # unforeseen: log where
            self._logger.error(for_log(error))

    def _load(self) -> None:
        from s4net_ros.cockpit.comparison import Comparison

        try:
            self._comparison = Comparison(self._settings)
        except S4NetError as error:
            self._problem = f"there are no labels of the base model: {error}"
            self._try_again = time.monotonic() + TRY_AGAIN_S

    def _only(self, color: Any) -> dict[str, bytes]:
        from s4net_ros.cockpit.pictures import jpeg, shrunk  # late: loads Matplotlib

        return {"color": jpeg(shrunk(color, self._settings.cockpit.picture_width))}

    def _show(self, pictures: dict[str, bytes], stamp: float, note: str, **facts: Any) -> None:
        self._board.put(PICTURES, pictures)
        self._board.put(FRAME, {"stamp": stamp, **facts})
        self._board.put(NOTE, note)
