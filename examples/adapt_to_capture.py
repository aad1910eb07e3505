"""Adapt a network to a room without labels. Measure it before and after on a second scan, which it never saw.

python examples/adapt_to_capture.py [STEPS [OUT]]     (100 steps: a few minutes on a CPU)
"""

import sys
from pathlib import Path

from s4net_core import adapt, evaluate, load_model, save_model
from s4net_core.config import load_settings
from s4net_core.learning.status import Handover

DEMO = Path(__file__).resolve().parents[1] / "demo"


def show(handover: Handover) -> None:
    """Print whether the new weights serve from now on."""
    if handover.accepted:
        outcome = f"agreement between views {handover.version.info.metrics['agreement']:.3f}"
    else:
        outcome = "; ".join(handover.reasons) or "still the best"
    print(f"version {handover.version.number}: {outcome}")


def main(steps: str = "100", out: str = "adapted.safetensors") -> None:
    """Adapt the demo's network to the demo's office and write the result."""
    base = load_model(DEMO / "weights/base.safetensors", load_settings(DEMO / "demo.yaml"))
    adapted = adapt(base, DEMO / "capture", DEMO / "source", on_handover=show, adaptation={"max_steps": int(steps)})
    for name, model in (("before", base), ("after", adapted)):
        scores = evaluate(model, DEMO / "scan2").pooled
        print(f"{name:6}: pixel accuracy {scores.pixel_accuracy:.3f}, mIoU {scores.miou:.3f}")
    save_model(adapted, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
