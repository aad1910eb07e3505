"""What concerns the whole process: what settings ask of it, and its memory."""

import ctypes
import time
from collections import deque
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.io.images.pixels import limit_pixels

WATCHED_SECONDS = 60.0
"""Of `CoreWatch`."""


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


class CoreWatch:
    """How much of the last minute a thread of this process could have run while others had all cores.

    Args:
        thread_id: native id of the thread.
    """

    def __init__(self, thread_id: int) -> None:
        self._file = Path(f"/proc/self/task/{thread_id}/schedstat")
        self._samples: deque[tuple[float, float]] = deque()
        """When `held_up` was asked, seconds, and how long the thread had waited by then."""

    def held_up(self) -> float:
        """Share of the last minute, 0..1, in which the thread waited for a core; before the first call it did not.

        0 where nothing is known: the thread has ended, the system is no Linux, or its kernel counts nothing.
        """
        try:
            _, waited, _ = self._file.read_text().split()
        except (OSError, ValueError):
            return 0.0
        now, seconds = time.monotonic(), int(waited) / 1e9
        self._samples.append((now, seconds))
        while self._samples[0][0] < now - WATCHED_SECONDS:
            self._samples.popleft()
        return min((seconds - self._samples[0][1]) / WATCHED_SECONDS, 1.0)
