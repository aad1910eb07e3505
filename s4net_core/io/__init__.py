"""Formats, one package per kind: captures that yield frames, labelled source sets, bags, label files and images.

Modules that several packages share lie at the root. Packages import each other in one direction:
captures, source_sets -> bags, label_files -> images.
"""
