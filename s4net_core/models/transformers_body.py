"""Segmentation networks of the library transformers, whose classes lead to those of a label space."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from s4net_core.classes import named_space
from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError, S4NetError, SettingsError, first_line
from s4net_core.labels import ADE20K_NAMES, ADE20K_TO_SUNRGBD37, SUNRGBD37, UNLABELLED, LabelSpace, means_no_class

log = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")

STRIDE = 32
"""Images are padded to a multiple of this many pixels, the stride of the deepest feature map of most networks."""
SMALLEST_SUM = 1e-37
"""Lower bound of the sum over a class's members, relative to the most probable class: keeps its logarithm finite."""
NO_NORMALISATION = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_NEEDED = ("wall", "floor")
"""Classes without which a network was not trained on rooms."""
_NUMBERED = re.compile(r"(LABEL_)?\d+")
"""Name of a class that its network does not name."""
_FOR_EXAMPLE = "nvidia/segformer-b0-finetuned-ade-512-512"


class TransformersBody(nn.Module):
    """A network of transformers, and how its classes lead to those of a label space.

    The probability of a class is the sum of those of its members, as if the library's other classes did not exist. A
    class without members is as improbable as the least probable one. A linear layer that starts at zero is added, so
    that training can correct this, and learn the classes without members as well.

    A network that has a backbone and a head of its own (UPerNet) is divided: its head may learn alone.

    Args:
        model: gives ``logits`` (B, N, h, w) for normalised images, of any size.
        ids: class id of each of its N classes, 0 = none.
        num_classes: C.
    """

    output_stride = STRIDE
    members: Tensor

    def __init__(self, model: nn.Module, ids: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.model = model
        self._head_stride = _head_stride(model)
        self.register_buffer("members", _membership(ids, num_classes))
        self.correction = nn.Conv2d(len(ids), num_classes, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(torch.as_tensor(self.correction.bias))

    @property
    def divided(self) -> bool:
        """Whether it has an encoder of its own."""
        return self._head_stride > 0

    @property
    def encoder(self) -> "TransformersBody | _Backbone":
        """Normalised images (B, 3, H, W) -> feature maps, finest first; the whole network where it is not divided."""
        return _Backbone(cast(nn.Module, self.model.backbone)) if self.divided else self

    @property
    def config(self) -> dict[str, Any]:
        """The library's description of the model, plain JSON."""
        config: dict[str, Any] = json.loads(self.model.config.to_json_string(use_diff=False))  # type: ignore[operator, union-attr]
        config.pop("_name_or_path", None)  # a path of the machine on which it was imported
        return config

    @property
    def without_members(self) -> list[int]:
        """Ids of the classes that the library's model does not have."""
        return [index + 1 for index, any_ in enumerate(self.members.any(dim=1).tolist()) if not any_]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, C, H, W), scaled bilinearly."""
        if self.divided:
            return self.segmentation_head(self.decoder(self.encoder(images)))
        return F.interpolate(
            self._classes(self.model(pixel_values=images).logits),
            size=images.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )

    def decoder(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps of `encoder` -> logits (B, N, h, w) of the library's classes; only where it is divided."""
        logits: Tensor = self.model.decode_head(features)  # type: ignore[operator]
        return logits

    def segmentation_head(self, logits: Tensor) -> Tensor:
        """What `decoder` gives -> logits (B, C, H, W)."""
        return F.interpolate(
            self._classes(logits), scale_factor=self._head_stride, mode="bilinear", align_corners=False
        )

    def _classes(self, logits: Tensor) -> Tensor:
        """(B, N, h, w) -> (B, C, h, w)."""
        with torch.autocast(logits.device.type, enabled=False):
            merged: Tensor = self._merge(logits.float()) + self.correction(logits.float())
        return merged

    def _merge(self, logits: Tensor) -> Tensor:
        """Log Σ exp over the members of each class."""
        mapped = self.members.any(dim=0).view(1, -1, 1, 1)
        highest = logits.masked_fill(~mapped, -torch.inf).amax(dim=1, keepdim=True).detach()
        shares = torch.where(mapped, logits - highest, -torch.inf).exp()
        sums = F.conv2d(shares, self.members[:, :, None, None])
        merged = sums.clamp(min=SMALLEST_SUM).log() + highest
        present = self.members.any(dim=1).view(1, -1, 1, 1)
        lowest = merged.masked_fill(~present, torch.inf).amin(dim=1, keepdim=True).detach()
        return torch.where(present, merged, lowest)


class _Backbone(nn.Module):
    """Encoder of a divided network; made for a moment, so that its weights have one name."""

    output_stride = STRIDE

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) -> feature maps, finest first."""
        return list(self.model(images).feature_maps)


@torch.no_grad()
def _head_stride(model: nn.Module) -> int:
    """By how much the head's logits are smaller than the image; 0 = the network has no backbone and head."""
    if not isinstance(getattr(model, "backbone", None), nn.Module) or not hasattr(model, "decode_head"):
        return 0
    side, training = 2 * STRIDE, model.training
    finest = model.eval().backbone(torch.zeros(1, 3, side, side)).feature_maps[0]  # type: ignore[operator]
    model.train(training)
    return side // int(finest.shape[-1])


