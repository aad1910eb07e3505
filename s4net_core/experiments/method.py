"""Adapts a base model by a method, and scores networks on labelled scans."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.errors import CaptureError
from s4net_core.evaluation.evaluate import measure_networks
from s4net_core.experiments.results import NETWORKS, Result
from s4net_core.frames import Capture, FrameSequence
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.offline import adapt_to
from s4net_core.learning.session import Session
from s4net_core.models.checkpoint import file_sha256
from s4net_core.models.segmenter import Segmenter


@dataclass(frozen=True)
class TrainedNetwork:
    """A network to be measured, and how it came to be.

    Args:
        weights: its file.
        seed: of its adaptation; None = it was not adapted.
        steps: of its adaptation.
        versions, refused: hand-overs that the guard accepted and refused.
    """

    weights: Path
    seed: int | None = None
    steps: int = 0
    versions: int = 0
    refused: int = 0


def adapt_base(
    settings: Settings,
    capture: Capture,
    source: SourceSet,
    folder: Path,
    *,
    on_step: Callable[[int], None] = lambda step: None,
) -> TrainedNetwork:
    """Adapt the base model `settings.checkpoint` to a capture.

    Args:
        settings: of the method; `seed` is recorded in the result.
        capture: posed frames; its labels are not used.
        source: labelled source set.
        folder: for keyframes and weights; the returned network's weights lie there.
        on_step: called with the number of steps after each of them.

    Raises:
        LearningError: too few views overlap, or the loss is repeatedly not finite.
    """
    with Session(settings, settings.checkpoint, source, folder) as session:
        version = adapt_to(session, capture.views(), on_step=lambda status: on_step(status.step))
        status = session.status
    return TrainedNetwork(version.path, settings.seed, status.step, status.handovers, status.refused)


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
        measured = measure_networks({method: segmenter}, capture, settings)
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
            )
        )
    return results
