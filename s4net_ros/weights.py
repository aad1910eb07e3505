"""New weights between the nodes: the message that announces a file, and the receiver that loads the file."""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from rclpy.impl.rcutils_logger import RcutilsLogger

from s4net_core.config import ModelSettings
from s4net_core.errors import CheckpointError, S4NetError
from s4net_ros.diagnostics import Counts
from s4net_ros.msg import ModelUpdate
from s4net_ros.worker import Worker

if TYPE_CHECKING:  # torch takes seconds to import; nothing here needs it
    from s4net_core.models.checkpoint import CheckpointInfo
    from s4net_core.models.segmenter import Segmenter

UPDATES_LOADED = "updates_loaded"
UPDATES_REFUSED = "updates_refused"


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
        self.last_refusal = ""
        self._worker: Worker[ModelUpdate] = Worker("load weights", self._load, self._refused)

    def offer(self, message: ModelUpdate) -> None:
        """Callback of the subscription; never waits. A newer announcement replaces one whose loading has not begun."""
        self._worker.put(message)

    def stop(self) -> bool:
        """End the thread; returns whether it has ended in time."""
        return self._worker.stop()

    def _load(self, message: ModelUpdate) -> None:
        if message.sha256 and message.sha256 == self._serving:
            self.last_refusal = ""  # a roll-back to what serves here ends what was wrong with a later version
            return
        model = self._segmenter.info.model
        for name, announced, ours in (
            ("architecture", message.architecture, architecture_name(model)),
            ("label space", message.label_space, model.label_space),
        ):
            if announced != ours:
                raise CheckpointError(
                    f"{message.path} has {name} '{announced}' but this node serves '{ours}': give both nodes the same "
                    "checkpoint"
                )
        if not Path(message.path).is_file():
            raise CheckpointError(
                f"{message.path} is not there: both nodes must see the same file system; set state_dir to a folder "
                "that they share"
            )
        info = self._segmenter.load(message.path, message.sha256)
        self._serving = message.sha256
        self.last_refusal = ""
        self._counts.add(UPDATES_LOADED)
        self._logger.info(f"labels now come from weights version {info.version} ({message.path})")

    def _refused(self, message: ModelUpdate, error: Exception) -> None:
        self._counts.add(UPDATES_REFUSED)
        self.last_refusal = f"version {message.version}: {error}"
        text = str(error) if isinstance(error, S4NetError) else "".join(traceback.format_exception(error))
        self._logger.error(f"weights version {message.version} refused, the old ones keep serving: {text}")
