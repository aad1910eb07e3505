"""Which settings differ from the defaults."""

from typing import Any

from s4net_core.config import Settings, leaves


def changed_settings(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults, by dotted name."""
    defaults = {leaf.name: leaf.value for leaf in leaves(Settings())}
    return {leaf.name: leaf.value for leaf in leaves(settings) if leaf.value != defaults[leaf.name]}
