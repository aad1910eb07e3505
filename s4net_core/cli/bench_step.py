"""What a step of S4-Net costs, against the same number of images trained with L_S alone."""

import statistics
import tempfile
from pathlib import Path

from s4net_core.cli.bench_geometry import Row
from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.io.captures import open_capture
from s4net_core.io.source_set import FolderSourceSet
from s4net_core.learning.adapt import Adaptation

WARM_UP = 2
"""Steps of each that do not count, as they allocate."""


def bench_step(settings: Settings, capture: Path, *, steps: int = 20) -> list[Row]:
    """Time a step, teacher included, and a supervised step on as many images; steps of the two alternate.

    The teacher starts with an empty cache, as after each refresh, so that its predictions are paid for here.

    Args:
        settings: `checkpoint` and `source.path` name the base model and the source set.
        capture: where the keyframes come from.
        steps: of each.

    Raises:
        SettingsError: the capture gives too few keyframes.
    """
    supervised = settings.model_copy(deep=True)
    supervised.learner.lambda_geometric = 0.0
    supervised.learner.source_batch = settings.learner.source_batch + settings.learner.target_batch
    source = FolderSourceSet(settings.source.path)
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = (
            Adaptation(chosen, settings.checkpoint, source, Path(folder) / name)
            for name, chosen in (("ours", settings), ("plain", supervised))
        )
        for frame in open_capture(capture, stream=settings.stream):
            ours.offer(frame)
        if not ours.ready:
            raise SettingsError(f"capture {capture} gives {len(ours.keyframes)} keyframes, too few: use a longer one")
        times = [(ours.time_step(), plain.time_step()) for _ in range(WARM_UP + steps)][WARM_UP:]
    of_ours, of_plain = (statistics.mean(column) for column in zip(*times, strict=True))
    images = supervised.learner.source_batch
    return [
        Row(f"L_S alone, {images} images", of_plain * 1e3, "ms", None),
        Row(
            f"S4-Net, {settings.learner.source_batch} + {settings.learner.target_batch} images",
            of_ours * 1e3,
            "ms",
            of_plain / of_ours,
        ),
    ]
