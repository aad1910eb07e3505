"""ScanNet (Dai et al., CVPR 2017): scans as published, and the six scenes on which the paper reports."""

from pathlib import Path

PAPER_SCENES = ("scene0000", "scene0006", "scene0009", "scene0011", "scene0022", "scene0030")
"""Apartment, hotel room, bathroom, kitchen, lounge, study; each was scanned twice."""


def paper_scan(scans: Path, scene: str, number: int) -> Path:
    """Folder of one scan of a scene of the paper.

    Args:
        scans: ScanNet's folder ``scans``.
        scene: one of `PAPER_SCENES`.
        number: 1 = "Scan 1", unlabelled during adaptation; 2 = "Scan 2", never seen.
    """
    return scans / f"{scene}_{number - 1:02d}"
