"""Methods against each other: adapt to one capture with several settings and seeds, and measure on labelled scans."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from s4net_core.config import Settings, with_values
from s4net_core.errors import CaptureError
from s4net_core.evaluation.evaluate import measure
from s4net_core.evaluation.results import NETWORKS, Result, results_of
from s4net_core.frames import FrameSource
from s4net_core.inference import Segmenter
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.offline import adapt_to
from s4net_core.learning.session import Session
from s4net_core.models.checkpoint import file_sha256

BASE, S4NET, CONTROL = "base", "S4-Net", "control (λ = 0)"


def with_control(settings: Settings) -> dict[str, Settings]:
    """S4-Net, and the same steps on the same source images without any loss between views."""
    control = settings.model_copy(deep=True)
    control.learner.lambda_geometric = control.learner.lambda_depth = 0.0
    return {S4NET: settings, CONTROL: control}


def compare(
    methods: Mapping[str, Settings],
    capture: FrameSource,
    source: SourceSet,
    scans: Mapping[str, FrameSource],
    seeds: Sequence[int],
    *,
    on_step: Callable[[str, int, int], None] = lambda method, seed, step: None,
) -> list[Result]:
    """Adapt to `capture` once a method and seed, and measure on labelled scans.

    Args:
        methods: by name, at least one; `checkpoint` is the base model, that of the first one is measured as `BASE`.
        capture: posed frames without use of labels.
        source: labelled source set.
        scans: labelled captures by name, none of which is learned from with its labels.
        seeds: of the runs.
        on_step: called with method, seed and step.

    Returns:
        One entry a method, seed and scan; their scene is the capture's name.

    Raises:
        CaptureError: a scan has no label.
        LearningError: the capture has too few overlapping views.
    """
    first = next(iter(methods.values()))
    results = measure_scans(first.checkpoint, first, scans, method=BASE, scene=capture.name)
    for seed in seeds:
        for method, settings in methods.items():
            chosen = settings.model_copy(deep=True, update={"seed": seed})
            found = adapt_and_measure(chosen, capture, source, scans, on_step=partial(on_step, method, seed))
            results += [replace(result, method=method) for result in found]
    return results


def adapt_and_measure(
    settings: Settings,
    capture: FrameSource,
    source: SourceSet,
    scans: Mapping[str, FrameSource],
    *,
    measuring: Settings | None = None,
    keep: Path | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[Result]:
    """One adaptation and what came of it.

    Args:
        settings: `checkpoint` is the base model; `seed` is noted in the results.
        capture: posed frames without use of labels.
        source: labelled source set.
        scans: labelled captures by name.
        measuring: settings with which is measured, so that methods that differ in what counts as overlap or occluded
            are measured alike; None = `settings`.
        keep: where the weights that serve in the end are copied to; None = they are not kept.
        on_step: called after every step.

    Raises:
        CaptureError: a scan has no label.
        LearningError: the capture has too few overlapping views.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Methods are compared after the same number of steps, unless `adaptation.patience` itself ends them.
        chosen = with_values(settings, {"adaptation.offline_patience": 0})
        with Session(chosen, settings.checkpoint, source, folder) as session:
            weights = adapt_to(session, capture, on_step=lambda status: on_step(status.step)).path
            status = session.status
        results = measure_scans(weights, measuring or settings, scans, method=S4NET, scene=capture.name)
        if keep:
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights, keep)
    return [
        replace(result, seed=settings.seed, steps=status.step, versions=status.handovers, refused=status.refused)
        for result in results
    ]


def measure_scans(
    weights: str | Path, settings: Settings, scans: Mapping[str, FrameSource], *, method: str, scene: str
) -> list[Result]:
    """Measure one network on labelled scans of one scene.

    Raises:
        CaptureError: a scan has no label.
    """
    segmenter = Segmenter(weights, settings.device, settings)
    network = NETWORKS[segmenter.info.model.architecture]
    sha256 = file_sha256(weights)
    results = []
    for scan, capture in scans.items():
        measured = measure({method: segmenter}, capture, settings)
        if not measured.evaluations:
            raise CaptureError(f"capture {capture.name} has no labelled pixel: use one with a folder label/")
        results += results_of(measured, scene, scan, {method: (network, method)})
    return [replace(result, weights=sha256) for result in results]
