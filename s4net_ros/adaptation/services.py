"""Services of the adaptation node: answered between two learner steps at the latest, a pause at once."""

import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from s4net_core.errors import CheckpointError, S4NetError
from s4net_core.learning.adapt import Handover
from s4net_core.learning.versions import Version
from s4net_ros.adaptation.learner_thread import LearnerThread, describe
from s4net_ros.srv import SaveModel

Answer = TypeVar("Answer", Trigger.Response, SaveModel.Response)


class AdaptationServices:
    """``~/pause``, ``~/reset``, ``~/rollback`` and ``~/save_model``; there from the start, so that all get an answer.

    What has to wait for the learner is awaited and not waited for: the executor serves everything else meanwhile.

    Args:
        node: serves.
        learner: gives the learner, or None while the node is not configured.
        announce: called on the learner's thread with the version that serves after a reset or roll-back.
        folder: where relative paths of ``~/save_model`` start.
    """

    def __init__(
        self,
        node: Node,
        learner: Callable[[], LearnerThread | None],
        announce: Callable[[Version], None],
        folder: Callable[[], Path],
    ) -> None:
        self._node = node
        self._learner = learner
        self._announce = announce
        self._folder = folder
        # The node's default group would let nothing else run while one of these waits.
        group = ReentrantCallbackGroup()
        self._wake = node.create_guard_condition(lambda: None, callback_group=group)
        node.create_service(SetBool, "~/pause", self._pause, callback_group=group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=group)
        node.create_service(Trigger, "~/rollback", self._rollback, callback_group=group)
        node.create_service(SaveModel, "~/save_model", self._save_model, callback_group=group)

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        learner = self._learner()
        response.success = learner is not None
        if learner is None:
            response.message = "the node is not configured"
        elif request.data:
            learner.pause()
            response.message = "learning is paused"
        else:
            learner.resume()
            response.message = "learning goes on"
        return response

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, lambda learner: self._replace(learner, learner.adaptation.reset))

    async def _rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, lambda learner: self._replace(learner, learner.adaptation.rollback))

    async def _save_model(self, request: SaveModel.Request, response: SaveModel.Response) -> SaveModel.Response:
        def save(learner: LearnerThread) -> str:
            if not request.path:
                raise CheckpointError("path is empty: name the file to write, e.g. /tmp/model.safetensors")
            path = self._folder() / Path(request.path).expanduser()
            response.sha256 = learner.adaptation.save_model(path)
            return f"written to {path}"

        return await self._answer(response, save)

    def _replace(self, learner: LearnerThread, change: Callable[[], Handover]) -> str:
        version = change().version
        learner.recover()
        self._announce(version)
        return f"version {version.number} serves now ({version.path})"

    async def _answer(self, response: Answer, work: Callable[[LearnerThread], str]) -> Answer:
        """Do `work` on the learner's thread; what goes wrong becomes the answer's text."""
        learner = self._learner()
        if learner is None:
            response.success, response.message = False, "the node is not configured"
            return response
        done: Future = Future()
        result = learner.submit(lambda: work(learner))
        result.add_done_callback(lambda _: (done.set_result(None), self._wake.trigger()))
        await done
        try:
            response.success, response.message = True, result.result()
        except CancelledError:
            response.success, response.message = False, "the node was shut down first"
        except Exception as error:
            response.success, response.message = False, describe(error)
            if not isinstance(error, S4NetError | OSError):
                self._node.get_logger().error("".join(traceback.format_exception(error)))
        return response
