"""config/fastdds.xml: images between two processes at camera rate, best effort, none lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import array

import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import Empty

from s4net_core.machine.dds import dds_profile_variable
from s4net_ros.graph import fastdds_environment
from s4net_ros.qos import stream_qos

WIDTH, HEIGHT, FRAMES, HZ = 640, 480, 60, 30.0

LISTENER = f"""
import sys, time
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import Empty
from s4net_ros.qos import stream_qos

rclpy.init()
node = rclpy.create_node("listener")
heard = node.create_publisher(Empty, "heard", 1)
stamps = []

def on_image(message):
    if message.header.stamp.sec:
        stamps.append(message.header.stamp.sec)
    else:
        heard.publish(Empty())

node.create_subscription(Image, "color/image_raw", on_image, stream_qos("best_effort", 10))
executor = SingleThreadedExecutor()
executor.add_node(node)
end = time.monotonic() + 60
while time.monotonic() < end and {FRAMES} not in stamps:
    executor.spin_once(timeout_sec=0.1)
print(*stamps)
"""


def test_no_image_is_lost_between_two_processes() -> None:
    environment = {**os.environ, **fastdds_environment(fastdds_profile="local")}
    assert Path(environment[dds_profile_variable()]).is_file()
    listener = subprocess.Popen([sys.executable, "-c", LISTENER], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([sys.executable, __file__], env=environment, check=True, timeout=60)
        stamps, _ = listener.communicate(timeout=70)
    finally:
        listener.kill()
        listener.wait()
    assert stamps.split() == [str(i) for i in range(1, FRAMES + 1)]


def publish() -> None:
    """Run in a process of its own, so that the profile is read before rclpy is imported."""
    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "color/image_raw", stream_qos("best_effort", 10))
    heard: list[Empty] = []
    node.create_subscription(Empty, "heard", heard.append, 1)
    message = Image(width=WIDTH, height=HEIGHT, step=3 * WIDTH, encoding="rgb8")
    message.data = array.array("B", bytes(3 * WIDTH * HEIGHT))
    while not heard:  # stamp 0 until discovery is over in both directions
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=0.2)
    start = time.monotonic()
    for i in range(1, FRAMES + 1):
        message.header.stamp.sec = i
        publisher.publish(message)
        time.sleep(max(0.0, start + i / HZ - time.monotonic()))
    time.sleep(0.5)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    publish()
