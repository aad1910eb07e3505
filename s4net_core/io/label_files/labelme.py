"""LabelMe annotations (format of LabelMe 5 and 6): named shapes in JSON to a class id per pixel, and back.

Shapes are painted in the order of the file, each over those before it, as LabelMe's own exporter does: a hole is a
shape of its own that comes later.
"""

import base64
import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, CaptureError, S4NetError
from s4net_core.files import read_json, write_result
from s4net_core.geometry.camera import resize_nearest
from s4net_core.io.images.codec import decode_compressed_color, imdecode
from s4net_core.io.images.files import read_color
from s4net_core.io.images.pixels import check_pixels
from s4net_core.labels import UNLABELLED, UNLABELLED_NAME, LabelSpace

VERSION = "5.5.0"
"""Version in annotations that are written; LabelMe itself accepts any."""
MAX_STRETCH = 0.02
"""Largest relative difference between an annotation's two scale factors: allows rounded sizes, not a crop."""

FEWEST_POINTS = {"polygon": 1, "rectangle": 2, "oriented_rectangle": 4, "circle": 2, "mask": 2}
"""Types of shapes that are read, and the smallest number of points of each."""

Polygon = NDArray[np.int32]
"""(N, 2) corners x, y, at the centres of pixels that belong to the polygon."""


