"""What settings ask of the whole process."""

from s4net_core.config import Settings
from s4net_core.io.images.pixels import limit_pixels


def prepare_process(settings: Settings) -> None:
    """Limit the pixels of an image (`max_megapixels`), and PyTorch's threads if there is a number (`threads`)."""
    limit_pixels(settings.max_megapixels)
    if settings.threads:
        import torch  # late: commands that need no network must not wait for it

        torch.set_num_threads(settings.threads)
