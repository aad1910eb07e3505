"""Measure a network on a capture with labels: scores over all pixels and over images, and its five worst classes.

python examples/evaluate_model.py [CHECKPOINT [CAPTURE]]
"""

import sys
from pathlib import Path

from s4net_core import evaluate, load_model
from s4net_core.labels import SUNRGBD37

DEMO = Path(__file__).resolve().parents[1] / "demo"


def main(
    checkpoint: str = str(DEMO / "weights/base.safetensors"),
    capture: str = str(DEMO / "scan2"),
) -> None:
    """Print the scores."""
    model = load_model(checkpoint)
    result = evaluate(model, capture)
    print(f"{result.frames} frames with labels")
    for name, scores in (("all pixels pooled", result.pooled), ("mean over images", result.per_image)):
        print(
            f"{name}: pixel accuracy {scores.pixel_accuracy:.3f}, mean accuracy {scores.mean_accuracy:.3f}, "
            f"mIoU {scores.miou:.3f}, frequency-weighted IoU {scores.fwiou:.3f}"
        )
    worst = sorted(result.class_iou.items(), key=lambda entry: entry[1])[:5]
    print("worst:", ", ".join(f"{SUNRGBD37.names[id - 1]} {iou:.2f}" for id, iou in worst))


if __name__ == "__main__":
    main(*sys.argv[1:])
