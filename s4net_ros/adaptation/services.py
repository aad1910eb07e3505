"""Services of the adaptation node: a pause is answered at once, the others between two learner steps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from s4net_core.errors import S4NetError
from s4net_core.learning.versions import Version
from s4net_ros.adaptation.learner_thread import LearnerThread
from s4net_ros.slow_services import NOT_CONFIGURED, Answer, SlowServices, path_below
from s4net_ros.srv import SaveModel


@dataclass(frozen=True)
class Served:
    """Parts of a configured node that its services use.

    Args:
        learner: does the work.
        announce: called on the learner's thread with the version that serves after a reset or roll-back.
        folder: where relative paths of ``~/save_model`` start.
    """

    learner: LearnerThread
    announce: Callable[[Version], None]
    folder: Path


class AdaptationServices(SlowServices[Served]):
    """``~/pause``, ``~/reset``, ``~/rollback`` and ``~/save_model``; what was done is logged.

    Services that need the learner are coroutines: while they await it, the executor serves everything else.

    Args:
        node: serves.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(node, lambda served, work: served.learner.submit(work))
        node.create_service(SetBool, "~/pause", self._pause, callback_group=self.group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=self.group)
        node.create_service(Trigger, "~/rollback", self._rollback, callback_group=self.group)
        node.create_service(SaveModel, "~/save_model", self._save_model, callback_group=self.group)

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self.served is not None
        if self.served is None:
            response.message = NOT_CONFIGURED
        elif request.data:
            self.served.learner.pause()
            response.message = "learning is paused"
        else:
            self.served.learner.resume()
            response.message = f"learning is not paused, its state is {self.served.learner.session.state}"
        self._log("pause", response)
        return response

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._logged("reset", response, _reset)

    async def _rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._logged("rollback", response, _roll_back)

    async def _save_model(self, request: SaveModel.Request, response: SaveModel.Response) -> SaveModel.Response:
        def save(served: Served) -> str:
            path = path_below(served.folder, request.path)
            session = served.learner.session
            response.sha256 = session.save_model(path)
            return f"version {session.current.number} written to {path}"

        return await self._logged("save_model", response, save)

    async def _logged(self, name: str, response: Answer, work: Callable[[Served], str]) -> Answer:
        await self.answer(name, response, work)
        self._log(name, response)
        return response

    def _log(self, name: str, response: Any) -> None:
        if response.success:
            self._node.get_logger().info(f"~/{name}: {response.message}")


def _reset(served: Served) -> str:
    session = served.learner.session
    keyframes = len(session.keyframes)
    return f"{_replace(served, session.reset)}, keyframes forgotten: {keyframes}{_doubt(served)}"


def _roll_back(served: Served) -> str:
    session = served.learner.session
    given_up = session.current.number
    if not given_up:
        raise S4NetError("version 0, the base model, serves: there is no earlier version")
    return f"{_replace(served, session.rollback)}, version {given_up} is given up{_doubt(served)}"


def _replace(served: Served, change: Callable[[], Version]) -> str:
    version = change()
    served.learner.recover()
    served.announce(version)
    return f"version {version.number} serves now ({version.path})"


def _doubt(served: Served) -> str:
    unsaved = served.learner.session.status.unsaved
    return f"; not saved yet, a restart now would undo it: {unsaved}" if unsaved else ""
