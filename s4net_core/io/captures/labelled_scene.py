"""Writes a labelled capture: a scene folder whose labels are also written as pictures and as LabelMe annotations."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from s4net_core.classes import write_classes
from s4net_core.errors import CaptureError
from s4net_core.frames import Frame
from s4net_core.io.captures import EXTRAS, Extra
from s4net_core.io.captures.scene_folder import color_suffix, write_scene_folder
from s4net_core.io.images.files import write_color
from s4net_core.io.label_files.labelme import write_labelme
from s4net_core.io.label_files.lookup import LABELME_FOLDER
from s4net_core.labels import LabelSpace

COLOR_FOLDER, OVERLAY_FOLDER = "label_color", "overlay"


def write_labelled_scene(
    path: str | Path,
    frames: Iterable[Frame],
    space: LabelSpace,
    extras: Collection[Extra] = EXTRAS,
    *,
    alpha: float = 0.5,
    tolerance: float = 0.0,
    quality: int = 90,
) -> int:
    """Write labelled frames as a scene folder that `open_capture` reads, with pictures to look at and polygons to edit.

    ``label/N.png`` has class ids (0 = unlabelled), ``label_color/N.png`` their colours, ``overlay/N.jpg`` the colours
    over the image, ``labelme/N.json`` polygons. Where there are polygons, `open_capture` reads them, not ``label/``.
    Classes that are not built in are named in ``classes.yaml``.

    Args:
        path: a folder that does not exist yet, or is empty.
        frames: with labels of `space`; as for `write_scene_folder`.
        space: what the ids mean.
        extras: what to write beside ``label/``.
        alpha: opacity of labels in the overlay, 0..1.
        tolerance: of polygons, pixels, as for `write_labelme`.
        quality: of the JPEG colour images, as for `write_scene_folder`.

    Returns:
        Number of frames written.

    Raises:
        CaptureError: as `write_scene_folder`, or a frame has no label, or the disk is full.
    """
    path = Path(path)

    def written() -> Iterator[Frame]:
        for index, frame in enumerate(frames):
            yield frame  # resumed after the frame itself is written
            _write_extras(path, index, frame, space, extras, alpha, tolerance, quality)

    count = write_scene_folder(path, written(), quality=quality)
    write_classes(path, space)
    return count


def _write_extras(
    path: Path,
    index: int,
    frame: Frame,
    space: LabelSpace,
    extras: Collection[Extra],
    alpha: float,
    tolerance: float,
    quality: int,
) -> None:
    if frame.label is None:
        raise CaptureError(f"{path}: frame {index} has no label to write")
    for folder, picture, suffix in (
        (COLOR_FOLDER, space.colorize(frame.label) if "color" in extras else None, ".png"),
        (OVERLAY_FOLDER, space.overlay(frame.color, frame.label, alpha) if "overlay" in extras else None, ".jpg"),
    ):
        if picture is not None:
            (path / folder).mkdir(exist_ok=True)
            write_color(path / folder / f"{index:06d}{suffix}", picture, quality)
    if "labelme" in extras:
        annotation = path / LABELME_FOLDER / f"{index:06d}.json"
        image = f"../color/{index:06d}{color_suffix(quality)}"
        write_labelme(annotation, frame.label, image, space, tolerance=tolerance)
