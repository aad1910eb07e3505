"""Adapts a base model by a method, and scores networks on labelled scans."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import Settings
from s4net_core.errors import CaptureError
from s4net_core.evaluation.evaluate import keyframes_of, measure_networks
from s4net_core.evaluation.scoring import confusion
from s4net_core.experiments.results import NETWORKS, Learning, Point, Result
from s4net_core.experiments.tent import tent
from s4net_core.frames import Capture, Frame, FrameSequence
from s4net_core.geometry.camera import working_frame
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.keyframes import Keyframe
from s4net_core.learning.learner import LabelsOf
from s4net_core.learning.offline import adapt_to
from s4net_core.learning.session import Session
from s4net_core.learning.status import Handover, Status
from s4net_core.models.checkpoint import file_sha256, load_checkpoint, read_info, save_checkpoint
from s4net_core.models.predict import pick_device, predict_labels
from s4net_core.models.segmenter import Segmenter


@dataclass(frozen=True)
class TrainedNetwork:
    """A network to be measured, and how it came to be.

    Args:
        weights: its file.
        seed: of its adaptation; None = it was not adapted.
        steps: of its adaptation.
        versions, refused: hand-overs that the guard accepted and refused.
        learning: how the adaptation went; None = it was not adapted.
    """

    weights: Path
    seed: int | None = None
    steps: int = 0
    versions: int = 0
    refused: int = 0
    learning: Learning | None = None


def adapt_base(
    settings: Settings,
    capture: Capture,
    source: SourceSet | None,
    folder: Path,
    *,
    kind: str = "s4net",
    seconds: float | None = None,
    curve_on: FrameSequence | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> TrainedNetwork:
    """Adapt the base model `settings.checkpoint` to a capture.

    Args:
        settings: of the method; `seed` is recorded in the result.
        capture: posed frames; its labels are not used but by an ``oracle``, and to measure those of the learner.
        source: labelled source set; None = the method has none.
        folder: for keyframes and weights; the returned network's weights lie there.
        kind: ``s4net``, ``oracle``, ``own_labels`` or ``source_free``, see `Method`.
        seconds: CPU seconds after which learning ends; None = as the settings say.
        curve_on: labelled scan on which the learner is measured at each hand-over; its labels are compared with the
            capture's as well. None = neither is measured.
        on_step: called with the number of steps after each of them.

    Raises:
        LearningError: too few views overlap, or the loss is repeatedly not finite.
    """
    settings = settings.sized(read_info(settings.checkpoint).model)
    truth = _labels_of(capture, settings)
    labels_of = truth if kind == "oracle" else _own_labels_of(settings) if kind == "own_labels" else None
    watched = [] if curve_on is None else [frame for frame in curve_on if frame.label is not None]
    clock, curve, limit = _Clock(), list[Point](), math.inf if seconds is None else seconds
    with Session(settings, settings.checkpoint, source, folder, labels_of=labels_of) as session:

        def measure(handover: Handover) -> None:
            if watched and not handover.reasons:
                with clock.paused():
                    curve.append(_point(session, watched, clock.seconds, handover.accepted))
            if clock.seconds > limit:
                raise _TimeIsUp

        def step(status: Status) -> None:
            on_step(status.step)
            if clock.seconds > limit:  # after a hand-over of this step `measure` would have ended the run
                measure(session.handover())

        with suppress(_TimeIsUp):
            adapt_to(
                session,
                capture.views(),
                on_collected=lambda rejected: clock.start(),
                on_handover=measure,
                on_step=step,
            )
        taken, status = clock.seconds, session.status
        quality = _label_quality(session.targets(), truth) if watched else ()  # decodes the whole capture again
        learning = Learning(taken, tuple(curve), *quality)
        path = session.current.path
    return TrainedNetwork(path, settings.seed, status.step, status.handovers, status.refused, learning)


def adapt_by_entropy(settings: Settings, capture: FrameSequence, folder: Path) -> TrainedNetwork:
    """As `adapt_base`, by `tent`."""
    network, info = load_checkpoint(settings.checkpoint)
    settings = settings.sized(info.model)
    keyframes = keyframes_of(capture, settings)
    clock = _Clock()
    clock.start()
    tent(network, keyframes, settings)
    learning = Learning(clock.seconds)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tent.safetensors"
    save_checkpoint(path, network.cpu(), info)
    return TrainedNetwork(path, settings.seed, settings.adaptation.max_steps, 1, 0, learning)


def measure_on_scans(
    network: TrainedNetwork, scans: Mapping[str, FrameSequence], settings: Settings, *, method: str, scene: str
) -> list[Result]:
    """Measure a network: one result per scan.

    Args:
        network: to be measured.
        scans: labelled captures of one scene, by name.
        settings: for the measurement.
        method: how the network was trained, for its row in the tables.
        scene: name of the place.

    Raises:
        CaptureError: a scan has no label.
        CheckpointError: the weights cannot be loaded.
    """
    segmenter = Segmenter(network.weights, settings.device, settings)
    architecture = NETWORKS[segmenter.info.model.architecture]
    sha256 = file_sha256(network.weights)
    results = []
    for scan, capture in scans.items():
        measured = measure_networks({method: segmenter}, capture, segmenter.settings)
        if not measured.evaluations:
            raise CaptureError(f"capture {capture.name} has no labelled pixel: use one with a folder label/")
        results.append(
            Result(
                network=architecture,
                method=method,
                scene=scene,
                scan=scan,
                evaluation=measured.evaluations[method],
                agreement=measured.agreements[method],
                depth=measured.depths.get(method),
                seed=network.seed,
                weights=sha256,
                steps=network.steps,
                versions=network.versions,
                refused=network.refused,
                learning=network.learning,
            )
        )
    return results


def measure_on_images(weights: Path, images: SourceSet, settings: Settings) -> float:
    """Pooled mIoU of a network on a labelled source set.

    Raises:
        CheckpointError: the weights cannot be loaded.
    """
    device = pick_device(settings.device)
    network, info = load_checkpoint(weights, device=device)
    labelled = ((image.color, image.label) for image in (images[i] for i in range(len(images))))
    return confusion(network, labelled, settings.sized(info.model), device).pooled().miou


class _TimeIsUp(Exception):
    """The method has used its seconds, and its weights were handed over."""


class _Clock:
    """CPU seconds of this process since `start`, without pauses."""

    def __init__(self) -> None:
        self._start: float | None = None

    def start(self) -> None:
        self._start = time.process_time()

    @property
    def seconds(self) -> float:
        return 0.0 if self._start is None else time.process_time() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = time.process_time()
        yield
        self._start = (self._start or 0.0) + time.process_time() - before


def _point(session: Session, frames: Sequence[Frame], seconds: float, served: bool) -> Point:
    """The learner's weights of this moment, measured."""
    labelled = ((frame.color, frame.label) for frame in frames if frame.label is not None)
    settings = session.settings
    scores = confusion(session.learned, labelled, settings, pick_device(settings.device)).pooled()
    health = session.status.health
    metrics = {"score": health.score, "agreement": health.agreement, "source_miou": health.source_miou}
    return Point(session.status.step, seconds, scores.miou, scores.pixel_accuracy, metrics, served)


