"""The paper's settings, as its experiments have them; the defaults are a robot's."""

from pathlib import Path

import yaml

from s4net_core.config import Settings, from_values

_FILE = Path(__file__).parents[1] / "config" / "experiments" / "base" / "paper.yaml"


def paper_settings() -> Settings:
    """New ones each time, so that a test may change them."""
    return from_values(yaml.safe_load(_FILE.read_text())["settings"])
