"""What the base model decides: which branches can be adapted, and whether the source set is read with depth."""

from pathlib import Path

from s4net_core.config import ModelSettings, Settings
from s4net_core.errors import CheckpointError
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.models.checkpoint import read_info


def check_branches(checkpoint: str | Path, found: ModelSettings, settings: Settings) -> None:
    """Refuse a base model that lacks a branch which the settings ask for.

    Raises:
        CheckpointError: the branch is missing; the message names the setting and the remedy.
    """
    reasons = {
        "geometry.depth is 'predicted'": not settings.geometry.from_sensor,
        "model.depth_decoder is true": settings.model.depth_decoder,
    }
    asked = [reason for reason, holds in reasons.items() if holds]
    if asked and not found.depth_decoder:
        raise CheckpointError(
            f"weights file {checkpoint} has no depth decoder but {asked[0]}: train one with "
            "`s4net pretrain --set model.depth_decoder=true`, or set geometry.depth to sensor and "
            "model.depth_decoder to false"
        )
    if settings.model.auxiliary == "always" and not found.has_auxiliary:
        raise CheckpointError(
            f"weights file {checkpoint} has no auxiliary branch but model.auxiliary is 'always': train one with "
            "`s4net pretrain --set model.auxiliary=always`, or set it to auto"
        )


def open_source(settings: Settings) -> SourceSet | None:
    """Open the source set in the settings, with the classes of the base model, and with depth if that predicts it.

    Returns:
        None if `source.path` is empty.

    Raises:
        SourceSetError: the source set cannot be opened.
        CheckpointError: the base model cannot be read.
    """
    if not settings.source.path:
        return None
    info = read_info(settings.checkpoint)
    return open_source_set(settings.source.path, with_depth=info.model.depth_decoder, label_space=info.label_space)
