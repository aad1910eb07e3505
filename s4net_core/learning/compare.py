"""S4-Net against its control: the same steps with and without the geometric loss, over several seeds."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.evaluation.evaluate import Evaluation, evaluate
from s4net_core.frames import FrameSource
from s4net_core.inference import Segmenter
from s4net_core.io.source_set import SourceSet
from s4net_core.learning.adapt import Adaptation

BASE, S4NET, CONTROL = "base", "S4-Net", "control (λ = 0)"


@dataclass(frozen=True)
class Run:
    """One adaptation and what came of it.

    Args:
        method: `BASE`, `S4NET` or `CONTROL`.
        seed: of the adaptation; None for the base model, which has no random choice.
        scene: name of the scene on which it was measured.
        evaluation: scores.
        agreement: between overlapping keyframes of the capture at the end; NaN for the base model.
        versions: hand-overs that the guard accepted.
        refused: hand-overs that it refused.
    """

    method: str
    seed: int | None
    scene: str
    evaluation: Evaluation
    agreement: float = float("nan")
    versions: int = 0
    refused: int = 0


def compare(
    settings: Settings,
    capture: FrameSource,
    source: SourceSet,
    scenes: Mapping[str, FrameSource],
    seeds: Sequence[int],
    *,
    on_step: Callable[[str, int, int], None] = lambda method, seed, step: None,
) -> list[Run]:
    """Adapt to `capture` once a method and seed, and measure on labelled scenes.

    Args:
        settings: `checkpoint` is the base model.
        capture: posed frames without use of labels.
        source: labelled source set.
        scenes: labelled captures by name, none of which is learned from with its labels.
        seeds: of the runs.
        on_step: called with method, seed and step.

    Returns:
        One entry a method, seed and scene.
    """
    runs = _measure(BASE, None, settings.checkpoint, settings, scenes)
    for seed in seeds:
        for method in (S4NET, CONTROL):
            chosen = settings.model_copy(deep=True)
            chosen.seed = seed
            if method == CONTROL:
                chosen.learner.lambda_geometric = chosen.learner.lambda_depth = 0.0
            with tempfile.TemporaryDirectory() as folder:
                adaptation = Adaptation(chosen, settings.checkpoint, source, folder)
                for frame in capture:
                    adaptation.offer(frame)
                while adaptation.ready:
                    adaptation.advance()
                    on_step(method, seed, adaptation.status.step)
                runs += [
                    replace(
                        run,
                        agreement=adaptation.status.agreement,
                        versions=adaptation.status.handovers,
                        refused=adaptation.status.refused,
                    )
                    for run in _measure(method, seed, adaptation.current.path, chosen, scenes)
                ]
    return runs


def _measure(
    method: str, seed: int | None, weights: str | Path, settings: Settings, scenes: Mapping[str, FrameSource]
) -> list[Run]:
    segmenter = Segmenter(weights, settings.device, settings)
    return [Run(method, seed, name, evaluate(segmenter, scene)) for name, scene in scenes.items()]