def fetch_body(
    model: ModelSettings, label_space: LabelSpace | None
) -> tuple[TransformersBody, tuple[float, ...], tuple[float, ...], LabelSpace]:
    """A network of the hub, or of a folder that transformers wrote.

    Args:
        model: `encoder` is the network's name on huggingface.co, or the folder; with `encoder_weights` ``none`` its
            weights are random.
        label_space: the classes that it shall have; None = its own.

    Returns:
        The network, mean and standard deviation of RGB in 0..1, and its classes.

    Raises:
        CheckpointError: it cannot be fetched, or is no complete semantic segmentation network.
        SettingsError: its classes are not those that it shall have, or it cannot label images of the working size.
        S4NetError: transformers is not installed.
    """
    name, transformers = model.encoder, _transformers()
    auto = transformers.AutoModelForSemanticSegmentation
    if model.encoder_weights == "none":
        config = _fetch(name, lambda **how: transformers.AutoConfig.from_pretrained(name, **how))
        network = auto.from_config(config)
    else:
        network, report = _fetch(name, lambda **how: auto.from_pretrained(name, output_loading_info=True, **how))
        _check_complete(name, report)
    label_space = label_space or native_space(name, _names(network))
    body = _new_body(network, label_space)
    _try_size(body, model)
    return body, *_normalisation(name, transformers), label_space


def rebuild_body(model: ModelSettings, config: Mapping[str, Any], label_space: LabelSpace) -> TransformersBody:
    """The network that `TransformersBody.config` describes, with random weights; needs no hub.

    Raises:
        CheckpointError: this version of transformers does not know it.
        S4NetError: transformers is not installed.
    """
    transformers = _transformers()
    try:
        described = transformers.AutoConfig.for_model(**config)
        return _new_body(transformers.AutoModelForSemanticSegmentation.from_config(described), label_space)
    except SettingsError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot build {model.encoder} "
            f"({config.get('model_type', 'no model_type')}: {first_line(error)}): "
            f"install version {config.get('transformers_version', 'of the one who wrote it')} or newer"
        ) from error


def class_ids(names: Sequence[str], label_space: LabelSpace = SUNRGBD37) -> list[int]:
    """Id of each class of a network: by name, or by order where there are only numbers.

    Args:
        names: of the network's outputs.
        label_space: gives the ids.

    Returns:
        Ids, 0 = no counterpart.

    Raises:
        SettingsError: the two have no class in common, or, in SUN RGB-D 37, no wall or no floor.
    """
    if label_space is not SUNRGBD37:
        return _own_ids(names, label_space)
    known = dict(zip(ADE20K_NAMES, ADE20K_TO_SUNRGBD37, strict=True))
    known |= {name.replace("_", " "): id for id, name in enumerate(SUNRGBD37.names, start=1)}
    ids = [known.get(name.strip().lower().replace("_", " "), UNLABELLED) for name in names]
    if not any(ids) and len(names) == len(ADE20K_NAMES):
        ids = list(ADE20K_TO_SUNRGBD37)
    if not {SUNRGBD37.names.index(name) + 1 for name in _NEEDED} <= set(ids):
        raise SettingsError(
            f"a network with {_listed(names)} was not trained on rooms: use one for ADE20K, e.g. {_FOR_EXAMPLE}, or "
            "with the class names of sunrgbd37, or say which classes you want (--classes native, or a file of classes)"
        )
    return ids


