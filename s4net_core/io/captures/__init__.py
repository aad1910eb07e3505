"""Captures: one module a format, what several of them share, and `opening`, which tells the format."""
