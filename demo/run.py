"""The demo: a recorded room is played as live topics while two nodes label it and learn from it.

``make demo``, or ``.venv/bin/python demo/run.py [options of s4net live]``. Everything it writes lies in ``demo/out``.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent
OUT = DEMO / "out"
CAPTURE, SECOND_SCAN = DEMO / "capture", DEMO / "scan2"
MINUTES = 8
"""The demo ends after this long, whatever a slow machine has reached."""


def main(options: list[str]) -> None:
    """Convert the capture to a bag, then become `s4net live` on it, which says at its end where the report is."""
    shutil.rmtree(OUT, ignore_errors=True)
    s4net = [sys.executable, "-m", "s4net_core.cli.main"]
    os.chdir(DEMO.parent)
    bag = OUT / "bag"
    code = subprocess.run([*s4net, "convert", str(CAPTURE), str(bag)], check=False).returncode
    if code:
        sys.exit(code)
    live = ["live", bag, "--settings", DEMO / "demo.yaml", "--out", OUT, "--seconds", 60 * MINUTES]
    live += ["--checkpoint", DEMO / "weights" / "base.safetensors", "--source-set", DEMO / "source"]
    live += ["--evaluate", SECOND_SCAN]
    # Other ROS programs on this machine neither see the demo nor disturb it.
    environment = {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)), **os.environ}
    os.execve(sys.executable, [*s4net, *map(str, live), *options], environment)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
