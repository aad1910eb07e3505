"""Services whose work takes long: it is done on another thread, and the executor serves everything else meanwhile."""

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import Future as Work
from pathlib import Path
from typing import Any, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from s4net_core.errors import S4NetError
from s4net_ros.worker import describe

Answer = TypeVar("Answer")
Submit = Callable[[Callable[[], str]], "Work[str]"]
"""Hands work to another thread."""
NOT_CONFIGURED = "the node is not configured"


class SlowServices:
    """Answers services with the result of their work; callbacks await `answer`.

    Args:
        node: serves, with `group` as the callback group: in its default group no other callback could run meanwhile.
    """

    def __init__(self, node: Node) -> None:
        self.group = ReentrantCallbackGroup()
        self._node = node
        self._waiting: set[str] = set()
        """Services whose work waits or runs: a second call is refused, so that no queue of them stops everything."""
        self._wake = node.create_guard_condition(lambda: None, callback_group=self.group)

    async def answer(self, name: str, response: Answer, submit: Submit | None, work: Callable[[], str]) -> Answer:
        """Do the work of a service and fill in ``success`` and ``message`` of its response.

        Args:
            name: of the service.
            response: has these two fields.
            submit: None = the node is not configured.
            work: gives the message; the text of its error becomes the message instead.
        """
        result: Any = response
        if submit is None or name in self._waiting:
            result.success = False
            result.message = f"an earlier {name} has not ended yet: wait for it" if submit else NOT_CONFIGURED
            return response
        self._waiting.add(name)
        try:
            result.success, result.message = await self._result(submit, work)
        finally:
            self._waiting.discard(name)
        return response

    async def _result(self, submit: Submit, work: Callable[[], str]) -> tuple[bool, str]:
        done: Future = Future()
        result = submit(work)
        result.add_done_callback(lambda _: (done.set_result(None), self._wake.trigger()))
        await done
        try:
            return True, result.result()
        except CancelledError:
            return False, "the node was shut down first"
        except Exception as error:
            if not isinstance(error, S4NetError | OSError):
                self._node.get_logger().error("".join(traceback.format_exception(error)))
            return False, describe(error)


def in_thread(work: Callable[[], str]) -> "Work[str]":
    """Do the work on a thread of its own, which nobody waits for at the end of the process."""
    result: Work[str] = Work()

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:  # the caller gets it
            result.set_exception(error)

    threading.Thread(target=run, name="service", daemon=True).start()
    return result


def path_below(folder: Path, path: str) -> Path:
    """The file that a service's request names; a relative path starts at `folder`, and ``~`` is a home.

    Raises:
        S4NetError: it is empty, or of a user who is not there.
    """
    if not path:
        raise S4NetError("path is empty: name the file, e.g. /tmp/file")
    try:
        return folder / Path(path).expanduser()
    except RuntimeError as error:  # there is no such user
        raise S4NetError(f"path is '{path}': {error}; give an absolute path") from error
