"""Measures the cost of each part against a comparison in the same run."""
