"""How fast labelled images are read, packed and as they are, against what a training step needs."""

import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import Row
from s4net_core.config import Settings
from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.io.source_sets.pack_writer import write_pack
from s4net_core.io.source_sets.packed import PackedSourceSet, is_pack
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.session import Session

MAX_PACKED = 200
"""Most images that are packed for the measurement."""
QUALITIES = (0, 95)


def bench_source(settings: Settings, *, repeats: int = 20) -> list[Row]:
    """Measure how many images a second one process reads without a cache, in batches of `learner.source_batch`.

    Depth is read where the network learns it (`model.depth_decoder`).

    Args:
        settings: `checkpoint` and `source.path` name the network and the source set; with the size of the images.
        repeats: batches read from each set, and steps timed.
    """
    with_depth = settings.model.depth_decoder
    source = open_source_set(settings.source.path, with_depth=with_depth)
    batch, (width, height) = settings.learner.source_batch, settings.model.size
    console = Console(stderr=True)
    with console.status("steps of L_S"):
        need = batch / _step_seconds(settings, source, repeats)
    rows = [Row(f"a step of L_S takes, {batch} images at {width}x{height}", need, "images/s", None)]
    with tempfile.TemporaryDirectory() as folder:
        sets = {f"{source.name}, {'packed' if is_pack(Path(settings.source.path)) else 'as it is'}": source}
        if not is_pack(Path(settings.source.path)):
            for quality in track(QUALITIES, "pack", console=console, transient=True):
                path = Path(folder) / str(quality)
                info = write_pack(path, {"all": source}, width, height, quality=quality, limit=MAX_PACKED)
                size = path.stat().st_size / info.parts["all"] / 1e3
                name = f"JPEG {quality}" if quality else "PNG, exact"
                sets[f"packed, {name}, {size:.0f} kB an image"] = PackedSourceSet(path, with_depth=with_depth)
        for name, one in track(sets.items(), "read", console=console, transient=True):
            rate = _images_per_second(one, settings, repeats)
            rows.append(Row(name, rate, "images/s", rate / need))
    return rows


def _step_seconds(settings: Settings, source: SourceSet, repeats: int) -> float:
    """Duration of a supervised step whose images are in memory."""
    alone = settings.model_copy(deep=True)
    alone.learner.lambda_geometric, alone.guard.holdout = 0.0, 1
    need, model = alone.guard.holdout + alone.learner.source_batch, settings.model
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "few"
        write_pack(pack, {"all": source}, *model.size, limit=need)
        few = PackedSourceSet(pack, with_depth=model.depth_decoder)
        with Session(alone, settings.checkpoint, few, Path(folder) / "state") as session:
            for _ in range(2):  # not counted: they allocate and fill the cache
                session.time_step()
            return float(np.median([session.time_step() for _ in range(repeats)]))


def _images_per_second(source: SourceSet, settings: Settings, repeats: int) -> float:
    batches = SourceBatches(
        source,
        settings.learner.source_batch,
        *settings.model.size,
        settings.learner.mirror,
        np.random.default_rng(settings.seed),
        cache_megabytes=0,
    )
    batches.next()
    start = time.perf_counter()
    for _ in range(repeats):
        batches.next()
    return settings.learner.source_batch * repeats / (time.perf_counter() - start)
