"""Supervised training on the source set alone: the base model that adaptation starts from (paper: L_S)."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from s4net_core.config import Settings
from s4net_core.errors import LearningError
from s4net_core.evaluation.metrics import ConfusionMatrix
from s4net_core.inference import pick_device, predict_labels
from s4net_core.io.source_set import SourceBatches, SourceSet, split
from s4net_core.learning.learner import StepReport
from s4net_core.losses import median_frequency_weights, supervised_loss
from s4net_core.models.build import SegmentationNetwork, build_network
from s4net_core.models.checkpoint import CheckpointInfo, save_checkpoint

WARM_UP = 0.1
"""Share of the steps in which the step size rises to its setting; then it falls to zero."""


def pretrain(
    settings: Settings,
    source: SourceSet,
    output: str | Path,
    *,
    half: bool = False,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> CheckpointInfo:
    """Train a new network and write it.

    Args:
        settings: groups `model`, `pretrain`, `guard.holdout`, and `seed`, `device`.
        source: labelled images; the guard's hold-out is left out, so that it measures forgetting honestly later.
        output: weights file to write.
        half: store float16.
        on_step: called after every step.

    Returns:
        Metadata of the written file, with the hold-out's metrics.

    Raises:
        LearningError: the loss is not finite.
        SourceSetError: the source set is too small.
    """
    torch.manual_seed(settings.seed)
    device = pick_device(settings.device)
    network = build_network(settings.model).to(device)
    train, holdout = split(source, settings.guard.holdout)
    weights = median_frequency_weights(map(source.label, train), network.num_classes).to(device)
    batches = SourceBatches(
        source,
        settings.pretrain.batch,
        settings.model.width,
        settings.model.height,
        settings.learner.mirror,
        np.random.default_rng(settings.seed),
        cache_megabytes=settings.source.cache_megabytes,
        indices=train,
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.pretrain.learning_rate)
    # Ends near zero: the base model is judged where training stops, so it should not stop mid-swing.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.pretrain.learning_rate, total_steps=settings.pretrain.steps, pct_start=WARM_UP
    )
    network.train()
    for step in range(1, settings.pretrain.steps + 1):
        start = time.perf_counter()
        batch = batches.next().to(device)
        loss = supervised_loss(network(batch.images), batch.labels, weights)
        if not bool(torch.isfinite(loss)):
            raise LearningError(f"loss is {float(loss.detach())} at step {step}: lower pretrain.learning_rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        value = float(loss.detach())
        on_step(StepReport(step, value, value, 0.0, 0.0, time.perf_counter() - start))
    info = CheckpointInfo(
        model=network.settings,
        step=settings.pretrain.steps,
        metrics=_holdout_metrics(network, source, holdout, settings, device),
    )
    save_checkpoint(output, network, info, half=half)
    return info


def _holdout_metrics(
    network: SegmentationNetwork, source: SourceSet, holdout: list[int], settings: Settings, device: torch.device
) -> dict[str, float]:
    matrix = ConfusionMatrix(network.num_classes)
    network.eval()
    for i in holdout:
        image = source[i]
        (label,) = predict_labels(network, [image.color], settings, device)
        matrix.add(image.label, label)
    scores = matrix.pooled()
    return {"source_miou": scores.miou, "source_pixel_accuracy": scores.pixel_accuracy}
