"""The node that learns: posed frames become keyframes, S4-Net adapts the network in the background, weights go out.

Callbacks only enqueue. One thread assembles frames and offers them as keyframes, another one learns.
"""

if __name__ == "__main__":  # until there is a node, a signal ends this program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from s4net_core.config import Settings, with_values
from s4net_core.learning.base_model import open_source
from s4net_core.learning.session import Session
from s4net_core.machine.process import prepare_process
from s4net_core.models.base_model_file import base_model_file
from s4net_ros.adaptation.configured import ConfiguredAdaptation
from s4net_ros.adaptation.learner_thread import THREAD_NAME
from s4net_ros.adaptation.services import AdaptationServices, Served
from s4net_ros.node_base import S4NetNode, run, state_dir
from s4net_ros.worker import step_back_on_gpu

NAME = "adaptation"
STATUS_S = 1.0


def open_session(settings: Settings, folder: Path) -> Session:
    """Open the session that the parameters describe; `folder` is for keyframes and weights.

    Raises:
        S4NetError: the checkpoint is missing, it or the source set cannot be used, or another node uses the folder.
    """
    step_back_on_gpu(settings.adaptation.niceness)
    file = base_model_file(settings.checkpoint, settings.model)
    prepare_process(settings)
    return Session(settings, file, open_source(with_values(settings, {"checkpoint": str(file)})), folder)


class AdaptationNode(S4NetNode[ConfiguredAdaptation]):
    """Learns from the camera's stream and announces better weights on ``model_update``.

    Args:
        defaults: values of parameters that are not set.
        make: opens the session from settings and state folder; called in `configure`.
        options: as of `S4NetNode`.
    """

    bunch = 0.05
    live = ("learner.", "guard.", "adaptation.")

    def __init__(
        self,
        defaults: Settings | None = None,
        make: Callable[[Settings, Path], Session] = open_session,
        **options: Any,
    ) -> None:
        super().__init__(NAME, defaults, **options)
        self._make = make
        self._own_services = AdaptationServices(self)

    def configure(self, undo: ExitStack) -> ConfiguredAdaptation:
        """Load networks, source set and saved state, and create the outputs."""
        folder = state_dir(self.settings, self.get_namespace())
        session = self._make(self.settings, folder)
        configured = ConfiguredAdaptation(self, session, undo)
        undo.enter_context(self._own_services.serving(Served(configured.learner, configured.announce, folder)))
        status, size = session.status, "{}x{}".format(*session.settings.model.size)
        self.get_logger().info(
            f"{status.keyframes} keyframes, weights version {status.version} ({status.model_path}), working at {size}"
        )
        return configured

    def activate(self, configured: ConfiguredAdaptation, undo: ExitStack) -> None:
        """Announce the weights that serve, subscribe and learn."""
        configured.activate(STATUS_S, undo)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m s4net_ros.adaptation_node --ros-args ...``."""
    code = run(AdaptationNode, args)
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        # A step that is still running would use objects that the interpreter destroys when it exits.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
