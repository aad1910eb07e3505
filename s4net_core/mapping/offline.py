"""The semantic map of a whole capture, and how much better its labels are than those of single frames."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.frames import Frame, View
from s4net_core.geometry.camera import undistort_frame
from s4net_core.keyframes import buffer_for
from s4net_core.labels import UNLABELLED
from s4net_core.mapping.semantic_map import SemanticMap
from s4net_core.models.segmenter import Segmenter

log = logging.getLogger(__name__)


def map_of(views: Iterable[View], segmenter: Segmenter) -> SemanticMap:
    """Map a capture as the node does: from the views that the adaptation node would keep as keyframes.

    Args:
        views: views that cannot be used are left out, and their capture counts them.
        segmenter: labels the keyframes; its settings hold for them and for the map.

    Raises:
        CaptureError: no view became a keyframe.
    """
    keyframes = buffer_for(segmenter.settings, segmenter.depth)
    found = SemanticMap(segmenter.info.label_space, segmenter.settings.map)
    for view in views:
        try:
            id = keyframes.offer(view).id
        except BadFrame as error:
            view.refuse(error)
            continue
        if id is not None:
            found.set_label(id, segmenter.segment(keyframes.get(id).color).label)
            found.update(keyframes)
    if not len(keyframes):
        raise CaptureError("no view became a keyframe: a map needs poses, and depth in most of a view's pixels")
    if doubt := keyframes.doubt:
        log.warning("%s", doubt)
    return found


@dataclass(frozen=True)
class MapScore:
    """Labels of single frames, and of the map read back into the same frames, against the truth.

    Args:
        frame: pixel accuracy 0..1 of single frames.
        map: of the map; where it says nothing, the label of the single frame stands in.
        answered: share of the labelled pixels for which the map says something.
        frames: number of frames.
    """

    frame: float
    map: float
    answered: float
    frames: int


def score_map(found: SemanticMap, frames: Iterable[Frame], segmenter: Segmenter) -> MapScore | None:
    """Read a map back into the labelled frames of its capture; None = there is none with depth."""
    single, fused, answers = (ConfusionMatrix(segmenter.info.label_space) for _ in range(3))
    for frame in map(undistort_frame, frames):
        if frame.label is None or frame.depth is None:
            continue
        own = segmenter.segment(frame.color).label
        read = found.read_back(frame.depth, frame.intrinsics, frame.T_world_camera)
        single.add(frame.label, own)
        answers.add(frame.label, read)
        fused.add(frame.label, np.where(read == UNLABELLED, own, read))
    if not single.images:
        return None
    counts = answers.counts
    return MapScore(
        frame=single.pooled().pixel_accuracy,
        map=fused.pooled().pixel_accuracy,
        answered=float(counts[:, 1:].sum() / counts.sum()),
        frames=single.images,
    )
