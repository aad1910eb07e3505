"""Cost of a step of S4-Net, against steps on the same number of images with L_S alone."""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import Settings, with_values
from s4net_core.errors import SettingsError
from s4net_core.io.captures.opening import open_capture
from s4net_core.learning.base_model import open_source
from s4net_core.learning.session import Session
from s4net_core.learning.stopping import LEARNING
from s4net_core.models.checkpoint import read_info

STEPS_OF_LABELS = 100
"""Steps for which labels are used, where no setting tells."""


def bench_step(settings: Settings, capture: Path, *, steps: int = 20) -> list[Row]:
    """Time a step, labels included, and supervised steps on as many images; the steps alternate.

    The caches are empty at first, as after each refresh of the teacher. What the first steps cost more, for labels and
    feature maps, is spread in the last row over the steps for which these are used.

    Args:
        settings: `checkpoint` and `source.path` name the base model and the source set.
        capture: where the keyframes come from.
        steps: number of steps of each kind.

    Raises:
        SettingsError: the capture gives too few keyframes.
    """
    learner, architecture = settings.learner, read_info(Path(settings.checkpoint).expanduser()).model.architecture
    target_batch = learner.target_images(architecture)
    count = learner.source_batch + target_batch
    no_targets = {"lambda_geometric": 0.0, "lambda_depth": 0.0, "source_batch": count}
    alone = with_values(settings, {"learner": no_targets})
    kinds = {"ours": settings, "alone": alone, "whole": with_values(alone, {"learner.trained": "all"})}
    source = open_source(settings)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sessions = {
            name: stack.enter_context(Session(chosen, settings.checkpoint, source, Path(folder) / name))
            for name, chosen in kinds.items()
        }
        ours = sessions["ours"]
        frames = open_capture(
            capture, stream=settings.stream, with_depth=settings.geometry.from_sensor, with_labels=False
        )
        for frame in track(frames, "frames", console=Console(stderr=True), transient=True):
            ours.offer(frame)
        if ours.state != LEARNING:
            raise SettingsError(f"capture {capture} gives {len(ours.keyframes)} keyframes, too few: use a longer one")
        for session in sessions.values():
            session.time_step()  # not counted: it allocates
        ours.refresh_teacher()
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in track(range(steps), "step", console=Console(stderr=True), transient=True):
            for name, session in sessions.items():
                times[name].append(session.time_step())
        used = _steps_of_labels(settings, len(ours.keyframes))
    medians = {name: statistics.median(of_kind) for name, of_kind in times.items()}
    spread = medians["ours"] + max(0.0, sum(times["ours"]) - steps * medians["ours"]) / used
    images = f"{learner.source_batch} + {target_batch} images"
    rows = {
        f"L_S alone, whole network, {count} images": medians["whole"],
        f"L_S alone, learner.trained {learner.trained}, {count} images": medians["alone"],
        f"S4-Net, {images}, labels and features known": medians["ours"],
        f"S4-Net, {images}, with the labels' share of {used} steps": spread,
    }
    return [
        Row(name, seconds * 1e3, "ms", medians["whole"] / seconds if n else None)
        for n, (name, seconds) in enumerate(rows.items())
    ]


def _steps_of_labels(settings: Settings, keyframes: int) -> int:
    """Number of steps for which labels are used once they are made."""
    adaptation, refresh = settings.adaptation, settings.learner.teacher_refresh
    planned = adaptation.max_steps or round(adaptation.steps_per_keyframe * keyframes)
    return min(filter(None, (planned, refresh)), default=STEPS_OF_LABELS)
