"""The common case in five calls: `load_model`, `segment`, `adapt`, `evaluate` and `save_model`.

They are imported from the package itself: ``from s4net_core import load_model``. Settings (`s4net settings` lists them)
are given as a `Settings`, by keyword, or both; a group of them is a dictionary:
``load_model("base.safetensors", device="cpu", model={"width": 320})``.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import Settings, with_values
from s4net_core.errors import S4NetError, SettingsError
from s4net_core.evaluation.evaluate import Evaluation
from s4net_core.evaluation.evaluate import evaluate as evaluate_frames
from s4net_core.frames import Capture, FrameSequence, View
from s4net_core.io.captures.opening import open_views
from s4net_core.io.images.files import read_color
from s4net_core.io.source_sets.opening import open_source_set
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.offline import adapt_to, open_session
from s4net_core.learning.session import Session
from s4net_core.learning.status import Handover
from s4net_core.models.segmenter import Segmentation, Segmenter


def load_model(checkpoint: str | Path, settings: Settings | None = None, **values: Any) -> Segmenter:
    """A network that is ready to label images.

    Args:
        checkpoint: weights file of `s4net pretrain`, `adapt` or `import-model`.
        settings: None = the defaults. Where they give no image size, the size in the weights file is used.
        values: single settings; they win over `settings`.

    Raises:
        CheckpointError: the file is refused.
        SettingsError: a setting is unknown, or its value is not allowed.
    """
    if not isinstance(settings, Settings | None):
        raise SettingsError(f"settings is a {type(settings).__name__}: give values by keyword, e.g. device='cpu'")
    chosen = with_values(settings or Settings(), values)
    return Segmenter(checkpoint, chosen.device, chosen)


def segment(model: Segmenter, image: str | Path | NDArray[np.uint8]) -> Segmentation:
    """Label one image.

    Args:
        model: from `load_model` or `adapt`.
        image: JPEG or PNG file, or (H, W, 3) uint8 RGB; any size.

    Returns:
        Class ids (H, W) uint8 with their probability; names and colours are in `model.info.label_space`.

    Raises:
        BadFrame: the file cannot be read, or the array has another shape or dtype.
        S4NetError: `model` or `image` is something else.
    """
    _check_model(model)
    _check_kind("image", image, str | Path | np.ndarray, "give a path, or (H, W, 3) uint8 RGB")
    return model.segment(image if isinstance(image, np.ndarray) else read_color(Path(image)))


def adapt(
    model: Segmenter,
    capture: str | Path | Iterable[View],
    source: str | Path | SourceSet | None = None,
    *,
    state_dir: str | Path | None = None,
    on_handover: Callable[[Handover], None] = lambda handover: None,
    **values: Any,
) -> Segmenter:
    """Learn from a capture without labels, as `s4net adapt` does; `model` itself is not changed.

    Args:
        model: the base model.
        capture: path of any format that `s4net convert` reads, or views, e.g. a `FrameSequence` of your own.
        source: the labelled source set, which keeps the network from forgetting, or its path. None = there is none: the
            base model's own predictions of the capture take its place.
        state_dir: folder for keyframes and versions, from which a later run continues. A run that is given a path
            continues with the same capture alone; with views, `keyframes.after_restart` says when keyframes are used
            again. None = nothing is kept.
        on_handover: called when the guard has accepted or refused new weights.
        values: single settings; they win over the settings of `model`.

    Returns:
        The adapted network, or the base model with its `info` when the guard accepted no weights.

    Raises:
        CaptureError, SourceSetError: data that cannot be read.
        LearningError: too few views overlap, or the loss is repeatedly not finite.
        SettingsError: no setting ends learning, or `state_dir` holds keyframes of another capture.
        S4NetError: another run or a node uses `state_dir`, or the folder cannot be written; `model` or `capture` is
            something else.
    """
    _check_model(model)
    _check_kind("capture", capture, str | Path | Iterable, "give a path, or views")
    _check_kind("source", source, str | Path | SourceSet | None, "give a path, or a SourceSet")
    settings = with_values(model.settings, values)
    labelled = source
    if isinstance(capture, str | Path):
        capture = open_views(capture, settings)
    if isinstance(labelled, str | Path):
        labelled = open_source_set(
            labelled, with_depth=model.info.model.depth_decoder, label_space=model.info.label_space
        )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.safetensors")
        model.save(base)
        state = state_dir or folder
        if isinstance(capture, Capture):
            session, views = open_session(capture, settings, base, labelled, state), capture.views()
        else:
            session, views = Session(settings, base, labelled, state), iter(capture)
        with session:
            version = adapt_to(session, views, on_handover=on_handover)
            return Segmenter(version.path, settings.device, settings)


def evaluate(model: Segmenter, capture: str | Path | FrameSequence) -> Evaluation:
    """Compare the labels that a model predicts with the labels of a capture.

    Args:
        model: from `load_model` or `adapt`.
        capture: path of a capture with labels, or a `FrameSequence` whose frames have labels of the model's classes.

    Returns:
        Pixel accuracy, mIoU and the like, over all pixels (`pooled`) and as the mean over images (`per_image`).

    Raises:
        CaptureError: the capture cannot be read, or has no labels.
        S4NetError: `model` or `capture` is something else.
    """
    _check_model(model)
    _check_kind("capture", capture, str | Path | FrameSequence, "give a path, or a FrameSequence")
    if isinstance(capture, str | Path):
        capture = open_views(capture, model.settings, labels=model.info.label_space)
    return evaluate_frames(model, capture)


def save_model(model: Segmenter, path: str | Path, *, half: bool = False) -> str:
    """Write the weights, for `load_model`, the nodes and the command line.

    Args:
        model: from `load_model` or `adapt`.
        path: file to (over)write; its folder is made if need be. A reader sees the old or the new file, never a part.
        half: store float16, half the size.

    Returns:
        SHA-256 of the file.

    Raises:
        CheckpointError: the file cannot be written.
        S4NetError: `model` is something else.
    """
    _check_model(model)
    return model.save(path, half=half)


def _check_model(model: object) -> None:
    _check_kind("model", model, Segmenter, "load_model(path) gives one")


def _check_kind(name: str, value: object, kind: type | UnionType, remedy: str) -> None:
    if not isinstance(value, kind):
        raise S4NetError(f"{name} is a {type(value).__name__}: {remedy}")
