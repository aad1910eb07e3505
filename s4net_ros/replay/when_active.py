"""Waits until lifecycle nodes are active, and then becomes another program: replay.launch.py starts the bag with it.

``ros2 run s4net_ros when_active /segmentation /adaptation -- ros2 bag play BAG``
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

POLL_S = 0.2
ANSWER_S = 2.0
"""A node that is loading its network does not answer: it is asked again after this many seconds."""
TOLD_S = 10.0
"""Seconds between two lines about what is waited for."""
NOT_FOUND = 127
"""Exit code for a program that does not exist, as shells use it."""


def wait_until_active(node: Node, names: Sequence[str]) -> None:
    """Ask the nodes for their states, one after the other, until each was active.

    Args:
        node: asks; it must not be spun elsewhere.
        names: with their namespaces.
    """
    told = time.monotonic()
    for name in names:
        client = node.create_client(GetState, f"{name}/get_state")
        while (state := _state(node, client)) != "active":
            if time.monotonic() - told > TOLD_S:
                told = time.monotonic()
                node.get_logger().info(f"waiting for {name} to be active: it is {state or 'not there'}")
            time.sleep(POLL_S)
        node.destroy_client(client)


def _state(node: Node, client: Client) -> str:
    """Label of the state; empty when nobody answers."""
    if not client.service_is_ready():
        return ""
    future = client.call_async(GetState.Request())
    rclpy.spin_until_future_complete(node, future, timeout_sec=ANSWER_S)
    if not future.done():
        client.remove_pending_request(future)
        return ""
    label: str = future.result().current_state.label
    return label


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns only if the program cannot be started."""
    parser = argparse.ArgumentParser(prog="when_active", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds to wait after that")
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="lifecycle node, with its namespace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    args, command = parser.parse_args(given[:split]), given[split + 1 :]
    if not command or shutil.which(command[0]) is None:
        print(f"when_active: '{' '.join(command[:1])}' is no program: name one behind --", file=sys.stderr)
        return NOT_FOUND
    # The default of both signals is to end this program, without a traceback.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("when_active")  # SROS 2 knows it by this name
    wait_until_active(node, args.nodes)
    node.destroy_node()
    rclpy.try_shutdown()
    time.sleep(args.delay)
    sys.stdout.flush()
    return os.execvp(command[0], command)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