def _labels_of(capture: FrameSequence, settings: Settings) -> LabelsOf:
    """The true labels of a capture's keyframes, by their stamps; they are read when they are first asked for."""
    labels: dict[int, NDArray[np.uint8] | None] = {}

    def labels_of(keyframe: Keyframe) -> NDArray[np.uint8] | None:
        if not labels:
            for frame in capture:
                labels[frame.stamp] = working_frame(frame, *settings.model.size).label
        return labels.get(keyframe.stamp)

    return labels_of


def _own_labels_of(settings: Settings) -> LabelsOf:
    """What the base model says of each keyframe alone."""
    labels: dict[int, NDArray[np.uint8]] = {}
    device = pick_device(settings.device)
    network = load_checkpoint(settings.checkpoint)[0].to(device)

    def labels_of(keyframe: Keyframe) -> NDArray[np.uint8]:
        if keyframe.id not in labels:
            labels[keyframe.id] = predict_labels(network, [keyframe.color], settings, device)[0]
        return labels[keyframe.id]

    return labels_of


def _label_quality(targets: Iterable[tuple[Keyframe, NDArray[np.uint8]]], truth: LabelsOf) -> tuple[float, float]:
    """Share of the learner's labels that are right, and share of the pixels that have one; NaN = not known."""
    right = compared = labelled = pixels = 0
    for keyframe, label in targets:
        true = truth(keyframe)
        labelled, pixels = labelled + int((label > 0).sum()), pixels + label.size
        if true is not None:
            both = (label > 0) & (true > 0)
            right, compared = right + int((label == true)[both].sum()), compared + int(both.sum())
    return right / compared if compared else math.nan, labelled / pixels if pixels else math.nan
