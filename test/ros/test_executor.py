"""The executor of both nodes: cheap while messages stream, and never deaf to services."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="the nodes need rclpy")

import rclpy
from rclpy.node import Node
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from s4net_ros import executor as executors
from s4net_ros.executor import LOOK_S, StreamExecutor


@pytest.fixture
def node() -> Iterator[Node]:
    rclpy.init()
    made = rclpy.create_node("streaming")
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def test_services_are_left_out_of_the_waits_that_follow_within_a_tenth_of_a_second(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1.0]  # a clock that does not go on while the machine does something else
    monkeypatch.setattr(executors, "time", SimpleNamespace(monotonic=lambda: now[0]))
    service = node.create_service(Trigger, "call", lambda request, response: response)
    subscription = node.create_subscription(Empty, "topic", lambda message: None, 1)
    executor = StreamExecutor()
    executor.add_node(node)
    executor.get_nodes()
    assert executor.can_execute(service)
    executor.get_nodes()
    assert not executor.can_execute(service)
    assert executor.can_execute(subscription)
    now[0] += LOOK_S
    executor.get_nodes()
    assert executor.can_execute(service)


def test_a_call_is_answered_while_messages_stream(node: Node) -> None:
    node.create_service(Trigger, "call", lambda request, response: response)
    received: list[Empty] = []
    node.create_subscription(Empty, "topic", received.append, 100)
    output, client = node.create_publisher(Empty, "topic", 100), node.create_client(Trigger, "call")
    executor = StreamExecutor()
    executor.add_node(node)
    assert client.wait_for_service(timeout_sec=60.0)
    answer, end = client.call_async(Trigger.Request()), time.monotonic() + 60.0
    while not (answer.done() and received) and time.monotonic() < end:
        output.publish(Empty())
        executor.spin_on()
    assert answer.done()
    assert received


def test_only_the_first_message_of_a_bunch_is_followed_by_a_sleep(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept, received = [1.0], list[float](), list[str]()
    outputs = {topic: node.create_publisher(Empty, topic, 1) for topic in ("first", "second")}

    def first(message: Empty) -> None:
        received.append("first")
        now[0] += 1.0  # as if it had been waited for

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        outputs["second"].publish(Empty())

    node.create_subscription(Empty, "first", first, 1)
    node.create_subscription(Empty, "second", lambda message: received.append("second"), 1)
    monkeypatch.setattr(executors, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    executor = StreamExecutor(bunch=0.03)
    executor.add_node(node)
    while not all(output.get_subscription_count() for output in outputs.values()):
        executor.spin_on()
    outputs["first"].publish(Empty())
    end = time.monotonic() + 60.0
    while "second" not in received and time.monotonic() < end:
        executor.spin_on()
    assert received == ["first", "second"]
    assert slept == [0.03]
