"""Draws the pictures of ``docs/how-it-works.md`` from the demo's data, with the functions that the page explains.

The pictures are committed. Draw them again with ``python -m tools.docs.pictures`` when the data or the code change.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from s4net_core.config import Settings, load_settings
from s4net_core.geometry.camera import rescale_frame, unproject
from s4net_core.geometry.views import Pairs
from s4net_core.geometry.warp import away_from_borders, correspond, sample, sample_mask, usable_depth
from s4net_core.io.captures.opening import open_capture
from s4net_core.keyframes import Keyframe, KeyframeBuffer, views_of
from s4net_core.labels import SUNRGBD37, UNLABELLED
from s4net_core.learning.teacher import Teacher
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import load_checkpoint
from s4net_core.models.predict import predict_labels, to_tensor

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
CPU = torch.device("cpu")
FOLDER = ROOT / "docs" / "pictures"
TARGET = 12
"""Keyframe that two of the pictures show."""
SHARED = 0.6
"""The first picture shows the neighbour whose overlap with the target's view is nearest to this share."""
COUNTS, NO_DEPTH, OUTSIDE, OCCLUDED, BORDER = range(5)
REASONS = {
    COUNTS: ("counts", (255, 255, 255)),
    NO_DEPTH: ("no depth in one of the two", (90, 90, 90)),
    OUTSIDE: ("outside of e'", (69, 117, 180)),
    OCCLUDED: ("hidden in e'", (215, 48, 39)),
    BORDER: ("near a border of labels", (253, 174, 97)),
}
"""Why a pixel of the target counts or does not: text and colour of the legend."""
PAPER_BOUNDARY_RADIUS = 2
"""`geometry.boundary_radius` of the paper, pixels; with the default, 0, no pixel is near a border."""
CEILING = 2.0
"""Points higher than this, metres, are left out of the view from above."""
PIXELS_PER_METRE = 40
"""Resolution of the view from above."""


@dataclass(frozen=True)
class Scene:
    """Data from which the pictures are drawn.

    Args:
        settings: the demo's settings.
        keyframes: keyframes of the demo's first scan, at the network's size.
        truth: (H, W) uint8 true class ids by keyframe; used only for comparison.
        network: base model.
    """

    settings: Settings
    keyframes: KeyframeBuffer
    truth: Mapping[int, NDArray[np.uint8]]
    network: SegmentationNetwork


def main() -> None:
    """Draw all pictures into `FOLDER`, as PNG with 256 colours, which takes a third of the space."""
    FOLDER.mkdir(exist_ok=True)
    scene = load_scene()
    for name, draw in (("keyframes", draw_keyframes), ("warp", draw_warp), ("merge", draw_merge)):
        drawn = io.BytesIO()
        draw(scene).savefig(drawn, format="png", dpi=110)
        path = FOLDER / f"{name}.png"
        Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)
        print(path)


def load_scene() -> Scene:
    """Load the demo's first scan and base model."""
    network, info = load_checkpoint(DEMO / "weights" / "base.safetensors")
    settings = load_settings(DEMO / "demo.yaml").sized(info.model)
    keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    truth = {}
    for frame in open_capture(DEMO / "capture"):
        small = rescale_frame(frame, *settings.model.size)
        offer = keyframes.offer(small)
        if offer.id is not None and small.label is not None:
            truth[offer.id] = small.label
    return Scene(settings, keyframes, truth, network.eval())


def draw_warp(scene: Scene) -> Figure:
    """Draw two views, the neighbour warped into the target, and the pixels that count."""
    target, neighbour, share = pair(scene)
    warped, reasons = warp(target, neighbour, scene)
    colours = np.array([colour for _, colour in REASONS.values()], np.uint8)
    mixed = (0.75 * colours[reasons] + 0.25 * target.color).astype(np.uint8)
    shown = np.where((reasons == COUNTS)[..., None], target.color, mixed)
    figure = panels(
        {
            "view e": target.color,
            f"neighbour e', sees {share:.0%} of e": neighbour.color,
            "e' warped into e": warped,
            "why pixels of e do not count": shown,
        }
    )
    parts = [(text, colour, np.mean(reasons == reason)) for reason, (text, colour) in REASONS.items()]
    legend(figure, [(f"{text} ({part:.1%})", colour) for text, colour, part in parts if part])
    return figure


