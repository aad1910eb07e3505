"""Formats, one room a kind: captures that yield frames, labelled source sets, bags, label files and images.

What several rooms share lies at the root. The rooms know each other one way:
captures, source_sets -> bags, label_files -> images.
"""
