"""Scores of a network on a capture: against labels and depth where it has some, and between its own views."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import Settings, with_values
from s4net_core.errors import CaptureError
from s4net_core.evaluation.agreement import Agreement, agreement_of_each, compared_views
from s4net_core.evaluation.depth import DepthErrors, DepthEvaluation
from s4net_core.evaluation.metrics import ConfusionMatrix, SegmentationScores
from s4net_core.evaluation.pictures import PictureRow
from s4net_core.frames import Frame, FrameSequence
from s4net_core.keyframes import DepthPrediction, KeyframeBuffer, buffer_for
from s4net_core.labels import SUNRGBD37, LabelSpace
from s4net_core.models.checkpoint import common_space
from s4net_core.models.predict import pick_device
from s4net_core.models.segmenter import Segmenter

log = logging.getLogger(__name__)

COMPARED = {"learner": {"neighbours": 4, "min_overlap": 0.25}}
"""The paper's pairs of views: agreement is measured on them, so that numbers can be compared between settings."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one network on the labelled frames of one capture.

    Args:
        pooled: from one confusion matrix over all frames.
        per_image: scores of each frame, averaged (the paper's convention).
        class_iou: pooled IoU by class id, of the classes that occur.
        frames: labelled frames that were scored.
        counts: (C, C + 1) pixels, as `ConfusionMatrix.counts`; without them no confusion can be shown.
        names: of the classes, id 1 first.
    """

    pooled: SegmentationScores
    per_image: SegmentationScores
    class_iou: dict[int, float]
    frames: int
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 1), np.int64), compare=False, repr=False)
    names: tuple[str, ...] = field(default=SUNRGBD37.names, repr=False)


@dataclass(frozen=True)
class Measurement:
    """What `measure_networks` found on one capture.

    Args:
        capture: its name.
        evaluations: by network; empty when the capture has no labels.
        agreements: between the capture's keyframes, by network.
        keyframes: number of keyframes that the capture gave.
        pictures: some frames with the labels of the first and the last network.
        depths: errors of predicted depth, by network; none without a depth decoder, or on a capture without depth.
        label_space: of the labels.
    """

    capture: str
    evaluations: dict[str, Evaluation]
    agreements: dict[str, Agreement]
    keyframes: int
    pictures: list[PictureRow]
    depths: dict[str, DepthEvaluation] = field(default_factory=dict)
    label_space: LabelSpace = SUNRGBD37


def measure_networks(
    segmenters: Mapping[str, Segmenter],
    capture: FrameSequence,
    settings: Settings,
    *,
    pictures: int = 0,
    on_frame: Callable[[], None] = lambda: None,
    on_view: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Measure networks on one capture, in one pass over it.

    Args:
        segmenters: networks by name, in the order "before", "after", or a single one.
        capture: with or without labels of the networks' classes, with or without depth; exact depth
            (`Frame.true_depth`) is preferred as truth.
        settings: as `keyframes_of` and `evaluate_agreement`.
        pictures: largest number of frames to show, spread over the capture; labelled ones if there are any to show.
        on_frame: called after every frame of the capture.
        on_view: as of `evaluate_agreement`, which comes after the frames.

    Raises:
        CheckpointError: the networks have different classes.
    """
    space = common_space({f"network '{name}'": segmenter.info.label_space for name, segmenter in segmenters.items()})
    tallies = {name: ConfusionMatrix(space) for name in segmenters}
    errors = {
        name: DepthErrors(settings.geometry.min_depth, settings.geometry.max_depth)
        for name, segmenter in segmenters.items()
        if segmenter.info.model.depth_decoder
    }
    spread = np.linspace(0, len(capture) - 1, pictures + 2).astype(int)[1:-1].tolist()
    due = dict.fromkeys((True, False), spread)  # positions still to be shown, of labelled frames and of others
    rows: dict[bool, list[PictureRow]] = {True: [], False: []}

    def scored(frames: Iterable[Frame]) -> Iterator[Frame]:
        for index, frame in enumerate(frames):
            labelled = frame.label is not None
            later = [position for position in due[labelled] if position > index]
            show, due[labelled] = later != due[labelled], later
            if frame.label is not None or show:
                labels = {name: segmenter.segment(frame.color).label for name, segmenter in segmenters.items()}
                if frame.label is not None:
                    for name, label in labels.items():
                        tallies[name].add(frame.label, label)
                if show:
                    rows[labelled].append(_picture(f"frame {index}", frame, list(labels.values())))
            truth = frame.depth if frame.true_depth is None else frame.true_depth
            if truth is not None:
                for name, found in errors.items():
                    found.add(truth, segmenters[name].depth(frame.color))
            yield frame

    newest = list(segmenters.values())[-1]  # its depth is used for all networks, as in the guard
    keyframes = keyframes_of(scored(capture), settings, predict_depth=newest.depth, on_frame=on_frame)
    if doubt := keyframes.doubt:
        log.warning("capture %s: %s", capture.name, doubt)
    return Measurement(
        capture=capture.name,
        evaluations={name: _evaluation(tally) for name, tally in tallies.items() if tally.images},
        agreements=evaluate_agreement(segmenters, keyframes, settings, on_view=on_view),
        keyframes=len(keyframes),
        pictures=rows[True] or rows[False],
        depths={name: found.evaluation() for name, found in errors.items() if found.images},
        label_space=space,
    )


def evaluate(segmenter: Segmenter, capture: FrameSequence) -> Evaluation:
    """Compare what the segmenter answers with the labels of a capture, at the capture's own size.

    Args:
        segmenter: answers as it does live, `segmentation.min_confidence` included.
        capture: frames without labels are passed over.

    Raises:
        CaptureError: no frame has a label.
    """
    matrix = ConfusionMatrix(segmenter.info.label_space)
    for frame in capture:
        if frame.label is not None:
            matrix.add(frame.label, segmenter.segment(frame.color).label)
    if not matrix.images:
        raise CaptureError(f"capture {capture.name} has no labelled pixel: use one with a folder label/")
    return _evaluation(matrix)


def keyframes_of(
    frames: Iterable[Frame],
    settings: Settings,
    *,
    predict_depth: DepthPrediction | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> KeyframeBuffer:
    """The keyframes that the adaptation node would keep of a capture.

    Args:
        frames: those without depth are not taken, unless it is predicted.
        settings, predict_depth: as of `buffer_for`.
        on_frame: called after every frame of the capture.
    """
    keyframes = buffer_for(settings, predict_depth)
    for frame in frames:
        keyframes.offer(frame)
        on_frame()
    return keyframes


def evaluate_agreement(
    segmenters: Mapping[str, Segmenter],
    keyframes: KeyframeBuffer,
    settings: Settings,
    *,
    on_view: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Agreement]:
    """Agreement between each network's labels of overlapping keyframes.

    Args:
        segmenters: by name; each labels every keyframe.
        keyframes: at the working size.
        settings: group `geometry`; which pairs are compared does not depend on what the learner learns from.
        on_view: called whenever a keyframe was labelled by a network or compared with others, with the number of these
            calls and how many there will be.
    """
    total = (len(segmenters) + 1) * len(keyframes)
    done = itertools.count(1)
    labels: dict[str, dict[int, NDArray[np.uint8]]] = {name: {} for name in segmenters}
    for name, segmenter in segmenters.items():
        for id, view in keyframes.views(keyframes.ids()).items():
            labels[name][id] = segmenter.segment(view.color).label
            on_view(next(done), total)
    compared = with_values(settings, COMPARED)
    found = agreement_of_each(
        list(labels.values()),
        compared_views(keyframes, keyframes.ids(), compared),
        compared,
        pick_device(settings.device),
        on_view=lambda: on_view(next(done), total),
    )
    return dict(zip(labels, found, strict=True))


def _evaluation(matrix: ConfusionMatrix) -> Evaluation:
    scores = matrix.pooled(), matrix.per_image_mean(), matrix.class_iou()
    return Evaluation(*scores, matrix.images, matrix.counts, matrix.space.names)


def _picture(name: str, frame: Frame, labels: list[NDArray[np.uint8]]) -> PictureRow:
    return PictureRow(name, frame.color, labels[-1], labels[0] if len(labels) > 1 else None, frame.label)
