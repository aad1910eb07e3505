"""Services of the adaptation node: a pause is answered at once, the others between two learner steps."""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from s4net_core.errors import CheckpointError, S4NetError
from s4net_core.learning.versions import Version
from s4net_ros.adaptation.learner_thread import LearnerThread, describe
from s4net_ros.srv import SaveModel

Answer = TypeVar("Answer", Trigger.Response, SaveModel.Response)

NOT_CONFIGURED = "the node is not configured"


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


class AdaptationServices:
    """``~/pause``, ``~/reset``, ``~/rollback`` and ``~/save_model``, which exist from the start of the node.

    Inside a `serving` block they do what is asked for; outside they answer that the node is not configured.

    Services that need the learner are coroutines: while they await it, the executor serves everything else.

    Args:
        node: serves.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._served: Served | None = None
        self._waiting: set[str] = set()
        """Services whose work waits or runs: a second call is refused, so that no queue of resets stops learning."""
        # In the node's default group no other callback could run while one of these services waits.
        group = ReentrantCallbackGroup()
        self._wake = node.create_guard_condition(lambda: None, callback_group=group)
        node.create_service(SetBool, "~/pause", self._pause, callback_group=group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=group)
        node.create_service(Trigger, "~/rollback", self._rollback, callback_group=group)
        node.create_service(SaveModel, "~/save_model", self._save_model, callback_group=group)

    @contextmanager
    def serving(self, served: Served) -> Iterator[None]:
        """Block in which the node is configured."""
        self._served = served
        try:
            yield
        finally:
            self._served = None

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._served is not None
        if self._served is None:
            response.message = NOT_CONFIGURED
        elif request.data:
            self._served.learner.pause()
            response.message = "learning is paused"
        else:
            self._served.learner.resume()
            response.message = "learning goes on"
        return response

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer("reset", response, lambda served: _replace(served, served.learner.session.reset))

    async def _rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(
            "rollback", response, lambda served: _replace(served, served.learner.session.rollback)
        )

    async def _save_model(self, request: SaveModel.Request, response: SaveModel.Response) -> SaveModel.Response:
        def save(served: Served) -> str:
            if not request.path:
                raise CheckpointError("path is empty: name the file to write, e.g. /tmp/model.safetensors")
            path = served.folder / _expanded(request.path)
            response.sha256 = served.learner.session.save_model(path)
            return f"written to {path}"

        return await self._answer("save_model", response, save)

    async def _answer(self, name: str, response: Answer, work: Callable[[Served], str]) -> Answer:
        """Do the `work` of a service on the learner's thread; the text of an error becomes the answer's message."""
        served = self._served
        if served is None or name in self._waiting:
            response.success = False
            response.message = f"an earlier {name} has not ended yet: wait for it" if served else NOT_CONFIGURED
            return response
        self._waiting.add(name)
        try:
            return await self._done(response, served, work)
        finally:
            self._waiting.discard(name)

    async def _done(self, response: Answer, served: Served, work: Callable[[Served], str]) -> Answer:
        done: Future = Future()
        result = served.learner.submit(lambda: work(served))
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


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # there is no such user
        raise CheckpointError(f"path is '{path}': {error}; give an absolute path") from error


def _replace(served: Served, change: Callable[[], Version]) -> str:
    version = change()
    served.learner.recover()
    served.announce(version)
    return f"version {version.number} serves now ({version.path})"
