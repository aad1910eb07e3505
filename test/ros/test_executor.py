"""The executor of both nodes: cheap while messages stream, and never deaf to services."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="the nodes need rclpy")

import rclpy
from rclpy.node import Node
from std_msgs.msg import Empty, Int32
from std_srvs.srv import Trigger

from s4net_ros import executor as executors
from s4net_ros.executor import LOOK_S, HeldBack, StreamExecutor


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


def test_it_sleeps_after_the_first_message_and_then_only_when_nothing_is_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    received, sleeps = Counter[str](), list[tuple[float, Counter[str]]]()
    outputs = {topic: node.create_publisher(Empty, topic, 10) for topic in ("first", "second")}
    for topic in outputs:
        node.create_subscription(Empty, topic, lambda message, topic=topic: received.update([topic]), 10)

    def sleep(seconds: float) -> None:
        sleeps.append((seconds, received.copy()))
        if len(sleeps) == 1:
            for topic, count in (("first", 2), ("second", 7)):
                for _ in range(count):
                    outputs[topic].publish(Empty())
            time.sleep(0.5)  # until all have come

    monkeypatch.setattr(executors, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    executor = StreamExecutor(bunch=0.03)
    executor.add_node(node)
    end = time.monotonic() + 60.0
    while not all(output.get_subscription_count() for output in outputs.values()) and time.monotonic() < end:
        executor.spin_on()
    outputs["first"].publish(Empty())
    while len(sleeps) < 2 and time.monotonic() < end:
        executor.spin_on()
    assert sleeps == [(0.03, {"first": 1}), (0.03, {"first": 3, "second": 7})]
    while not executor.waits and time.monotonic() < end:
        executor.spin_on()
    assert len(sleeps) == 2  # a node to which nothing comes does not wake up for nothing


def test_of_messages_that_are_held_back_the_newest_are_there_when_they_are_wanted(node: Node) -> None:
    group, numbers, others = HeldBack(), list[int](), list[int]()
    node.create_subscription(Int32, "held", lambda message: numbers.append(message.data), 3, callback_group=group)
    node.create_subscription(Int32, "other", lambda message: others.append(message.data), 100)
    outputs = [node.create_publisher(Int32, topic, 100) for topic in ("held", "other")]
    executor = StreamExecutor()
    executor.add_node(node)

    def spin(done: Callable[[], bool]) -> None:
        end = time.monotonic() + 60.0
        while not done() and time.monotonic() < end:
            executor.spin_on()
        assert done()

    spin(lambda: all(output.get_subscription_count() for output in outputs))
    group.held = True
    for number in range(10):
        for output in outputs:
            output.publish(Int32(data=number))
    spin(lambda: len(others) == 10)
    assert numbers == []
    group.held = False
    spin(lambda: len(numbers) == 3)
    assert numbers == [7, 8, 9]
