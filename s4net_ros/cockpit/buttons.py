"""The cockpit's buttons: each calls a service of the adaptation node."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from s4net_ros.cockpit.board import Board
from s4net_ros.srv import SaveModel

ACTION = "action"
ANSWER_S = 60.0
"""Seconds after which a button may be pressed again though nobody has answered."""


class Buttons:
    """Calls one service at a time and shows on the board what came of it. All calls come from the executor's thread.

    Args:
        node: calls.
        board: takes the value `ACTION`: name of the button, state (``running``, ``done``, ``failed``) and text.
        undo: collects how to destroy the clients.
    """

    def __init__(self, node: Node, board: Board, undo: ExitStack) -> None:
        self._node, self._board = node, board
        self._waiting: tuple[float, Client, Future] | None = None
        services = {"pause": SetBool, "rollback": Trigger, "reset": Trigger, "save_model": SaveModel}
        self._clients = {name: node.create_client(kind, f"adaptation/{name}") for name, kind in services.items()}
        for client in self._clients.values():
            undo.callback(node.destroy_client, client)

    def press(self, name: str) -> None:
        """Do what a button says. An unknown one is shown as failed; so is any while another waits for its answer."""
        if name not in REQUESTS:
            self._show(name[:20], "failed", f"there is no such button: use one of {', '.join(REQUESTS)}")
            return
        if self._waiting:
            since, asked, future = self._waiting
            if time.monotonic() - since < ANSWER_S:
                return  # the page shows the one that waits
            asked.remove_pending_request(future)  # else a late answer would be shown as that of the next call
        service, request = REQUESTS[name]
        client = self._clients[service]
        if not client.service_is_ready():
            service = self._node.resolve_service_name(client.srv_name)
            self._show(name, "failed", f"nobody serves {service}: start the nodes")
            return
        self._show(name, "running", "")
        self._waiting = (time.monotonic(), client, client.call_async(request()))
        self._waiting[2].add_done_callback(lambda future: self._answered(name, future.result()))

    def _answered(self, name: str, answer: Any) -> None:
        self._waiting = None
        self._show(name, "done" if answer.success else "failed", answer.message)

    def _show(self, name: str, state: str, text: str) -> None:
        self._board.put(ACTION, {"name": name, "state": state, "text": text[:500], "at": time.time()})


def _new_file() -> SaveModel.Request:
    """A new file in the node's state folder: a browser names no path."""
    return SaveModel.Request(path=time.strftime("saved-%Y%m%d-%H%M%S.safetensors", time.gmtime()))


REQUESTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "pause": ("pause", lambda: SetBool.Request(data=True)),
    "resume": ("pause", lambda: SetBool.Request(data=False)),
    "rollback": ("rollback", Trigger.Request),
    "reset": ("reset", Trigger.Request),
    "save": ("save_model", _new_file),
}
"""Service and request by button."""
