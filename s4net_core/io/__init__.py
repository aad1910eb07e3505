"""Formats: captures that yield frames, labelled source sets, rosbag2 reading and writing."""
