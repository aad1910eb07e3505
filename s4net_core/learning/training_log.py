"""Curves of a training run as TensorBoard draws them."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from s4net_core.errors import S4NetError


class TrainingLog:
    """Writes numbers over steps, if a folder is given.

    Args:
        folder: for TensorBoard's event files; None = nothing is written.
        first_step: steps already done by the run that is resumed; its entries for later steps are hidden.

    Raises:
        S4NetError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None, first_step: int = 0) -> None:
        self._writer: Any = None if folder is None else _writer(folder, first_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve in `values`; ``loss/source`` is the curve "source" in the group "loss"."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _writer(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise S4NetError(
            f"TensorBoard is not installed ({error}), which --log needs: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)
