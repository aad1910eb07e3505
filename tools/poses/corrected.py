"""A trajectory that corrects drift, for the table of that name in docs/results.md.

    .venv/bin/python tools/poses/corrected.py DATA/rendered/T1 demo/weights/base.safetensors --seed 0

learns a room twice, as config/experiments/rooms.yaml says: with true poses, and with ``poses_drift.txt`` of spoiled.py,
while a path of true poses moves the keyframes after every 30 frames. It has every fifth pose, and ends where the camera
is then. Prints one line of JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from spoiled import Trajectory, read

from s4net_core.evaluation.evaluate import evaluate, evaluate_agreement
from s4net_core.experiments.experiment import load_experiment
from s4net_core.frames import Frame
from s4net_core.io.captures.opening import open_views
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.labels import SUNRGBD37
from s4net_core.learning.offline import adapt_to
from s4net_core.learning.session import Session
from s4net_core.models.segmenter import Segmenter

REPOSITORY = Path(__file__).parents[2]
EVERY, PART = 30, 5
"""A path comes after so many frames, and has the pose of every so many."""


def corrected(session: Session, views: Iterable[Frame], true: Trajectory) -> Iterator[Frame]:
    """The views; between them the keyframes of the session are moved to a path of true poses."""
    path = {}
    for number, view in enumerate(views):
        yield view
        arrives = number % EVERY == EVERY - 1
        if arrives or number % PART == 0:
            path[view.stamp] = true[number]
        if arrives:
            session.keyframes.move(path, frame="map")


def largest_offset(keyframes: KeyframeBuffer, true: dict[int, np.ndarray]) -> float:
    """Pixels between where a keyframe sees a point and where its pose puts this point, the largest of all."""
    return max(_offset(view, true[view.stamp]) for view in keyframes.views(keyframes.ids()).values())


def _offset(view: Keyframe, true: np.ndarray) -> float:
    v, u = np.nonzero(view.depth)
    z, lens = view.depth[v, u].astype(float), view.intrinsics
    points = np.stack([(u - lens.cx) / lens.fx * z, (v - lens.cy) / lens.fy * z, z, np.ones_like(z)])
    x, y, z, _ = np.linalg.inv(view.T_world_camera) @ true @ points
    return float(np.hypot(x / z * lens.fx + lens.cx - u, y / z * lens.fy + lens.cy - v).max())


def main() -> None:
    """Learn twice, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    experiment = load_experiment(REPOSITORY / "config/experiments/rooms.yaml")
    settings = experiment.shared_settings({"seed": args.seed, "checkpoint": str(args.base)})
    source = open_source_set(REPOSITORY / "demo/source")
    scan = args.room / "scan1"
    _, true = read(scan / "poses.txt")
    stamps = [frame.stamp for frame in open_views(scan, settings)]
    second = open_views(args.room / "scan2", settings, labels=SUNRGBD37)
    out: dict[str, object] = {"room": args.room.name, "seed": args.seed}
    out["base"] = evaluate(Segmenter(args.base, settings.device, settings), second).pooled.miou
    buffers, segmenters = {}, {}
    for name, poses in {"true": "", "path": "poses_drift.txt"}.items():
        with tempfile.TemporaryDirectory() as folder, Session(settings, args.base, source, folder) as session:
            views = open_views(scan, settings, poses=poses)
            version = adapt_to(session, corrected(session, views, true) if poses else views)
            segmenters[name] = Segmenter(version.path, settings.device, settings)
            out[f"{name}: segments"] = session.status.segments
            out[f"{name}: pairs"] = str(session.status.pairs)
        buffers[name] = session.keyframes
    out["off, pixels"] = largest_offset(buffers["path"], dict(zip(stamps, true, strict=True)))
    for name, segmenter in segmenters.items():
        out[f"{name}: miou"] = evaluate(segmenter, second).pooled.miou
        for views, buffer in {"own views": buffers[name], "same views": buffers["true"]}.items():
            out[f"{name}: agreement, {views}"] = evaluate_agreement({name: segmenter}, buffer, settings)[name].mean
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
