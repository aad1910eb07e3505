"""Scores, agreement between views, and reports."""
