"""S4-Net without ROS: the same code offline and on a robot. `s4net_core.api` says what the five names do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s4net_core.api import adapt, evaluate, load_model, save_model, segment

__version__ = "0.1.0"
__all__ = ["adapt", "evaluate", "load_model", "save_model", "segment"]


def __getattr__(name: str) -> Any:
    """Import `s4net_core.api` when one of its names is first used, so that `s4net doctor` does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module s4net_core has no attribute '{name}'")
    from s4net_core import api

    return getattr(api, name)
