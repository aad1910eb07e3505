"""Reads captures: one module per format, code that several formats share, and `opening`, which picks the format."""
