"""Weights files: safetensors with a description in the header, written atomically, refused when anything is wrong."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors

from s4net_core.classes import ClassList
from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError
from s4net_core.files import creation_time, open_regular, parse_json, read_file, write_result
from s4net_core.labels import LABEL_SPACES, LabelSpace
from s4net_core.models.build import SegmentationNetwork, build_network

log = logging.getLogger(__name__)

_KEY = "s4net"
"""Name of our entry in the header's metadata."""
_REMEDY = "use a weights file that `s4net pretrain` or `s4net adapt` has written"
_MUST_MATCH = ("architecture", "encoder", "auxiliary", "depth_decoder")
"""Settings on which the tensors depend; `auxiliary` is stored as ``always`` or ``never``."""
MAX_BYTES = 8 << 30
"""Largest weights file that is read when nothing else bounds it."""
_MAX_HEADER = 100_000_000
"""Largest header that safetensors allows, bytes."""


class CheckpointInfo(BaseModel):
    """What a weights file says about itself.

    Args:
        model: the network; `encoder_weights` is always ``none``, because the file holds all weights, and `auxiliary`
            says whether it holds those of the auxiliary branch: ``always`` or ``never``.
        version: 0 = base model, then one more with each hand-over.
        parent: SHA-256 of the file from which these weights were learned; empty = none.
        metrics: measured values by name, e.g. ``source_miou``; those that are not finite were not measured, and are
            left out.
        created: UTC, ISO 8601 (`files.creation_time`).
        step: learner steps since the base model.
        config: of a network that settings alone do not describe, see `SegmentationNetwork.body_config`.
        classes: names, colours and synonyms of the classes; None = `model.label_space` is built in.
        content_sha256: over the tensors and every other entry of this description.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelSettings
    version: int = Field(default=0, ge=0)
    parent: str = ""
    metrics: dict[str, float] = {}
    created: str = Field(default_factory=creation_time)
    step: int = Field(default=0, ge=0)
    config: dict[str, Any] = {}
    classes: ClassList | None = None
    content_sha256: str = ""

    @property
    def label_space(self) -> LabelSpace:
        """Meaning of the network's class ids."""
        return self.classes.space() if self.classes else LABEL_SPACES[self.model.label_space]

    @field_validator("model")
    @classmethod
    def _sized(cls, model: ModelSettings) -> ModelSettings:
        return model.sized()

    @field_validator("metrics")
    @classmethod
    def _measured(cls, metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if math.isfinite(value)}  # JSON knows no NaN


def save_checkpoint(
    path: str | Path, network: SegmentationNetwork, info: CheckpointInfo | None = None, *, half: bool = False
) -> str:
    """Write the weights; a reader sees the old file or the new one, never a part.

    Args:
        path: file to (over)write; missing folders are made.
        network: its tensors are written.
        info: description; `model`, `config`, `classes` and `content_sha256` are filled in from the network.
        half: store float16, half the size; a tensor with values beyond float16 stays float32.

    Returns:
        SHA-256 of the file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    space = network.label_space
    described: dict[str, Any] = {
        "model": _resolved(network.settings).model_copy(update={"encoder_weights": "none"}),
        "config": network.body_config,
        "classes": None if space.name in LABEL_SPACES else ClassList.of(space),
    }
    info = info.model_copy(update=described) if info else CheckpointInfo(**described)
    tensors = {key: _stored(value, half) for key, value in network.state_dict().items()}
    description = info.model_dump(mode="json", exclude_none=True)
    description["content_sha256"] = _content_sha256(tensors, description)
    data = serialise_tensors(tensors, metadata={_KEY: json.dumps(description)})
    write_result(path, data, CheckpointError)
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(
    path: str | Path,
    *,
    expect: CheckpointInfo | None = None,
    sha256: str | None = None,
    device: str | torch.device = "cpu",
    max_bytes: int = MAX_BYTES,
) -> tuple[SegmentationNetwork, CheckpointInfo]:
    """The network that a file describes, with the file's weights, in evaluation mode.

    Args:
        path: file that `save_checkpoint` wrote.
        expect: refuse another architecture, encoder, other classes or other branches than in this description.
        sha256: refuse a file with another hash; empty or None = any.
        device: device of the network.
        max_bytes: refuse a larger file.

    Raises:
        CheckpointError: missing, truncated, changed, foreign or unexpected file.
    """
    info, tensors = _read(Path(path), sha256, max_bytes)
    if expect is not None:
        _check_model(path, info, expect.model, expect.label_space)
    # Whatever the file says, encoder weights are neither read from a path nor fetched from a hub: the file has them.
    model = info.model.model_copy(update={"encoder_weights": "none"})
    network = build_network(model, info.config, info.label_space)
    _fill(path, network, tensors)
    return network.to(device).eval(), info


def load_weights(network: SegmentationNetwork, path: str | Path, sha256: str | None = None) -> CheckpointInfo:
    """Replace the weights of a network of the same kind; a file that is refused leaves it untouched.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    info, tensors = _read(Path(path), sha256, largest_file(network))
    _check_model(path, info, network.settings, network.label_space)
    _fill(path, network, tensors)
    return info


