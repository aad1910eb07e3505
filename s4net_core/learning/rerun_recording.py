"""A run as a file for the viewer of rerun.io: keyframes with their clouds, their labels over the steps, and curves."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from s4net_core.errors import S4NetError
from s4net_core.evaluation.pictures import encode
from s4net_core.geometry.camera import unproject
from s4net_core.keyframes import Keyframe, views_of
from s4net_core.labels import LabelSpace
from s4net_core.learning.session import Session
from s4net_core.models.predict import pick_device, predict_labels

CLOUD_POINTS = 4000
"""Largest number of points that are drawn of one keyframe."""
FRUSTUM_DEPTH = 0.15
"""Distance of the drawn image from its camera, m."""


class RerunRecording:
    """Writes a run into a file that ``rerun FILE`` shows, if one is given.

    Everything is on the timeline ``step`` (learner steps), the keyframes on ``capture`` (their stamps) too.

    Args:
        path: .rrd file to (over)write; None = nothing is written.

    Raises:
        S4NetError: rerun-sdk is not installed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rerun: Any = None if path is None else _rerun()
        self._stream: Any = None

    def begin(self, session: Session) -> None:
        """Write all keyframes, with the labels of the weights from which learning goes on.

        Raises:
            S4NetError: the file cannot be written.
        """
        if self._path is None:
            return
        if self._path.exists() and not self._path.is_file():
            raise S4NetError(f"{self._path} is no file: name a new file for --rerun")
        keyframes = _keyframes(session)
        self._stream = self._rerun.RecordingStream("s4net")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream.save(str(self._path), _layout(self._rerun, keyframes[0]) if keyframes else None)
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error
        self._log("/", self._classes(session.learned.label_space), static=True)
        self._stream.set_time("step", sequence=session.status.step)
        for keyframe in keyframes:
            self._add(keyframe)
        self._stream.disable_timeline("capture")
        self.labels(session)

    def labels(self, session: Session) -> None:
        """Write the labels of all keyframes that the learned weights predict.

        Raises:
            S4NetError: the file cannot be written.
        """
        if self._stream is None:
            return
        keyframes, settings = _keyframes(session), session.settings
        colors = [keyframe.color for keyframe in keyframes]
        labels = predict_labels(session.learned, colors, settings, pick_device(settings.device))
        self._stream.set_time("step", sequence=session.status.step)
        for keyframe, label in zip(keyframes, labels, strict=True):
            self._log(f"{_entity(keyframe)}/image/labels", self._rerun.SegmentationImage(label, opacity=0.6))
            classes = self._rerun.Points3D.from_fields(class_ids=label[_drawn(keyframe)])
            self._log(f"world/labels/{keyframe.id}", classes)
        self._flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve in `values` whose value is finite.

        Raises:
            S4NetError: the file cannot be written.
        """
        if self._stream is None:
            return
        self._stream.set_time("step", sequence=step)
        for name, value in values.items():
            if math.isfinite(value):
                self._log(f"curves/{name}", self._rerun.Scalars(value))
        self._flush()

    def __enter__(self) -> "RerunRecording":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.disconnect()

    def _classes(self, space: LabelSpace) -> Any:
        names, colors = ("unlabelled", *space.names), ((0, 0, 0), *space.colors)
        return self._rerun.AnnotationContext(list(zip(range(len(names)), names, colors, strict=True)))

    def _add(self, keyframe: Keyframe) -> None:
        """Pose, image and coloured cloud of one keyframe."""
        entity, lens, T = _entity(keyframe), keyframe.intrinsics, keyframe.T_world_camera
        self._stream.set_time("capture", timestamp=np.datetime64(keyframe.stamp, "ns"))
        self._log(entity, self._rerun.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        camera = self._rerun.Pinhole(
            image_from_camera=lens.matrix, resolution=(lens.width, lens.height), image_plane_distance=FRUSTUM_DEPTH
        )
        self._log(f"{entity}/image", camera)
        jpeg, mime = encode(keyframe.color, photo=True)
        self._log(f"{entity}/image/color", self._rerun.EncodedImage(contents=jpeg, media_type=mime))
        points = _points(keyframe)
        self._log(f"world/colors/{keyframe.id}", self._rerun.Points3D(points, colors=keyframe.color[_drawn(keyframe)]))
        self._log(f"world/labels/{keyframe.id}", self._rerun.Points3D(points))

    def _log(self, entity: str, content: Any, *, static: bool = False) -> None:
        self._stream.log(entity, content, static=static, strict=True)

    def _flush(self) -> None:
        """Rerun writes on a thread of its own; a full disk is known here."""
        try:
            self._stream.flush()
        except RuntimeError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> S4NetError:
        return S4NetError(f"{self._path} cannot be written ({error}): check the folder's rights and free space")


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise S4NetError(f"Rerun is not installed ({error}), which --rerun needs: pip install rerun-sdk") from error
    return rerun


def _layout(rerun: Any, keyframe: Keyframe) -> Any:
    """What the viewer shows at first: the room in colour and in labels, one keyframe, and curves."""
    views = rerun.blueprint
    clouds = [
        views.Spatial3DView(origin="world", name=name, contents=["world/keyframes/**", f"world/{name}/**"])
        for name in ("colors", "labels")
    ]
    image = views.Spatial2DView(origin=f"{_entity(keyframe)}/image", name=f"keyframe {keyframe.id}")
    curves = [views.TimeSeriesView(origin=f"curves/{name}", name=name) for name in ("loss", "score", "agreement")]
    return views.Blueprint(views.Horizontal(*clouds, views.Vertical(image, *curves)))


def _keyframes(session: Session) -> list[Keyframe]:
    return list(session.keyframes.views(session.keyframes.ids()).values())


def _entity(keyframe: Keyframe) -> str:
    return f"world/keyframes/{keyframe.id}"


def _drawn(keyframe: Keyframe) -> tuple[NDArray[np.intp], ...]:
    """Rows and columns of the pixels whose points are drawn: at most `CLOUD_POINTS`, spread over those with depth."""
    pixels = np.flatnonzero(keyframe.depth_mm)
    every = max(1, math.ceil(len(pixels) / CLOUD_POINTS))
    return np.unravel_index(pixels[::every], keyframe.depth_mm.shape)


def _points(keyframe: Keyframe) -> NDArray[np.float64]:
    """Points of the drawn pixels, (N, 3), metres, in the world."""
    view = views_of([keyframe], torch.device("cpu"))
    points, _ = unproject(view.depth, view.K)
    in_camera = np.stack([axis[_drawn(keyframe)] for axis in points[0].numpy()], axis=1)
    T = keyframe.T_world_camera
    return np.asarray(in_camera @ T[:3, :3].T + T[:3, 3], np.float64)
