"""Random changes of labelled images: other lenses, light and cameras, by torchvision; the same for the same seed."""

import math

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from s4net_core.config import PretrainSettings
from s4net_core.io.images.codec import decode_compressed_color, encode_compressed_color
from s4net_core.io.source_sets.source_set import LabelledImage

GAIN, GAMMA, BLUR, SHARPNESS, NOISE, LOWEST_QUALITY = 0.2, 0.4, 1.5, 2.0, 0.04, 30
"""How far `pretrain.camera_jitter` = 1 goes: gain of a colour channel, exponent of the exposure, σ of the blur in
pixels, sharpening, σ of the noise as a share of white, and quality of JPEG."""


class Augmentation:
    """Brings an image to the size for training, and changes it at random on the way.

    Args:
        settings: `max_zoom`, `color_jitter`, `hue_jitter` and `camera_jitter`, and the size of the result.
        width, height: the network's size, which holds where they give none, pixels.
        mirror: mirror half of the images.
    """

    def __init__(self, settings: PretrainSettings, width: int, height: int, *, mirror: bool) -> None:
        self._width = settings.width or width
        self._height = settings.height or height
        self._max_zoom = settings.max_zoom
        strength = settings.color_jitter
        self._mirror = v2.RandomHorizontalFlip(0.5 if mirror else 0.0)
        self._recolour = v2.ColorJitter(strength, strength, strength, settings.hue_jitter)
        self._camera_jitter = settings.camera_jitter

    def __call__(self, image: LabelledImage, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """One image as training sees it; torch's global random state is not changed.

        Args:
            image: any size.
            seed: determines every random choice.

        Returns:
            (3, H, W) uint8 RGB, (H, W) uint8 class ids, and (1, H, W) float32 depth in metres, 0 = none.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            color, label, depth = self._zoom(image)
            color, label, depth = self._mirror(color, label, depth)
            color = self._recolour(color)
            if self._camera_jitter:
                color = _as_by_another_camera(color, self._camera_jitter)
        return _plain(color), _plain(label[0]), _plain(depth)

    def _zoom(self, image: LabelledImage) -> tuple[tv_tensors.Image, tv_tensors.Mask, tv_tensors.Mask]:
        """A random part of the image, of its own shape, at the size for training.

        What looks `zoom` times larger through the same lens is `zoom` times nearer: depth is divided by it.
        """
        if self._max_zoom == 1:
            return _as_tensors(image.resized(self._width, self._height))
        color, label, depth = _as_tensors(image)
        height, width = color.shape[-2:]
        shape = [width / height] * 2
        top, left, rows, columns = v2.RandomResizedCrop.get_params(color, [self._max_zoom**-2, 1.0], shape)
        zoom = math.sqrt(height * width / (rows * columns))
        color, label, depth = (
            F.resized_crop(part, top, left, rows, columns, [self._height, self._width], antialias=True)
            for part in (color, label, depth)
        )
        return color, label, tv_tensors.Mask(depth / zoom)


def _as_by_another_camera(color: Tensor, strength: float) -> Tensor:
    """A (3, H, W) uint8 image with other white balance and exposure, and as soft, sharp, noisy or packed as videos are.

    The order is that of a camera: light, lens, sensor, file.
    """
    gains = 1 + GAIN * strength * _between(-1, 1, 3, 1, 1)
    gamma = math.exp(GAMMA * strength * float(_between(-1, 1)))
    image = (color.float() / 255 * gains).clamp(0, 1) ** gamma
    focus = float(torch.rand(()))
    if focus < 0.5:
        image = F.gaussian_blur(image, [7, 7], [float(_between(0.1, max(BLUR * strength, 0.1)))])
    elif focus < 0.7:
        image = F.adjust_sharpness(image, 1 + SHARPNESS * strength * float(torch.rand(())))
    if torch.rand(()) < 0.5:
        image = F.gaussian_noise(image, sigma=NOISE * strength * float(torch.rand(())))
    bytes = (image * 255).round().to(torch.uint8)
    if torch.rand(()) < 0.5:
        bytes = _as_jpeg(bytes, int(_between(100 - (100 - LOWEST_QUALITY) * strength, 100)))
    return bytes


def _as_jpeg(image: Tensor, quality: int) -> Tensor:
    """A (3, H, W) uint8 image, packed and unpacked; torchvision's own function warns that it will be gone."""
    packed = encode_compressed_color(image.permute(1, 2, 0).numpy(), quality)
    return torch.tensor(decode_compressed_color(*packed)).permute(2, 0, 1)


def _between(low: float, high: float, *shape: int) -> Tensor:
    """Uniform random numbers."""
    return low + (high - low) * torch.rand(shape)


def _plain(part: Tensor) -> Tensor:
    return part.as_subclass(Tensor).contiguous()


def _as_tensors(image: LabelledImage) -> tuple[tv_tensors.Image, tv_tensors.Mask, tv_tensors.Mask]:
    """The image in torchvision's types, so that scaling interpolates colours but neither labels nor depth."""
    label = torch.tensor(image.label)[None]  # copies: decoded images may be read-only
    depth = torch.zeros(label.shape) if image.depth is None else torch.tensor(image.depth)[None]
    color = torch.tensor(image.color).permute(2, 0, 1).contiguous()
    return tv_tensors.Image(color), tv_tensors.Mask(label), tv_tensors.Mask(depth)
