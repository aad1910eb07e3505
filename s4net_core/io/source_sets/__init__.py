"""Labelled source sets: one module a format, batches of them, and `opening`, which tells the format."""
