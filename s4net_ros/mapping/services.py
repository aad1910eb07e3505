"""Services of the node that maps: save, load, and find the places of a class."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rclpy.node import Node
from std_msgs.msg import Header

from s4net_core.errors import S4NetError
from s4net_core.labels import UNLABELLED
from s4net_core.mapping import SemanticMap
from s4net_ros.mapping.messages import detections_message
from s4net_ros.slow_services import SlowServices, in_thread, path_below
from s4net_ros.srv import FindObjects, MapFile


@dataclass(frozen=True)
class Served:
    """Parts of a configured node that its services use.

    Args:
        map: is saved, and asked.
        load: puts a saved map in its place; raises S4NetError.
        frame: gives the name of the map's frame.
        folder: where relative paths start.
    """

    map: SemanticMap
    load: Callable[[Path], None]
    frame: Callable[[], str]
    folder: Path


class MapServices:
    """``~/save``, ``~/load`` and ``~/find``, which exist from the start of the node.

    Inside a `serving` block they do what is asked for; outside they answer that the node is not configured.

    Args:
        node: serves.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._served: Served | None = None
        self._slow = SlowServices(node)
        group = self._slow.group
        node.create_service(MapFile, "~/save", self._save, callback_group=group)
        node.create_service(MapFile, "~/load", self._load, callback_group=group)
        node.create_service(FindObjects, "~/find", self._find, callback_group=group)

    @contextmanager
    def serving(self, served: Served) -> Iterator[None]:
        """Block in which the node is configured."""
        self._served = served
        try:
            yield
        finally:
            self._served = None

    async def _save(self, request: MapFile.Request, response: MapFile.Response) -> MapFile.Response:
        def save(served: Served) -> str:
            path = path_below(served.folder, request.path)
            served.map.save(path)
            return f"{len(served.map)} voxels written to {path}"

        return await self._answer("save", response, save)

    async def _load(self, request: MapFile.Request, response: MapFile.Response) -> MapFile.Response:
        def load(served: Served) -> str:
            path = path_below(served.folder, request.path)
            served.load(path)
            return f"{len(served.map)} voxels read from {path}"

        return await self._answer("load", response, load)

    async def _find(self, request: FindObjects.Request, response: FindObjects.Response) -> FindObjects.Response:
        def find(served: Served) -> str:
            space = served.map.space
            id = space.id_of(request.class_name)
            if id in (None, UNLABELLED):
                names = ", ".join(space.names[id - 1] for id in space.shown_ids)
                raise S4NetError(f"class '{request.class_name}' is unknown: use one of {names}")
            header = Header(frame_id=served.frame(), stamp=self._node.get_clock().now().to_msg())
            response.detections = detections_message(served.map.find(id), id, header)
            return f"{len(response.detections.detections)} places of {space.names[id - 1]}"

        return await self._answer("find", response, find)

    async def _answer(
        self, name: str, response: MapFile.Response | FindObjects.Response, work: Callable[[Served], str]
    ) -> MapFile.Response | FindObjects.Response:
        served = self._served
        if served is None:
            return await self._slow.answer(name, response, None, str)
        return await self._slow.answer(name, response, in_thread, lambda: work(served))