def pair(scene: Scene) -> tuple[Keyframe, Keyframe, float]:
    """Target and neighbour of the first picture, and the share of the target that the neighbour sees."""
    seen = scene.keyframes.overlapping(TARGET, scene.settings.learner.min_overlap)
    neighbour, share = min(seen, key=lambda pair: abs(pair[1] - SHARED))
    return scene.keyframes.get(TARGET), scene.keyframes.get(neighbour), share


def warp(target: Keyframe, neighbour: Keyframe, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The neighbour's colour at the target's pixels, and the reason why each pixel counts or does not.

    Returns:
        (H, W, 3) uint8 RGB, white where the neighbour cannot be sampled, and (H, W) uint8, a key of `REASONS`.
    """
    geometry = scene.settings.geometry
    pairs = Pairs(views_of([target], CPU), views_of([neighbour], CPU))
    # Where e' has no depth, nothing hides a point.
    lenient = geometry.model_copy(update={"require_neighbour_depth": False})
    found = correspond(pairs, geometry)
    visible = correspond(pairs, lenient).valid
    inside = correspond(pairs, lenient, occlusion=False).valid
    label = torch.from_numpy(_predict([neighbour], scene)[0].astype(np.int64))[None]
    inner = sample_mask(away_from_borders(label, PAPER_BOUNDARY_RADIUS), found)

    _, exists = usable_depth(pairs.target.depth, geometry)
    reasons = torch.full(exists.shape, COUNTS, dtype=torch.uint8)
    reasons[~inner] = BORDER
    reasons[~found.valid] = NO_DEPTH
    reasons[~visible] = OCCLUDED
    reasons[~inside] = OUTSIDE
    reasons[~exists] = NO_DEPTH
    color, valid = sample(to_tensor([neighbour.color], CPU), found)
    warped = torch.where(valid, color, 1.0)[0].permute(1, 2, 0).mul(255).byte()
    return warped.numpy(), reasons[0, 0].numpy()


def draw_merge(scene: Scene) -> Figure:
    """Draw the labels that the network predicts for a view, and those merged from its neighbours."""
    teacher = Teacher(scene.network, scene.settings, CPU)
    rows = {id: _compare(id, teacher, scene) for id in scene.keyframes.trainable(scene.settings.learner.min_overlap)}
    own, merged, _ = rows[TARGET]
    shares = np.array([right for _, _, right in rows.values()])
    better, (alone, together) = np.sum(shares[:, 1] > shares[:, 0]), shares.mean(axis=0)
    colorize, truth = SUNRGBD37.colorize, scene.truth[TARGET]
    figure = panels(
        {
            "view e": scene.keyframes.get(TARGET).color,
            f"network alone: {rows[TARGET][2][0]:.0%} right": colorize(own),
            f"its neighbours: {rows[TARGET][2][1]:.0%} right": colorize(merged),
            "truth (not used for learning)": colorize(truth),
        },
        footer=f"mean of all {len(rows)} keyframes, where neighbours have a say: {alone:.1%} right alone, "
        f"{together:.1%} by the neighbours; better in {better} of {len(rows)}",
    )
    counts = np.bincount(np.stack([own, merged, truth]).ravel())
    ids = [id for id in np.flatnonzero(counts > 0.01 * own.size).tolist() if id != UNLABELLED]
    legend(figure, [(SUNRGBD37.names[id - 1], SUNRGBD37.colors[id - 1]) for id in ids])
    return figure


def _compare(
    id: int, teacher: Teacher, scene: Scene
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, float]]:
    """Own and merged label of a keyframe, (H, W) uint8 each, and the shares that are right where both exist."""
    learner, keyframes = scene.settings.learner, scene.keyframes
    neighbours = keyframes.neighbours(id, learner.neighbours, learner.min_overlap, np.random.default_rng(id))
    target = keyframes.get(id)
    merged = teacher.labels(target, [keyframes.get(i) for i in neighbours])[0][0].numpy().astype(np.uint8)
    own = _predict([target], scene)[0]
    counted = (merged != UNLABELLED) & (scene.truth[id] != UNLABELLED)
    right = [float(np.mean(label[counted] == scene.truth[id][counted])) for label in (own, merged)]
    return own, merged, (right[0], right[1])


def draw_keyframes(scene: Scene) -> Figure:
    """Draw the room from above, with the keyframes and the overlap between them."""
    views = [scene.keyframes.get(id) for id in scene.keyframes.ids()]
    figure = Figure(figsize=(7.2, 5.2), facecolor="white", layout="constrained")
    ax = figure.subplots()
    _draw_floor(ax, *(np.concatenate(parts) for parts in zip(*map(_points, views), strict=True)))
    _draw_graph(ax, scene, {view.id: view.T_world_camera[:2, 3] for view in views})
    for view in views:
        _draw_view(ax, view)
    ax.set_xlabel("x [m]")
    ax.set_ylabel("y [m]")
    return figure


def _draw_floor(ax: Axes, points: NDArray[np.float64], colours: NDArray[np.uint8]) -> None:
    """Draw points from above; each pixel shows its highest point."""
    low = points[:, :2].min(axis=0)
    columns, rows = np.floor((points[:, :2] - low) * PIXELS_PER_METRE).astype(int).T
    image = np.full((rows.max() + 1, columns.max() + 1, 3), 255, np.uint8)
    order = np.argsort(points[:, 2])
    image[rows[order], columns[order]] = 128 + colours[order] // 2
    high = low + np.array(image.shape[1::-1]) / PIXELS_PER_METRE
    ax.imshow(image, origin="lower", extent=(low[0], high[0], low[1], high[1]), interpolation="none")


def _draw_graph(ax: Axes, scene: Scene, places: Mapping[int, NDArray[np.float64]]) -> None:
    minimum = scene.settings.learner.min_overlap
    shares = {(id, other): s for id in places for other, s in scene.keyframes.overlapping(id, minimum)}
    pairs = sorted({tuple(sorted(pair)) for pair in shares}, key=lambda pair: shares.get(pair, 0.0))
    values = [max(shares.get(pair, 0.0), shares.get(pair[::-1], 0.0)) for pair in pairs]
    lines = LineCollection([[places[a], places[b]] for a, b in pairs], array=values, cmap="viridis", linewidths=0.7)
    ax.add_collection(lines)
    ax.figure.colorbar(lines, ax=ax, shrink=0.7, label="overlap")
    ax.set_title(f"{len(places)} keyframes, {len(pairs)} pairs with at least {minimum:.0%} overlap", fontsize=10)


def _draw_view(ax: Axes, view: Keyframe) -> None:
    """Draw a triangle as wide as the camera's view, from the camera in viewing direction."""
    half = 0.5 * view.intrinsics.width / view.intrinsics.fx
    corners = 0.3 * np.array([[0, 0, 0], [-half, 0, 1], [half, 0, 1]])
    world = corners @ view.T_world_camera[:3, :3].T + view.T_world_camera[:3, 3]
    ax.fill(world[:, 0], world[:, 1], facecolor="none", edgecolor="#d73027", linewidth=0.9)


def _points(view: Keyframe) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """(N, 3) world coordinates, metres, and (N, 3) uint8 RGB of the pixels below the ceiling."""
    seen = views_of([view], CPU)
    points, valid = unproject(seen.depth, seen.K)
    kept = valid[0, 0].numpy()
    world = points[0].permute(1, 2, 0).numpy()[kept] @ view.T_world_camera[:3, :3].T + view.T_world_camera[:3, 3]
    low = world[:, 2] < CEILING
    return world[low], view.color[kept][low]


def panels(images: Mapping[str, NDArray[np.uint8]], footer: str = "") -> Figure:
    """Draw images of one size beside each other, each under its heading, with room for a legend of two lines."""
    height, width = next(iter(images.values())).shape[:2]
    side, above, below = 2.6, 0.25, 0.7 if footer else 0.35
    figure_height = side * height / width + above + below
    figure = Figure(figsize=(len(images) * side, figure_height), facecolor="white")
    for ax, (heading, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        ax.imshow(image, interpolation="none")
        ax.set_title(heading, fontsize=9)
        ax.set_axis_off()
    top, bottom = 1 - above / figure_height, below / figure_height
    figure.subplots_adjust(left=0.002, right=0.998, top=top, bottom=bottom, wspace=0.02)
    figure.text(0.5, 0.02, footer, ha="center", fontsize=9)
    return figure


def legend(figure: Figure, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    """Add colours (RGB 0..255) and their meaning below the panels."""
    handles = [Patch(facecolor=np.divide(c, 255), edgecolor="#888888", linewidth=0.5, label=t) for t, c in entries]
    below = figure.subplotpars.bottom
    columns = min(len(handles), 9)
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns, fontsize=8, frameon=False
    )


def _predict(views: Sequence[Keyframe], scene: Scene) -> list[NDArray[np.uint8]]:
    return predict_labels(scene.network, [view.color for view in views], scene.settings, CPU)


if __name__ == "__main__":
    main()
