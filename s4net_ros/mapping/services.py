"""Services of the node that maps: save, load, and find the places of a class."""

from collections.abc import Callable
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


class MapServices(SlowServices[Served]):
    """``~/save``, ``~/load`` and ``~/find``.

    Args:
        node: serves.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(node, lambda served, work: in_thread(work))
        node.create_service(MapFile, "~/save", self._save, callback_group=self.group)
        node.create_service(MapFile, "~/load", self._load, callback_group=self.group)
        node.create_service(FindObjects, "~/find", self._find, callback_group=self.group)

    async def _save(self, request: MapFile.Request, response: MapFile.Response) -> MapFile.Response:
        def save(served: Served) -> str:
            path = path_below(served.folder, request.path)
            if not len(served.map) and path.exists():
                raise S4NetError(f"the map is empty: {path} stays as it is; remove it, or name another file")
            return f"{served.map.save(path)} voxels written to {path}"

        return await self.answer("save", response, save)

    async def _load(self, request: MapFile.Request, response: MapFile.Response) -> MapFile.Response:
        def load(served: Served) -> str:
            path = path_below(served.folder, request.path)
            served.load(path)
            return f"{len(served.map)} voxels read from {path}"

        return await self.answer("load", response, load)

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

        return await self.answer("find", response, find)
