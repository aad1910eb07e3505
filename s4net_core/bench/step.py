"""Cost of a step of S4-Net, against a step on the same number of images with L_S alone."""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.io.captures.opening import open_capture
from s4net_core.learning.base_model import open_source
from s4net_core.learning.session import Session
from s4net_core.learning.stopping import LEARNING
from s4net_core.models.checkpoint import read_info


def bench_step(settings: Settings, capture: Path, *, steps: int = 20) -> list[Row]:
    """Time a step, teacher included, and a supervised step on as many images; steps of the two alternate.

    The teacher starts with an empty cache, as after each refresh; the last row includes its predictions.

    Args:
        settings: `checkpoint` and `source.path` name the base model and the source set.
        capture: where the keyframes come from.
        steps: number of steps of each kind.

    Raises:
        SettingsError: the capture gives too few keyframes.
    """
    learner, architecture = settings.learner, read_info(Path(settings.checkpoint).expanduser()).model.architecture
    target_batch = learner.target_images(architecture)
    supervised = settings.model_copy(deep=True)
    supervised.learner.lambda_geometric = supervised.learner.lambda_depth = 0.0
    supervised.learner.source_batch = learner.source_batch + target_batch
    source = open_source(settings)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as sessions:
        ours, plain = (
            sessions.enter_context(Session(chosen, settings.checkpoint, source, Path(folder) / name))
            for name, chosen in (("ours", settings), ("plain", supervised))
        )
        frames = open_capture(capture, stream=settings.stream, with_depth=settings.geometry.from_sensor)
        for frame in track(frames, "frames", console=Console(stderr=True), transient=True):
            ours.offer(frame)
        if ours.state != LEARNING:
            raise SettingsError(f"capture {capture} gives {len(ours.keyframes)} keyframes, too few: use a longer one")
        for session in (ours, plain):
            session.time_step()  # not counted: it allocates
        ours.refresh_teacher()
        times = [
            (ours.time_step(), plain.time_step())
            for _ in track(range(steps), "step", console=Console(stderr=True), transient=True)
        ]
    of_ours, of_plain = zip(*times, strict=True)
    cached, alone = statistics.median(of_ours), statistics.median(of_plain)
    # The first steps take longer, because the teacher predicts every view. That cost arises once a refresh.
    refresh = learner.teacher_refresh
    spread = cached + max(0.0, sum(of_ours) - steps * cached) / refresh
    images = f"{learner.source_batch} + {target_batch} images"
    return [
        Row(f"L_S alone, {supervised.learner.source_batch} images", alone * 1e3, "ms", None),
        Row(f"S4-Net, {images}, teacher's predictions cached", cached * 1e3, "ms", alone / cached),
        Row(f"S4-Net, {images}, with the teacher's share of {refresh} steps", spread * 1e3, "ms", alone / spread),
    ]