def largest_file(network: SegmentationNetwork) -> int:
    """Bytes that a weights file of this network may have at most: all tensors as float32, or wider, and a header."""
    tensors: list[torch.Tensor] = list(network.state_dict().values())
    return sum(max(value.element_size(), 4) * value.numel() for value in tensors) + _MAX_HEADER // 10


def read_info(path: str | Path) -> CheckpointInfo:
    """The description alone, from the header; the tensors are not read and not checked.

    Raises:
        CheckpointError: missing file, or one without our header.
    """
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length < min(os.fstat(file.fileno()).st_size, _MAX_HEADER) else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    return _validated(path, _parse_description(path, header))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as `save_checkpoint` returns it.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path, sha256: str | None, max_bytes: int) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
    """Read once, so that what was hashed is what is used; safetensors holds no code that could run."""
    try:
        data = read_file(path, max_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256.lower():
        raise CheckpointError(
            f"weights file {path} has SHA-256 {found[:12]}... but {sha256[:12]}... is expected: it was changed or "
            "replaced after it was written. The next version gets a file of its own; if this happens again, check the "
            "disk, and what else writes there"
        )
    try:
        tensors = parse_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no weights file of s4net, or is cut off ({len(data)} bytes, {error}): {_REMEDY}"
        ) from error
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    description = _parse_description(path, header)
    info = _validated(path, description)
    if _content_sha256(tensors, description) != info.content_sha256:
        raise CheckpointError(f"weights file {path} is damaged (its content does not fit its own hash): {_REMEDY}")
    return info, tensors


def _parse_description(path: str | Path, header: bytes) -> Any:
    try:
        return parse_json(parse_json(header)["__metadata__"][_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} was not written by s4net (no '{_KEY}' entry in its header): {_REMEDY}"
        ) from error


def _validated(path: str | Path, description: Any) -> CheckpointInfo:
    try:
        info = CheckpointInfo.model_validate(description)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CheckpointError(
            f"weights file {path} has an unknown description ({'.'.join(map(str, problem['loc']))}: {problem['msg']}): "
            "it may come from a newer s4net; update this one"
        ) from error
    name, own = info.model.label_space, info.classes
    if (own is None and name not in LABEL_SPACES) or (own is not None and own.name != name):
        described = f"those of '{own.name}'" if own else "not described"
        raise CheckpointError(
            f"weights file {path} has the classes '{name}', but they are {described}: it may come from a newer s4net; "
            "update this one"
        )
    return info


def _resolved(model: ModelSettings) -> ModelSettings:
    return model.model_copy(update={"auxiliary": "always" if model.has_auxiliary else "never"})


def _check_model(path: str | Path, info: CheckpointInfo, expected: ModelSettings, space: LabelSpace) -> None:
    for name in _MUST_MATCH:
        is_, wanted = getattr(_resolved(info.model), name), getattr(_resolved(expected), name)
        if is_ != wanted:
            raise CheckpointError(
                f"weights file {path} has {name} '{is_}' but '{wanted}' is in use: give weights of the same network"
            )
    common_space({"the network in use": space, f"weights file {path}": info.label_space})


def warn_of_other_network(path: str | Path, found: ModelSettings, asked: ModelSettings) -> None:
    """Log where the settings name another network than a weights file that is used: the file decides."""
    default = ModelSettings()
    for name in ("architecture", "encoder"):
        has, wanted = getattr(found, name), getattr(asked, name)
        if wanted not in (has, getattr(default, name)):
            _warn_once(f"weights file {path} has {name} '{has}': model.{name} '{wanted}' is not used")


@cache
def _warn_once(text: str) -> None:
    """An experiment opens the same file many times."""
    log.warning("%s", text)


def common_space(spaces: Mapping[str, LabelSpace]) -> LabelSpace:
    """The classes of several networks.

    Args:
        spaces: the classes of each, at least one, by what errors call it.

    Raises:
        CheckpointError: they differ; the message names the first that does, and both classes.
    """
    (first, expected), *others = spaces.items()
    for what, found in others:
        if (found.name, found.names, found.no_class) != (expected.name, expected.names, expected.no_class):
            raise CheckpointError(
                f"{what} has the classes {found} but {first} has {expected}: use weights of the same classes"
            )
    return expected


def _fill(path: str | Path, network: SegmentationNetwork, tensors: Mapping[str, torch.Tensor]) -> None:
    """All or nothing: everything is checked before the first tensor is copied."""
    state = network.state_dict()
    differing = sorted(state.keys() ^ tensors.keys())
    differing += [key for key in state.keys() & tensors.keys() if state[key].shape != tensors[key].shape]
    if differing:
        raise CheckpointError(
            f"weights file {path} does not fit {network.settings.architecture} on {network.settings.encoder}: "
            f"{len(differing)} tensors differ, first '{differing[0]}'; {_REMEDY} with this version of the libraries"
        )
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"weights file {path} has values that are not finite, first in '{broken[0]}': {_REMEDY}")
    network.load_state_dict(dict(tensors))


def _stored(value: torch.Tensor, half: bool) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    if half and value.is_floating_point() and value.abs().amax() <= torch.finfo(torch.float16).max:
        return value.half()
    return value


def _content_sha256(tensors: Mapping[str, torch.Tensor], description: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description | {"content_sha256": ""}, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unreadable(path: str | Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"weights file {path} cannot be read ({error.strerror or error}): check the path")
