"""New weights between the nodes: the message that announces a file, and the receiver that loads the file."""

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from rclpy.impl.rcutils_logger import RcutilsLogger

from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError, S4NetError
from s4net_ros.diagnostics import Counts
from s4net_ros.msg import ModelUpdate
from s4net_ros.worker import Worker, for_log

if TYPE_CHECKING:  # torch takes seconds to import; nothing here needs it
    from s4net_core.models.checkpoint import CheckpointInfo
    from s4net_core.models.segmenter import Segmenter

UPDATES_LOADED = "updates_loaded"
UPDATES_REFUSED = "updates_refused"
MAX_TEXT = 500
"""Characters of a reason that are logged: a path from outside may be long."""
SLOW_S = 30.0
"""Seconds after which the loading of one file is reported: its disk or its network may hang."""


def update_message(path: str | Path, sha256: str, info: "CheckpointInfo", stamp: Time) -> ModelUpdate:
    """Announcement of a weights file.

    Args:
        path: the file; a late joiner may load it, so it must stay where it is.
        sha256: of the file.
        info: metadata of the file.
        stamp: when the weights were handed over.
    """
    message = ModelUpdate(
        version=info.version,
        path=str(Path(path).absolute()),
        sha256=sha256,
        parent=info.parent,
        architecture=architecture_name(info.model),
        label_space=info.model.label_space,
        source_miou=float(info.metrics.get("source_miou", "nan")),
        agreement=float(info.metrics.get("agreement", "nan")),
    )
    message.header.stamp = stamp
    return message


def architecture_name(model: ModelSettings) -> str:
    """Decoder and encoder in one word, e.g. ``deeplabv3plus/resnet50``."""
    return f"{model.architecture}/{model.encoder}"


class WeightsReceiver:
    """Loads announced weights into the segmenter's second copy, on a thread of its own.

    Weights that cannot be used are logged and counted, with the reason in `last_refusal`; the old weights keep serving.

    Args:
        segmenter: takes the weights between two frames.
        counts: raised at ``updates_loaded`` and ``updates_refused``.
        logger: of the node.
    """

    def __init__(self, segmenter: "Segmenter", counts: Counts, logger: RcutilsLogger) -> None:
        self._segmenter = segmenter
        self._counts = counts
        self._logger = logger
        self._serving = ""
        self._loading: tuple[str, float] | None = None
        self.last_refusal = ""
        settings = segmenter.settings
        # Loading must not hold up the labels. But ONNX Runtime makes the threads that label on the one that loads.
        niceness = 0 if settings.segmentation.runtime == "onnx" else settings.adaptation.niceness
        self._worker: Worker[ModelUpdate] = Worker("load weights", self._load, self._refused, niceness=niceness)

    def offer(self, message: ModelUpdate) -> None:
        """Callback of the subscription; never waits. A newer announcement replaces one whose loading has not begun."""
        self._worker.put(message)

    @property
    def problem(self) -> str:
        """Why new weights do not serve: the last ones were refused, or are taking long to load; empty = they serve."""
        loading = self._loading
        if loading and (seconds := time.monotonic() - loading[1]) > SLOW_S:
            return f"loading {loading[0]} has taken {seconds:.0f} s: is its disk, or the way to it, in order?"
        return f"new weights refused: {self.last_refusal}" if self.last_refusal else ""

    def stop(self) -> bool:
        """End the thread; returns whether it has ended in time."""
        return self._worker.stop()

    def _load(self, message: ModelUpdate) -> None:
        if message.sha256 and message.sha256 == self._serving:
            self.last_refusal = ""  # a roll-back to what serves here ends what was wrong with a later version
            return
        self._loading = message.path, time.monotonic()
        try:
            _check(message, self._segmenter.info.model)
            info = self._segmenter.load(message.path, message.sha256)
        finally:
            self._loading = None
        self._serving = message.sha256
        self.last_refusal = ""
        self._counts.add(UPDATES_LOADED)
        self._logger.info(f"labels now come from weights version {info.version} ({message.path})")

    def _refused(self, message: ModelUpdate, error: Exception) -> None:
        self._counts.add(UPDATES_REFUSED)
        self.last_refusal = f"version {message.version}: {_shortened(str(error))}"
        text = _shortened(str(error)) if isinstance(error, S4NetError) else for_log(error)
        self._logger.error(f"weights version {message.version} refused, the old ones keep serving: {text}")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]} ... {text[-MAX_TEXT // 2 :]}"


def _check(message: ModelUpdate, model: ModelSettings) -> None:
    """Refuse an announcement whose file need not even be opened.

    Raises:
        CheckpointError: it is of another network, or does not say for certain which file is meant.
    """
    for name, announced, ours in (
        ("architecture", message.architecture, architecture_name(model)),
        ("label space", message.label_space, model.label_space),
    ):
        if announced != ours:
            raise CheckpointError(
                f"{message.path} has {name} '{announced}' but this node serves '{ours}': give both nodes the same "
                "checkpoint"
            )
    if not re.fullmatch("[0-9a-fA-F]{64}", message.sha256):
        raise CheckpointError(f"{message.path} is announced with SHA-256 '{message.sha256}': send its 64 hex digits")
    if not os.path.isabs(message.path):
        raise CheckpointError(f"path '{message.path}' is relative: announce an absolute path")
    if not os.path.exists(message.path):
        raise CheckpointError(
            f"{message.path} is not there: both nodes must see the same file system; set state_dir to a folder "
            "that they share"
        )
