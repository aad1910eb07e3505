"""Cost of a step of S4-Net and of its hand-overs, against steps on the same number of images with L_S alone."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import Settings, with_values
from s4net_core.errors import SettingsError
from s4net_core.io.captures.opening import open_views
from s4net_core.learning.base_model import open_source
from s4net_core.learning.session import Session
from s4net_core.learning.stopping import LEARNING
from s4net_core.models.checkpoint import read_info
from s4net_core.models.predict import pick_device

STEPS_OF_LABELS = 100
"""Steps for which labels are used, where no setting tells."""
LABEL_ROUNDS = 3
"""How often the labels of all keyframes are made anew."""
HANDOVERS = 5
"""Hand-overs that are measured: the first, which also measures the base model, and later ones."""


def bench_step(settings: Settings, capture: Path, *, steps: int = 20) -> list[Row]:
    """Time a step, labels included, supervised steps on as many images, and hand-overs; the steps alternate.

    Feature maps are made when an image is first shown, as in any run. The labels of all keyframes are made apart from
    the steps, and spread over those for which they are used. Times are those of the process where one CPU thread
    computes, so that other programs count for little; otherwise those of the clock.

    Args:
        settings: `checkpoint` and `source.path` name the base model and the source set.
        capture: where the keyframes come from.
        steps: number of steps of each kind.

    Raises:
        SettingsError: the capture gives too few keyframes.
    """
    learner, architecture = settings.learner, read_info(settings.checkpoint).model.architecture
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
        offer_all(ours, capture)
        seconds_of = _stopwatch(settings)
        for session in sessions.values():
            session.time_step()  # not counted: it allocates
        times: dict[str, list[float]] = {name: [] for name in [*sessions, "labels", "handover"]}
        for _ in range(LABEL_ROUNDS):
            ours.refresh_teacher()
            times["labels"].append(seconds_of(lambda: list(ours.targets())))
        due = {round(i * steps / HANDOVERS) for i in range(1, HANDOVERS + 1)}
        for done in track(range(1, steps + 1), "step", console=Console(stderr=True), transient=True):
            for name, session in sessions.items():
                times[name].append(seconds_of(session.time_step))
            if done in due:
                times["handover"].append(seconds_of(ours.handover))
        used = min(filter(None, (ours.stopping.last_step, learner.teacher_refresh)), default=STEPS_OF_LABELS)
        keyframes = len(ours.keyframes)
    return _rows(settings, times, f"{learner.source_batch} + {target_batch} images", count, keyframes, used)


def _rows(
    settings: Settings, times: dict[str, list[float]], images: str, count: int, keyframes: int, used: int
) -> list[Row]:
    """The rows; labels of so many `keyframes` are `used` for so many steps."""
    medians = {name: statistics.median(of_kind) for name, of_kind in times.items()}
    first, *later = times.pop("handover")
    again = statistics.median(later or [first])
    with_labels = medians["ours"] + medians["labels"] / used
    handovers = max(1, used // settings.adaptation.handover_every)
    handing_over = first + (handovers - 1) * again
    trained = settings.learner.trained
    names = {
        "whole": f"L_S alone, whole network, {count} images",
        "alone": f"L_S alone, learner.trained {trained}, {count} images",
        "ours": f"S4-Net, {images}, labels known",
    }
    steps = {f"{text}; {_spread(times[name])}": medians[name] for name, text in names.items()}
    steps[f"S4-Net, {images}, with the labels' share of {used} steps"] = with_labels
    share = handing_over / (handing_over + used * with_labels)
    return [
        *(
            Row(name, seconds * 1e3, "ms", medians["whole"] / seconds if n else None)
            for n, (name, seconds) in enumerate(steps.items())
        ),
        Row(
            f"S4-Net with labels beside L_S alone, learner.trained {trained}", with_labels / medians["alone"], "", None
        ),
        Row(f"labels of {keyframes} keyframes, once; {_spread(times['labels'])}", medians["labels"] * 1e3, "ms", None),
        Row("first hand-over, which measures the base model too", first * 1e3, "ms", None),
        Row(f"later hand-over; {_spread(later or [first])}", again * 1e3, "ms", None),
        Row(f"share of {handovers} hand-overs in the learner's time", share * 100, "%", None),
    ]


def offer_all(session: Session, capture: Path) -> None:
    """Offer all frames of a capture to a session.

    Raises:
        SettingsError: the capture gives too few keyframes.
    """
    settings = session.settings
    frames = open_views(capture, settings)
    for frame in track(frames, "frames", console=Console(stderr=True), transient=True):
        session.offer(frame)
    if session.state != LEARNING:
        raise SettingsError(f"capture {capture} gives {len(session.keyframes)} keyframes, too few: use a longer one")


def _stopwatch(settings: Settings) -> Callable[[Callable[[], object]], float]:
    """A function that tells how many seconds a call takes."""
    one_thread = pick_device(settings.device).type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter

    def seconds_of(call: Callable[[], object]) -> float:
        start = clock()
        call()
        return clock() - start

    return seconds_of


def _spread(seconds: Iterable[float]) -> str:
    """The middle half of the measurements, in words."""
    values = sorted(seconds)
    low, high = values[len(values) // 4], values[-1 - len(values) // 4]
    return f"half of them {low * 1e3:.0f} to {high * 1e3:.0f} ms"
