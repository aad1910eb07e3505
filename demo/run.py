"""The demo: plays a recorded room as live topics, while two nodes label it and learn from it.

``make demo``, or ``.venv/bin/python demo/run.py [options of s4net live]``. It writes to ``demo/out``. It
waits for a browser that shows the cockpit with ``--cockpit``, and has no cockpit with ``--cockpit false``.
"""

import argparse
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
"""The demo ends after this time, even if a slow machine has not finished learning."""


def main(options: list[str]) -> None:
    """Convert the capture to a bag and replace this process by `s4net live`, which prints the report's path."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--cockpit", nargs="?", const="wait", default="true", choices=("true", "false", "wait"))
    own, options = parser.parse_known_args(options)
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
    live += ["--wait-for-browser"] if own.cockpit == "wait" else ["--cockpit", own.cockpit]
    # Other ROS programs on this machine neither see the demo nor disturb it.
    environment = {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)), **os.environ}
    os.execve(sys.executable, [*s4net, *map(str, live), *options], environment)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
