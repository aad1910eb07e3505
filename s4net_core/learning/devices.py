"""The devices that train together, and their precision, through Lightning Fabric."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from s4net_core.config import Settings
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.models.predict import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class Processes:
    """Processes that learn together, one a device; without Fabric it is this one alone, and nothing is sent.

    They make the same calls in the same order: each waits in `sum`, `share`, `sum_gradients` and `once` for the others.

    Args:
        fabric: launched; None = one process, which needs no Lightning.
    """

    def __init__(self, fabric: "Fabric | None" = None) -> None:
        self._fabric = fabric
        self.rank: int = 0 if fabric is None else fabric.global_rank
        self.count: int = 1 if fabric is None else fabric.world_size
        self.device: torch.device | None = None if fabric is None else fabric.device
        """That of this process; None = whatever the settings say."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def part(self, items: list[T]) -> list[T]:
        """What is for this process of what all of them have.

        Where there is not one for each, all take everything: then each counts equally, and the means are the same.
        """
        return items[self.rank :: self.count] if len(items) >= self.count else items

    def sum(self, values: Tensor) -> Tensor:
        """Over the processes; `values` stay as they are."""
        if self._fabric is None:
            return values
        total = self._fabric.all_reduce(values.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def share(self, weight: Tensor) -> Tensor:
        """By how much the mean of this process's pixels counts in that of all, from the weight of its pixels."""
        return weight / self.sum(weight).clamp(min=torch.finfo(weight.dtype).tiny)

    def sum_gradients(self, network: nn.Module) -> None:
        """Replace the gradients by their sum over the processes."""
        if self._fabric is None:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))  # each sum waits for all processes
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def once(self, action: Callable[[], T]) -> T:
        """What `action` gives, or raises, in the first process, for all of them: they go on alike."""
        if self._fabric is None:
            return action()
        self._fabric.barrier()  # what the others still read is not overwritten
        outcome: T | Exception | None = None
        if self.first:
            try:
                outcome = action()
            except Exception as error:  # raised below, in every process
                outcome = error
        outcome = self._fabric.broadcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def training_fabric(settings: Settings) -> "Fabric":
    """The processes of a pre-training, one a device; where there are several, each runs this program from its start.

    Args:
        settings: `device`, `pretrain.devices` and `pretrain.precision`.

    Returns:
        Fabric, launched.

    Raises:
        S4NetError: Lightning Fabric is not installed.
        SettingsError: there are not so many devices, or they cannot train in this precision.
    """
    return _launched(settings, "pretrain.devices", settings.pretrain.devices, settings.pretrain.precision)


def adaptation_processes(settings: Settings) -> Processes:
    """The processes of an adaptation, as `training_fabric`; one needs no Lightning.

    Tested with several processes on a CPU (gloo), never on GPUs.

    Args:
        settings: `device`, `adaptation.devices`, and `learner.batch_norm`.

    Raises:
        S4NetError: Lightning Fabric is not installed.
        SettingsError: there are not so many devices, or batch norm is live on several.
    """
    if settings.adaptation.devices == 1:
        return Processes()
    if settings.learner.batch_norm == "live":
        raise SettingsError(
            f"adaptation.devices is {settings.adaptation.devices} but learner.batch_norm is 'live', and each device "
            "would take the statistics of its own images: set learner.batch_norm to frozen"
        )
    # The learner has its own mixed precision (learner.amp).
    processes = Processes(_launched(settings, "adaptation.devices", settings.adaptation.devices, "32-true"))
    if not processes.first:
        logging.getLogger("s4net_core").setLevel(logging.ERROR)  # the first one warns of the same things
    return processes


def _launched(settings: Settings, name: str, count: int, precision: str) -> "Fabric":
    """One process a device; `name` is the setting that asks for `count` of them, 0 = all GPUs."""
    fabric_library = _import_fabric()
    device = pick_device(settings.device)
    count = count or (torch.cuda.device_count() if device.type == "cuda" else 1)
    devices: int | list[int] = count
    if device.type == "cuda":
        devices = _cuda_devices(settings.device, device, name, count)
    fabric: Fabric = fabric_library.Fabric(
        accelerator=device.type,
        devices=devices,
        # Some encoders have layers of no use. They are the same in every step, which DDP has to be told.
        strategy=fabric_library.strategies.DDPStrategy(static_graph=True) if count > 1 else "auto",
        precision=_precision(precision, device),
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
            f"Lightning Fabric is not installed ({error}), which pre-training and several devices need: "
            "pip install lightning-fabric"
        ) from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets with its advertisements otherwise
    return lightning_fabric


def _cuda_devices(name: str, device: torch.device, setting: str, count: int) -> list[int]:
    if device.index is not None and count > 1:
        raise SettingsError(f"device is '{name}' but {setting} is {count}: set device to cuda")
    if count > torch.cuda.device_count():
        raise SettingsError(
            f"{setting} is {count} but this machine has {torch.cuda.device_count()} usable CUDA devices: "
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
