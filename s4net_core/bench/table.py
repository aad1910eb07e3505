"""The cases of ``s4net bench``, and the table of their measurements."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

CASES = {
    "step": "a step of S4-Net against the same number of images trained with L_S alone",
    "warp": "the warp with its validity tests against kornia's without",
    "neighbours": "the keyframe buffer against a scan over all poses, at 100, 1k and 10k keyframes",
    "map": "a view fused into the semantic map, and its voxels counted against Open3D's hash map",
    "source": "how fast labelled images are read, packed and as they are, against what a training step needs",
    "live": "labelling against the bare forward pass, and the live node at camera rate",
    "ingest": "how fast a bag becomes frames, against reading its images with rosbags and decoding them",
    "stream": "the share of a CPU core that the adaptation node takes at 30 Hz, against a bare subscriber of rclpy",
}


class Row(NamedTuple):
    """One measurement.

    Args:
        name: what was measured.
        value: median time, or a rate.
        unit: of `value`.
        ratio: how many times as fast as its comparison, more than 1 = faster; None = no comparison.
    """

    name: str
    value: float
    unit: str
    ratio: float | None


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print measurements as a table."""
    table = Table("what", "measured", "times as fast", title=title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", ratio)
    Console().print(table)
