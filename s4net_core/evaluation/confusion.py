"""Picture of a confusion matrix: for each true class, which classes its pixels were given."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from s4net_core.errors import S4NetError
from s4net_core.labels import SUNRGBD37

CELL = 0.3
"""Inches a class."""
DOTS = 110
"""Pixels an inch."""
WRITTEN_FROM = 0.05
"""Smallest share that is written into its cell."""


def row_shares(counts: NDArray[np.int64]) -> tuple[list[int], NDArray[np.float64]]:
    """The rows and columns of a confusion matrix that hold anything, as shares of their row.

    Args:
        counts: (C, C + 1) as `ConfusionMatrix.counts`.

    Returns:
        Class ids n that occur in labels or predictions, rising, and (n, n + 1) shares 0..1: row = true class, column =
        predicted class, the last one = no answer. Rows of classes that are never true are NaN.
    """
    present = (counts.sum(axis=1) > 0) | (counts[:, 1:].sum(axis=0) > 0)
    ids = np.flatnonzero(present) + 1
    shown = counts[present][:, [*ids, 0]].astype(np.float64)
    total = shown.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(shown, total, out=np.full_like(shown, np.nan), where=total > 0)
    return ids.tolist(), shares


def confusion_png(title: str, counts: NDArray[np.int64], names: Sequence[str] = SUNRGBD37.names) -> bytes:
    """The confusion matrix as PNG, each row divided by its sum.

    Args:
        title: above the picture.
        counts: (C, C + 1) as `ConfusionMatrix.counts`.
        names: of the classes, id 1 first.

    Raises:
        S4NetError: no pixel was counted.
    """
    if not counts.any():
        raise S4NetError(f"confusion matrix '{title}' is empty: use images with labels")
    ids, shares = row_shares(counts)
    shown = [names[id - 1] for id in ids]
    side = CELL * len(ids)
    figure = Figure(figsize=(side + 2.6, side + 1.9), dpi=DOTS, layout="constrained", facecolor="white")
    ax = figure.subplots()
    picture = ax.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    ax.set_xticks(range(len(ids) + 1), [*shown, "no answer"], rotation=90, fontsize=8)
    ax.set_yticks(range(len(ids)), shown, fontsize=8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title, fontsize=10)
    for row, column in np.argwhere(np.nan_to_num(shares) >= WRITTEN_FROM):
        share = shares[row, column]
        ink = "white" if share > 0.5 else "black"
        ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color=ink)
    figure.colorbar(picture, ax=ax, shrink=0.6, label="share of the true class")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
