"""Services of the adaptation node: a pause is answered at once, the others between two learner steps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from s4net_core.learning.versions import Version
from s4net_ros.adaptation.learner_thread import LearnerThread
from s4net_ros.slow_services import NOT_CONFIGURED, SlowServices, path_below
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
    """``~/pause``, ``~/reset``, ``~/rollback`` and ``~/save_model``.

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
            response.message = "learning goes on"
        return response

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self.answer("reset", response, lambda served: _replace(served, served.learner.session.reset))

    async def _rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self.answer("rollback", response, lambda served: _replace(served, served.learner.session.rollback))

    async def _save_model(self, request: SaveModel.Request, response: SaveModel.Response) -> SaveModel.Response:
        def save(served: Served) -> str:
            path = path_below(served.folder, request.path)
            response.sha256 = served.learner.session.save_model(path)
            return f"written to {path}"

        return await self.answer("save_model", response, save)


def _replace(served: Served, change: Callable[[], Version]) -> str:
    version = change()
    served.learner.recover()
    served.announce(version)
    return f"version {version.number} serves now ({version.path})"