def native_space(name: str, names: Sequence[str]) -> LabelSpace:
    """The classes of a network itself; those named background, other and the like mean no class.

    Args:
        name: of the network.
        names: of its outputs.

    Raises:
        SettingsError: the names are only numbers, two are equal, or there are too many.
    """
    if all(_NUMBERED.fullmatch(own) for own in names):
        if len(names) != len(ADE20K_NAMES):
            raise SettingsError(f"{name} has {_listed(names)}, without names: give a file of classes in their order")
        names = ADE20K_NAMES
    own = named_space(name.rstrip("/").rpartition("/")[2], names)
    no_class = frozenset(id for id, known in enumerate(own.names, start=1) if means_no_class(known))
    return replace(own, no_class=no_class)


def _own_ids(names: Sequence[str], label_space: LabelSpace) -> list[int]:
    if all(_NUMBERED.fullmatch(name) for name in names) and len(names) == label_space.num_classes:
        return list(range(1, len(names) + 1))
    if tuple(names) == label_space.names:
        return list(range(1, len(names) + 1))
    ids = [label_space.id_of(name) or UNLABELLED for name in names]
    if not any(ids):
        raise SettingsError(
            f"a network with {_listed(names)} knows none of the classes {label_space}: add its names as synonyms, or "
            "use another network"
        )
    return ids


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"


def _membership(ids: Sequence[int], num_classes: int) -> Tensor:
    """(C, N) float32: 1 where one of the N classes leads to class id c + 1."""
    members = torch.zeros(num_classes, len(ids))
    for index, id in enumerate(ids):
        if id != UNLABELLED:
            members[id - 1, index] = 1.0
    return members


def _new_body(network: Any, label_space: LabelSpace) -> TransformersBody:
    ids = class_ids(_names(network), label_space)
    return TransformersBody(network.float(), ids, label_space.num_classes)


def _names(network: Any) -> list[str]:
    return [str(network.config.id2label[index]) for index in range(network.config.num_labels)]


def _fetch(name: str, load: Callable[..., Loaded]) -> Loaded:
    """What was fetched from the hub before, else from the hub."""
    try:
        try:
            return load(local_files_only=True)
        except OSError:
            return load()
    except Exception as error:
        what = "folder" if Path(name).exists() else "network"
        raise CheckpointError(
            f"{what} {name} cannot be loaded by transformers ({first_line(error)}): name a semantic segmentation "
            f"network of huggingface.co, e.g. {_FOR_EXAMPLE}, and connect to it once, or run `hf download {name} "
            "--local-dir FOLDER` on a machine that can, and name the folder"
        ) from error


def _check_complete(name: str, report: Mapping[str, Any]) -> None:
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise CheckpointError(
            f"{name} is no complete segmentation network: it has no weights for {len(missing)} tensors, first "
            f"'{missing[0]}': use one that was finetuned for segmentation, e.g. {_FOR_EXAMPLE}"
        )


def _try_size(body: TransformersBody, model: ModelSettings) -> None:
    size = [-(-side // STRIDE) * STRIDE for side in (model.height, model.width)]
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, *size))
    except Exception as error:
        raise SettingsError(
            f"{model.encoder} cannot label images of {size[1]}x{size[0]} ({first_line(error)}): set model.width and "
            "model.height to the size that it was trained for"
        ) from error


def _normalisation(name: str, transformers: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in 0..1, as the network's image processor has them."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        log.warning("%s does not say how images are normalised (%s): as ImageNet's", name, first_line(error))
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if getattr(processor, "do_flip_channel_order", False):
        raise SettingsError(f"{name} takes blue, green, red, which is not supported: use e.g. {_FOR_EXAMPLE}")
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = NO_NORMALISATION
    if processor.do_normalize:
        mean, std = processor.image_mean, processor.image_std
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise S4NetError(f"this network needs the library transformers ({error}): pip install transformers") from error
    return transformers
