"""Examines the files and folders that the settings name: weights, source set, state folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.errors import S4NetError
from s4net_core.machine.system import INSTALL_LIBRARIES, Finding, gigabytes


def examine_files(settings: Settings) -> Iterator[Finding]:
    """Findings on everything that the settings name, in the order of the table."""
    for subject, check in (("Weights", _weights), ("Source set", _source_set), ("State folder", _state_folder)):
        try:
            yield from check(settings)
        except ImportError as error:
            yield Finding(subject, f"cannot be examined: {error}", "missing", INSTALL_LIBRARIES)


def _weights(settings: Settings) -> Iterator[Finding]:
    # late: both import torch, which may be missing
    from s4net_core.models.base_model_file import AUTO, DEMO, PUBLIC_MODEL, base_model_file, public_model_file
    from s4net_core.models.checkpoint import read_info

    checkpoint = settings.checkpoint
    if checkpoint == AUTO and not (file := public_model_file()).is_file():
        remedy = f"s4net import-model {PUBLIC_MODEL.network} {file}, or --set checkpoint=FILE"
        yield Finding("Weights", f"checkpoint is {AUTO}, and {file} is not there yet", "note", remedy)
        checkpoint = DEMO
    try:
        path = base_model_file(checkpoint, settings.model)
        info = read_info(path)
    except S4NetError as error:
        yield Finding("Weights", str(error), "missing", "name a file of `s4net pretrain` with --set checkpoint=FILE")
    else:
        model = info.model
        size = f"{model.width}x{model.height}"
        yield Finding("Weights", f"{path}: {model.architecture} on {model.encoder}, {size}, {info.label_space}")


def _base_model(settings: Settings) -> Path:
    """Its file; that of the public model need not be there yet."""
    from s4net_core.models.base_model_file import AUTO, base_model_file, public_model_file

    return public_model_file() if settings.checkpoint == AUTO else base_model_file(settings.checkpoint, settings.model)


def _working_size(settings: Settings) -> tuple[int, int]:
    """Width and height that the source set should have."""
    from s4net_core.models.checkpoint import read_info

    try:
        return settings.model.sized(read_info(_base_model(settings)).model).size
    except S4NetError:
        return settings.model.sized().size


def _source_set(settings: Settings) -> Iterator[Finding]:
    from s4net_core.io.source_sets.opening import has_official_split, open_source_set
    from s4net_core.io.source_sets.packed import PackedSourceSet

    if not settings.source.path:
        remedy = "name one with --set source.path=FOLDER if there is one: the network forgets less with labelled images"
        yield Finding("Source set", "none is set: adaptation learns from the keyframes alone", "note", remedy)
        return
    try:
        source = open_source_set(settings.source.path)
        part = " to train on" if has_official_split(settings.source.path) else ""
    except S4NetError as error:
        remedy = "--set source.path=...: a folder with color/N.jpg and label/N.png, SUN RGB-D, NYU Depth v2 or a pack"
        yield Finding("Source set", str(error), "missing", remedy)
        return
    found = f"{settings.source.path}: {len(source)} labelled images{part}"
    if isinstance(source, PackedSourceSet):
        packed, (width, height) = (source.info.width, source.info.height), _working_size(settings)
        if packed != (width, height):
            found += f", packed at {packed[0]}x{packed[1]} but processed at {width}x{height}"
            remedy = f"pack it again: s4net pack SOURCE OUTPUT --set model.width={width} --set model.height={height}"
            yield Finding("Source set", found, "note", remedy)
            return
    yield Finding("Source set", found)


def _state_folder(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.state_dir or "~/.ros/s4net").expanduser()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    found = f"{folder}, {gigabytes(shutil.disk_usage(existing).free)} free"
    if os.access(existing, os.W_OK):
        yield Finding("State folder", found)
    else:
        yield Finding("State folder", f"{folder} cannot be written", "missing", "--set state_dir=FOLDER")
