"""What concerns the whole process: what settings ask of it, and its memory."""

import ctypes
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.io.images.pixels import limit_pixels


def prepare_process(settings: Settings) -> None:
    """Limit the pixels of an image (`max_megapixels`), and PyTorch's threads if there is a number (`threads`)."""
    limit_pixels(settings.max_megapixels)
    if settings.threads:
        import torch  # late: commands that need no network must not wait for it

        torch.set_num_threads(settings.threads)


def return_free_memory() -> None:
    """Give free memory that lies between what is in use back to the system; takes less than 0.1 s for 0.5 GB.

    The C library of GNU gives back the end of a heap by itself, but no gaps. Learning leaves many of them, because what
    is kept lies between large tensors that are gone. Other C libraries have no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def running_and_ready() -> tuple[float, float]:
    """Seconds that this thread has run, and seconds that it was ready while others had the cores, since it began.

    (0, 0) where the system does not count them: it is no Linux, or its kernel has no scheduler statistics.
    """
    try:
        run, ready, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(run) / 1e9, int(ready) / 1e9
