"""Labelled source sets: one module per format, batches, and `opening`, which picks the format."""
