"""ROS recordings as messages: storage that is read even when damaged, a writer, and what the messages mean.

Frames are put together from them in `captures.rosbag`.
"""
