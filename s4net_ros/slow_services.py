"""Services whose work takes long: it is done on another thread, and the executor serves everything else meanwhile."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import Future as Work
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from s4net_core.errors import S4NetError
from s4net_ros.worker import describe, for_log

Answer = TypeVar("Answer")
Served = TypeVar("Served")
NOT_CONFIGURED = "the node is not configured"


class SlowServices(Generic[Served]):
    """Services that exist from the start of the node; their callbacks await `answer`, which does their work.

    Inside a `serving` block they do what is asked for; outside they answer that the node is not configured.

    Args:
        node: serves, with `group` as the callback group: in its default group no other callback could run meanwhile.
        submit: hands work to another thread, given the parts of the configured node.
    """

    def __init__(self, node: Node, submit: "Callable[[Served, Callable[[], str]], Work[str]]") -> None:
        self.group = ReentrantCallbackGroup()
        self.served: Served | None = None
        """Parts of the configured node that its services use; None = the node is not configured."""
        self._node = node
        self._submit = submit
        self._waiting: set[str] = set()
        """Services whose work waits or runs: a second call is refused, so that no queue of them stops everything."""
        self._wake = node.create_guard_condition(lambda: None, callback_group=self.group)

    @contextmanager
    def serving(self, served: Served) -> Iterator[None]:
        """Block in which the node is configured."""
        self.served = served
        try:
            yield
        finally:
            self.served = None

    async def answer(self, name: str, response: Answer, work: Callable[[Served], str]) -> Answer:
        """Do the work of a service and fill in ``success`` and ``message`` of its response.

        Args:
            name: of the service.
            response: has these two fields.
            work: gives the message; the text of its error becomes the message instead.
        """
        result: Any = response
        served = self.served
        if served is None or name in self._waiting:
            result.success = False
            result.message = NOT_CONFIGURED if served is None else f"an earlier {name} has not ended yet: wait for it"
            return response
        self._waiting.add(name)
        try:
            result.success, result.message = await self._result(self._submit(served, lambda: work(served)))
        finally:
            self._waiting.discard(name)
        return response

    async def _result(self, result: "Work[str]") -> tuple[bool, str]:
        done: Future = Future()
        result.add_done_callback(lambda _: (done.set_result(None), self._wake.trigger()))
        await done
        try:
            return True, result.result()
        except CancelledError:
            return False, "the node was shut down first"
        except Exception as error:
            if not isinstance(error, S4NetError | OSError):
                self._node.get_logger().error(for_log(error))
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