def read_labelme(path: Path, space: LabelSpace, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Class ids of one annotated image, (H, W) uint8, 0 = unlabelled.

    Args:
        path: LabelMe's JSON.
        space: knows the names of the shapes (`LabelSpace.id_of`).
        size: (H, W) of the image, to which an annotation made at another resolution is scaled; None = its own size.

    Raises:
        BadFrame: ``unreadable`` or ``label_format`` when it is no annotation, ``label_size`` when it is of an image of
            other proportions, ``color_format`` when its size is only in ``imageData`` and that is damaged,
            ``image_size``.
        S4NetError: a shape has an unknown name, or a type that covers no area.
    """
    content = _read(path)
    shapes = content["shapes"]
    own_size = _size_of(path, content) or size
    if own_size is None:
        raise BadFrame(
            "label_format", f"{path} has no imageHeight and imageWidth: save it once with LabelMe 5 or later"
        )
    ids = _ids_of(path, shapes, space)
    try:
        check_pixels(own_size[1], own_size[0])
    except BadFrame as error:
        raise BadFrame(error.reason, f"{path}: {error}") from error
    label = np.full(own_size, UNLABELLED, np.uint8)
    for shape, id in zip(shapes, ids, strict=True):
        _paint(label, shape, id, path)
    return label if size is None else _scaled(label, size, path)


def read_labelme_color(path: Path) -> NDArray[np.uint8]:
    """The image that an annotation belongs to, (H, W, 3) uint8 RGB: embedded, or the file it names.

    Raises:
        BadFrame: ``unreadable``, ``label_format`` when it is no annotation, or ``color_format``.
    """
    content = _read(path)
    if content.get("imageData"):
        return _embedded(path, content["imageData"])
    return read_color(path.parent / PureWindowsPath(str(content.get("imagePath", ""))).as_posix())


def is_labelme(path: Path) -> bool:
    """Whether a file is an annotation of LabelMe."""
    try:
        _read(path)
    except BadFrame:
        return False
    return True


def write_labelme(
    path: Path, label: NDArray[np.uint8], image: str, space: LabelSpace, *, tolerance: float = 0.0
) -> None:
    """Write class ids as polygons; `read_labelme` gives the same ids again where `tolerance` is 0.

    Args:
        path: JSON file to write.
        label: (H, W) uint8, 0 = unlabelled.
        image: the image's path as seen from the folder of `path`.
        space: names the ids.
        tolerance: largest distance of a polygon from the border of its region, pixels. More gives fewer corners, which
            are easier to edit by hand, but leaves slivers without label between classes.

    Raises:
        CaptureError: it cannot be written.
    """
    shapes = [
        {
            "label": space.names[id - 1] if id else UNLABELLED_NAME,
            "points": _corners(polygon).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for id, polygon in polygons(label, tolerance)
    ]
    height, width = label.shape
    content = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    write_result(path, json.dumps(content) + "\n", CaptureError)


def polygons(label: NDArray[np.uint8], tolerance: float = 0.0) -> list[tuple[int, Polygon]]:
    """Class id and outline of every connected region; painting them in this order gives the label again.

    Regions are connected through pixel edges, so two regions either lie side by side or one encloses the other. Larger
    polygons come first. An unlabelled region is included only where a polygon before it covers it.

    Args:
        label: (H, W) uint8.
        tolerance: as for `write_labelme`.
    """
    regions = [region for id in np.unique(label) for region in _regions(label, int(id))]
    regions.sort(key=lambda region: cv2.contourArea(region[1]), reverse=True)
    painted = np.full_like(label, UNLABELLED)
    found: list[tuple[int, Polygon]] = []
    for id, outline, where in regions:
        if id == UNLABELLED and not painted[where].any():
            continue
        if tolerance > 0:
            outline = cv2.approxPolyDP(outline, tolerance, closed=True)
        cv2.fillPoly(painted, [outline], id)
        found.append((id, outline[:, 0].astype(np.int32)))
    return found


def _regions(label: NDArray[np.uint8], id: int) -> Iterable[tuple[int, Polygon, tuple[Any, ...]]]:
    """Id, outline (N, 1, 2) and pixels of every connected region of one class."""
    count, components, boxes, _ = cv2.connectedComponentsWithStats((label == id).astype(np.uint8), connectivity=4)
    for component in range(1, count):
        x, y, width, height = (int(value) for value in boxes[component, :4])
        mask = (components[y : y + height, x : x + width] == component).astype(np.uint8)
        (outline,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        rows, columns = np.nonzero(mask)
        yield id, outline, (rows + y, columns + x)


def _corners(polygon: Polygon) -> Polygon:
    """At least three corners, which LabelMe needs: a single pixel or a line repeats its last one."""
    return np.concatenate([polygon, np.repeat(polygon[-1:], max(3 - len(polygon), 0), axis=0)])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise BadFrame("unreadable", f"{path} cannot be read as JSON ({error}): fetch or save it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise BadFrame("label_format", f"{path} is no annotation of LabelMe: it has no list of shapes")
    return content


def _size_of(path: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    if content.get("imageData"):
        height, width = _embedded(path, content["imageData"]).shape[:2]
        return height, width
    return None


def _embedded(path: Path, data: Any) -> NDArray[np.uint8]:
    try:
        return decode_compressed_color("imageData", base64.b64decode(data))
    except (ValueError, TypeError) as error:  # ValueError: also BadFrame
        reason = error.reason if isinstance(error, BadFrame) else "color_format"
        raise BadFrame(reason, f"{path}: imageData is no image: {error}") from error


def _ids_of(path: Path, shapes: Sequence[Any], space: LabelSpace) -> list[int]:
    """Class id of every shape; one error lists all unknown names."""
    names = [str(shape.get("label", "")) if isinstance(shape, dict) else "" for shape in shapes]
    ids = {name: space.id_of(name) for name in names}
    unknown = sorted(name for name, id in ids.items() if id is None)
    if unknown:
        nearest = {name: difflib.get_close_matches(name.lower(), space.names, n=1, cutoff=0.5) for name in unknown}
        told = ", ".join(f"'{name}'" + (f" ({near[0]}?)" if near else "") for name, near in nearest.items())
        raise S4NetError(
            f"{path} has shapes named {told}, which {space.name} does not know: rename them in LabelMe to one of "
            f"{', '.join(space.names)}, or to {UNLABELLED_NAME}"
        )
    return [ids[name] or UNLABELLED for name in names]


def _paint(label: NDArray[np.uint8], shape: dict[str, Any], id: int, path: Path) -> None:
    """Paint one shape with its border, as LabelMe's exporter does."""
    kind = shape.get("shape_type") or "polygon"
    if kind not in FEWEST_POINTS:
        remedy = f"draw it as one of {', '.join(FEWEST_POINTS)}"
        raise S4NetError(f"{path}: '{shape['label']}' is a {kind}, which covers no area: {remedy}")
    try:
        points = np.array(shape["points"], np.float64).reshape(-1, 2)
        if len(points) < FEWEST_POINTS[kind] or not np.isfinite(points).all():
            raise ValueError(f"its points are {shape['points']}")
        corners = np.floor(points).astype(np.int32)  # LabelMe's pixel 3 spans 3.0 to 4.0
        if kind == "rectangle":
            cv2.rectangle(label, corners[0].tolist(), corners[1].tolist(), id, cv2.FILLED)
        elif kind == "circle":
            cv2.circle(label, corners[0].tolist(), round(float(np.linalg.norm(points[1] - points[0]))), id, cv2.FILLED)
        elif kind == "mask":
            _paint_mask(label, corners[0], shape["mask"], id)
        else:
            cv2.fillPoly(label, [corners], id)
    except (KeyError, TypeError, ValueError, cv2.error) as error:
        raise BadFrame("label_format", f"{path}: {kind} '{shape['label']}' is damaged: {error}") from error


def _paint_mask(label: NDArray[np.uint8], corner: Polygon, data: str, id: int) -> None:
    """Paint a PNG whose upper left pixel belongs at `corner`; parts outside the image are left out."""
    mask = imdecode(base64.b64decode(data), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError("its mask is no image")
    rows, columns = np.nonzero(mask)
    rows, columns = rows + corner[1], columns + corner[0]
    inside = (rows >= 0) & (rows < label.shape[0]) & (columns >= 0) & (columns < label.shape[1])
    label[rows[inside], columns[inside]] = id


def _scaled(label: NDArray[np.uint8], size: tuple[int, int], path: Path) -> NDArray[np.uint8]:
    """The label at the image's size, if both can be the same picture at different resolutions."""
    (own_height, own_width), (height, width) = label.shape, size
    factors = height / own_height, width / own_width
    if abs(factors[0] / factors[1] - 1) > MAX_STRETCH:
        raise BadFrame(
            "label_size",
            f"{path} annotates an image of {own_width}x{own_height} but this one is {width}x{height}, which has "
            "other proportions: annotate the images of this capture",
        )
    return resize_nearest(label, width, height)
