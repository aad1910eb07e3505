"""Poses for captures that have none: RGB-D views are tied to each other with Open3D, and a pose graph is solved."""
