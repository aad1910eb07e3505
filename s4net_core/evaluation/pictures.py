"""Pictures for reports: an image with its labels before and after adaptation, and curves over steps."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from s4net_core.errors import S4NetError, ShapeError
from s4net_core.files import write_result
from s4net_core.labels import SUNRGBD37, UNLABELLED, LabelSpace, from_mask

FIXED, BROKEN, OTHER = (46, 160, 67), (215, 58, 73), (227, 160, 8)
"""Colours of a pixel that became right, became wrong, or went from one wrong class to another."""
_NEUTRAL = "#8b8d98"
"""Readable on light and on dark pages."""


@dataclass(frozen=True)
class PictureRow:
    """One image and what became of its labels.

    Args:
        name: caption.
        color: (H, W, 3) uint8 RGB.
        after: (H, W) uint8 class ids, 0 or 255 = unlabelled.
        before: as `after`; None = there is only one network to show.
        truth: (H, W) uint8 class ids, 0 or 255 = unlabelled; None = not known.

    Raises:
        ShapeError: a label has another size than the image.
    """

    name: str
    color: NDArray[np.uint8]
    after: NDArray[np.uint8]
    before: NDArray[np.uint8] | None = None
    truth: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        for label in (self.before, self.after, self.truth):
            if label is not None and label.shape != self.color.shape[:2]:
                raise ShapeError(f"picture {self.name}: labels are {label.shape} but colour is {self.color.shape[:2]}")

    def class_ids(self) -> set[int]:
        """Classes that occur in any of the labels."""
        labels = [label for label in (self.before, self.after, self.truth) if label is not None]
        return {int(id) for label in labels for id in np.unique(from_mask(label))} - {UNLABELLED}


@dataclass(frozen=True)
class Curve:
    """Values over steps.

    Args:
        title: heading.
        series: x and y of each line by its name; NaN leaves a gap.
        x_label, y_label: axes.
        smooth: points over which a running mean is drawn; the values themselves stay visible behind it. 1 = none.
    """

    title: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x_label: str = "step"
    y_label: str = ""
    smooth: int = 1


LEGEND_COLUMNS = 10
TITLE_HEIGHT = 0.25
"""Inches above the pictures."""


def save_picture(path: str | Path, rows: Sequence[PictureRow], label_space: LabelSpace = SUNRGBD37) -> None:
    """Write one PNG: a line of panels a row, and a legend of the classes that occur.

    Args:
        path: file to write.
        rows: at least one; all with ground truth, or none.
        label_space: gives the classes their names and colours.

    Raises:
        S4NetError: there is no row, or the file cannot be written.
    """
    if not rows:
        raise S4NetError(f"picture {path}: there is no image to show")
    lines = [panels(row, label_space) for row in rows]
    height, width = rows[0].color.shape[:2]
    count = len(lines[0])
    panel_width = 2.4
    picture_height = len(rows) * panel_width * height / width
    ids = sorted(set().union(*(row.class_ids() for row in rows)))
    columns = min(len(ids), LEGEND_COLUMNS) or 1
    legend_height = 0.15 + 0.18 * -(-len(ids) // columns)
    figure_height = picture_height + TITLE_HEIGHT + legend_height
    figure = Figure(figsize=(count * panel_width, figure_height), dpi=120, facecolor="white")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, line_axes in zip(lines, axes, strict=True):
        for (heading, image, _), ax in zip(line, line_axes, strict=True):
            ax.imshow(image, interpolation="none", aspect="auto")
            ax.set_axis_off()
            if ax in axes[0]:
                ax.set_title(heading, fontsize=10)
    handles = [Patch(color=_hex(label_space.colors[i - 1]), label=label_space.names[i - 1]) for i in ids]
    figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=8, frameon=False)
    top, bottom = 1 - TITLE_HEIGHT / figure_height, legend_height / figure_height
    figure.subplots_adjust(left=0, right=1, top=top, bottom=bottom, wspace=0.015, hspace=0.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_result(path, buffer.getvalue())


def panels(row: PictureRow, label_space: LabelSpace = SUNRGBD37) -> list[tuple[str, NDArray[np.uint8], bool]]:
    """Heading, (H, W, 3) uint8 RGB image, and whether it is a photograph, from left to right."""
    name = "labels" if row.before is None else "after"
    labels = {"ground truth": row.truth, "before": row.before, name: row.after}
    shown = [("colour", row.color, True)]
    shown += [(name, label_space.colorize(label), False) for name, label in labels.items() if label is not None]
    if row.before is not None:
        shown.append(("changes", changes(row.color, row.before, row.after, row.truth, label_space), False))
    return shown


def changes(
    color: NDArray[np.uint8],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    label_space: LabelSpace,
) -> NDArray[np.uint8]:
    """What adaptation changed, on the darkened grey image, (H, W, 3) uint8 RGB.

    With ground truth a changed pixel is coloured by whether it became right or wrong, else by its new class.
    Arguments are those of `PictureRow`.
    """
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)[..., None] * np.array([0.55, 0.55, 0.55])
    before, after = from_mask(before), from_mask(after)
    changed = before != after
    if truth is None:
        paint = label_space.colorize(after)
    else:
        truth = from_mask(truth)
        changed &= truth != UNLABELLED
        fixed, broken = (after == truth)[..., None], (before == truth)[..., None]
        paint = np.where(fixed, FIXED, np.where(broken, BROKEN, OTHER)).astype(np.uint8)
    return np.asarray(np.where(changed[..., None], 0.8 * paint + 0.2 * grey, grey), np.uint8)


def encode(image: NDArray[np.uint8], photo: bool) -> tuple[bytes, str]:
    """(H, W, 3) uint8 RGB -> file content and MIME type: JPEG for photographs, lossless PNG for labels."""
    suffix, mime = (".jpg", "image/jpeg") if photo else (".png", "image/png")
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes(), mime


def curve_png(curve: Curve) -> bytes:
    """The curve as PNG with a transparent background."""
    figure = Figure(figsize=(5.4, 3.2), dpi=150, layout="constrained")
    ax = figure.subplots()
    for i, (name, (x, y)) in enumerate(curve.series.items()):
        if curve.smooth > 1:
            ax.plot(x, y, color=f"C{i}", alpha=0.25, linewidth=0.8)
        marker = "o" if len(x) <= 20 else None
        ax.plot(
            x, _running_mean(y, curve.smooth), color=f"C{i}", label=name, linewidth=1.8, marker=marker, markersize=3.5
        )
    ax.set_title(curve.title, color=_NEUTRAL)
    ax.set_xlabel(curve.x_label, color=_NEUTRAL)
    ax.set_ylabel(curve.y_label, color=_NEUTRAL)
    ax.tick_params(colors=_NEUTRAL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_NEUTRAL)
    ax.grid(alpha=0.2)
    if len(curve.series) > 1:
        ax.legend(frameon=False, labelcolor=_NEUTRAL)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _running_mean(values: Sequence[float], window: int) -> NDArray[np.float64]:
    """Mean of up to `window` values about each; NaN does not count."""
    y = np.asarray(values, np.float64)
    if window <= 1 or y.size == 0:
        return y
    kernel = np.ones(min(window, y.size))
    known = np.isfinite(y)
    total = np.convolve(np.where(known, y, 0.0), kernel, mode="same")
    count = np.convolve(known.astype(np.float64), kernel, mode="same")
    return np.where(known, total / np.maximum(count, 1), np.nan)
