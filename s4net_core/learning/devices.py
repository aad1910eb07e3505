"""Devices and precision of pre-training, through Lightning Fabric."""

import logging
from typing import TYPE_CHECKING, Any

import torch

from s4net_core.config import Settings
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.models.predict import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def training_fabric(settings: Settings) -> "Fabric":
    """Start the processes of pre-training, one per device; with several, each runs this program from its start.

    Args:
        settings: `device`, `pretrain.devices` and `pretrain.precision`.

    Returns:
        Fabric, launched.

    Raises:
        S4NetError: Lightning Fabric is not installed.
        SettingsError: the machine has fewer devices, or they cannot train in this precision.
    """
    fabric_library = _import_fabric()
    device, pretrain = pick_device(settings.device), settings.pretrain
    count = pretrain.devices or (torch.cuda.device_count() if device.type == "cuda" else 1)
    fabric: Fabric = fabric_library.Fabric(
        accelerator=device.type,
        devices=_cuda_devices(settings.device, device, count) if device.type == "cuda" else count,
        # Some encoders have unused layers. DDP must be told that they are the same in every step.
        strategy=fabric_library.strategies.DDPStrategy(static_graph=True) if count > 1 else "auto",
        precision=_precision(pretrain.precision, device),
    )
    fabric.launch()
    return fabric


def _import_fabric() -> Any:
    """Imported late: it takes seconds, and only training needs it."""
    try:
        import lightning_fabric
        import lightning_fabric.strategies
    except ImportError as error:
        raise S4NetError(
            f"Lightning Fabric is not installed ({error}), which pre-training needs: pip install lightning-fabric"
        ) from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it advertises other products otherwise
    return lightning_fabric


def _cuda_devices(name: str, device: torch.device, count: int) -> list[int]:
    if device.index is not None and count > 1:
        raise SettingsError(f"device is '{name}' but pretrain.devices is {count}: set device to cuda")
    if count > torch.cuda.device_count():
        raise SettingsError(
            f"pretrain.devices is {count} but this machine has {torch.cuda.device_count()} usable CUDA devices: "
            "lower it, or set it to 0 for all of them"
        )
    return [device.index or 0] if count == 1 else list(range(count))


def _precision(chosen: str, device: torch.device) -> Any:
    """Lightning's name of the precision."""
    if chosen == "auto":
        if device.type != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if chosen == "16-mixed" and device.type == "cpu":
        raise SettingsError("pretrain.precision is 16-mixed, which a CPU does not have: set it to bf16-mixed or auto")
    return chosen
