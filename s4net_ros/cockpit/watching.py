"""Everything of the cockpit that costs something: it exists only while a browser looks."""

import time
from collections import OrderedDict
from contextlib import ExitStack
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from s4net_core.config import Settings, leaves, with_values
from s4net_core.errors import S4NetError
from s4net_core.io.bags.messages import stamp_ns
from s4net_ros.cockpit.board import Board
from s4net_ros.cockpit.drawing import FRAME, NOTE, Drawing, Pair
from s4net_ros.cockpit.readings import MAP, KeyframeMap
from s4net_ros.cockpit.server import PICTURES
from s4net_ros.node_base import S4NetNode
from s4net_ros.qos import OUTPUT_DEPTH, stream_qos
from s4net_ros.worker import Worker

KEPT = 30
"""Colour images that wait for their labels."""
NO_LABELS_S = 2.0
"""Seconds without labels after which colour is shown alone."""
ASK_AGAIN_S = 1.0
"""Seconds between two questions to a segmentation node that does not answer."""


class Pairs:
    """Matches masks with the colour images that they label, by stamp, and gives out the newest pair alone."""

    def __init__(self) -> None:
        self._colors: OrderedDict[int, Image | CompressedImage] = OrderedDict()
        self._newest: Pair | None = None
        self._labelled = time.monotonic()

    def add_color(self, message: Image | CompressedImage) -> None:
        """A colour image."""
        self._colors[stamp_ns(message.header)] = message
        if len(self._colors) > KEPT:
            self._colors.popitem(last=False)

    def add_mask(self, message: Image) -> None:
        """A mask; one whose colour image did not arrive is left out."""
        color = self._colors.pop(stamp_ns(message.header), None)
        if color is not None:
            self._newest = Pair(color, message)
            self._labelled = time.monotonic()

    def take(self) -> Pair | None:
        """The newest pair that was not taken yet. Where nobody labels, colour alone."""
        pair, self._newest = self._newest, None
        if pair is None and self._colors and time.monotonic() - self._labelled > NO_LABELS_S:
            return Pair(self._colors.popitem()[1], None)
        return pair


class Watching:
    """Subscribes to images and keyframes, and draws them beside the labels of the base model, until `destroy`.

    The segmentation node is asked for its parameters first: they name the base model and the transport of colour. All
    calls come from the executor's thread.

    Args:
        node: subscribes.
        board: takes the values `PICTURES`, `FRAME`, `MAP` and `NOTE`.
    """

    def __init__(self, node: S4NetNode[Any], board: Board) -> None:
        self._node, self._board = node, board
        self._undo = ExitStack()
        self._pairs = Pairs()
        self._drawing: Drawing | None = None
        self._worker: Worker[Pair]
        self._asked: tuple[float, Future] | None = None
        for name in (PICTURES, FRAME, MAP, NOTE):
            self._undo.callback(board.drop, name)
        latched = QoSProfile(depth=OUTPUT_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        keyframes = KeyframeMap(board)
        self._subscribe(MarkerArray, "adaptation/keyframes", lambda m: keyframes.on_markers(m.markers), latched)
        self._client = node.create_client(GetParameters, "segmentation/get_parameters")
        self._undo.callback(node.destroy_client, self._client)
        node.start_housekeeping(1 / node.settings.cockpit.rate, self._tick, self._undo)

    def destroy(self) -> None:
        """End all of it; a frame that is being drawn is left to its thread."""
        self._undo.close()

    def _subscribe(self, kind: Any, topic: str, callback: Any, qos: QoSProfile) -> None:
        self._undo.callback(self._node.destroy_subscription, self._node.create_subscription(kind, topic, callback, qos))

    def _tick(self) -> None:
        if self._drawing is None:
            self._ask()
        elif time.monotonic() >= self._drawing.rest_until and (pair := self._pairs.take()):
            self._worker.put(pair)

    def _ask(self) -> None:
        now = time.monotonic()
        if self._asked and now - self._asked[0] < ASK_AGAIN_S:
            return
        if self._asked:
            self._client.remove_pending_request(self._asked[1])
            self._asked = None
        if not self._client.service_is_ready():
            name = self._node.resolve_service_name("segmentation")
            self._board.put(NOTE, f"{name} is not there: start the nodes")
            return
        names = [leaf.name for leaf in leaves(self._node.settings) if not leaf.name.startswith("cockpit.")]
        future = self._client.call_async(GetParameters.Request(names=names))
        self._asked = now, future
        future.add_done_callback(lambda done: self._answered(names, done.result()))

    def _answered(self, names: list[str], answer: GetParameters.Response | None) -> None:
        if answer is None or self._drawing is not None:
            return
        values = dict(zip(names, map(parameter_value_to_python, answer.values), strict=False))
        given = {name: value for name, value in values.items() if value is not None}
        try:
            self._draw_with(with_values(self._node.settings, given))
        except S4NetError as error:
            self._board.put(NOTE, f"the segmentation node is of another version: {error}")

    def _draw_with(self, settings: Settings) -> None:
        stream = settings.stream
        self._drawing = Drawing(self._board, settings, self._node.get_logger())
        self._worker = Worker("cockpit pictures", self._drawing.draw, self._drawing.failed)
        self._undo.callback(self._worker.stop, 0.0)
        kind = CompressedImage if stream.color_transport == "compressed" else Image
        color = self._node.transport_topic("color/image_raw", stream.color_transport)
        self._subscribe(kind, color, self._pairs.add_color, stream_qos(stream.color_reliability, OUTPUT_DEPTH))
        self._subscribe(Image, "segmentation/mask", self._pairs.add_mask, stream_qos("best_effort", OUTPUT_DEPTH))
