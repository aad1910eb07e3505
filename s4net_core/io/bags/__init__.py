"""ROS recordings as messages: storage that is read even when damaged, a writer, and conversions of messages.

`captures.rosbag` puts frames together from the messages.
"""
