"""The node that learns: posed frames become keyframes, S4-Net adapts the network in the background, weights go out.

Callbacks only enqueue. One thread puts frames together and offers them as keyframes, another one learns.
"""

import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from s4net_core.config import Settings
from s4net_core.errors import BadFrame, CheckpointError, S4NetError, SourceSetError
from s4net_core.files import FolderLock
from s4net_core.frames import View
from s4net_core.learning.adapt import Adaptation, Handover
from s4net_core.learning.base_model import open_source
from s4net_ros.adaptation.frame_thread import FrameThread
from s4net_ros.adaptation.keyframe_markers import KeyframeMarkers
from s4net_ros.adaptation.learner_thread import THREAD_NAME, LearnerThread, describe
from s4net_ros.adaptation.outputs import AdaptationOutputs
from s4net_ros.adaptation.services import AdaptationServices
from s4net_ros.adaptation.status import NodeStatus, report, status_message
from s4net_ros.diagnostics import Counts, DiagnosticsPublisher, Report, StallWatch
from s4net_ros.frame_assembly import FrameAssembly
from s4net_ros.node_base import S4NetNode, run
from s4net_ros.worker import JOIN_S

NAME = "adaptation"
DEFAULT_STATE_DIR = "~/.ros/s4net"
STATUS_S = 1.0
LOG_AGAIN_S = 10.0
"""The same kind of dropped frame is written to the log this often; every single one is counted."""


def make_adaptation(settings: Settings, folder: Path) -> Adaptation:
    """What the node learns with, from its parameters; `folder` is for keyframes and weights.

    Raises:
        S4NetError: checkpoint or source set are missing or cannot be used.
    """
    if not settings.checkpoint:
        raise CheckpointError("parameter checkpoint is empty: name the weights file of the base model")
    if not settings.source.path:
        raise SourceSetError("parameter source.path is empty: name the folder of the labelled source set")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return Adaptation(settings, settings.checkpoint, open_source(settings), folder)


def state_dir(settings: Settings, namespace: str) -> Path:
    """Folder of keyframes and weights; robots that nobody gave one differ in their namespace."""
    folder = settings.state_dir or f"{DEFAULT_STATE_DIR}/{namespace.strip('/')}"
    return Path(folder).expanduser().absolute()


class AdaptationNode(S4NetNode):
    """Learns from the camera's stream and announces better weights on ``model_update``.

    Args:
        defaults: settings of the parameters that nobody sets.
        make: gives what learns, from settings and state folder; called in `configure`.
        options: as of `S4NetNode`.
    """

    def __init__(
        self,
        defaults: Settings | None = None,
        make: Callable[[Settings, Path], Adaptation] = make_adaptation,
        **options: Any,
    ) -> None:
        super().__init__(NAME, defaults, **options)
        self._make = make
        self._folder = state_dir(self.settings, self.get_namespace())
        self._lock: FolderLock | None = None
        self._learner: LearnerThread | None = None
        self._outputs: AdaptationOutputs | None = None
        self._diagnostics: DiagnosticsPublisher | None = None
        self._assembly: FrameAssembly | None = None
        self._frames: FrameThread | None = None
        self._watch = self._new_watch()
        self._frames_used = 0
        self._failed = Counts()
        self._rejected = Counts()
        self._handovers = Counts()
        self._earlier: Counter[str] = Counter()
        self._logged: dict[str, tuple[int, float]] = {}
        AdaptationServices(
            self,
            lambda: self._learner,
            announce=lambda version: self._outputs.announce(version) if self._outputs else None,
            folder=lambda: self._folder,
        )

    # Lifecycle.

    def configure(self) -> None:
        """Load networks, source set and saved state, and create the outputs."""
        self._lock = self._lock_state_dir()
        adaptation = self._make(self.settings, self._folder)
        markers = KeyframeMarkers(adaptation.keyframes, self.settings.stream.fixed_frame)
        self._outputs = AdaptationOutputs(self, markers)
        self._learner = LearnerThread(
            adaptation,
            duty_cycle=lambda: self.settings.adaptation.duty_cycle,
            on_handover=self._on_handover,
            on_failure=self._on_failure,
        )
        self._diagnostics = DiagnosticsPublisher(self, self._report)
        status = adaptation.status
        self.get_logger().info(f"{status.keyframes} keyframes, weights version {status.version} ({status.model_path})")

    def activate(self) -> None:
        """Announce the weights that serve, subscribe and learn."""
        assert self._learner is not None
        assert self._outputs is not None
        self._outputs.announce(self._learner.adaptation.current)
        self._watch = self._new_watch()
        stream = self.settings.stream
        self._assembly = FrameAssembly(
            self,
            stream,
            watch=self._watch,
            with_depth=self.settings.geometry.from_sensor,
            color_topic=self.transport_topic("color/image_raw", stream.color_transport),
            depth_topic=self.transport_topic("depth/image_raw", stream.depth_transport),
        )
        self._frames = FrameThread(self._assembly, self._offer, self._frame_failed)
        self.start_housekeeping(STATUS_S, self._keep_house)
        self._learner.set_active(True)

    def deactivate(self) -> None:
        """Stop learning and the subscriptions; a running step ends by itself."""
        if self._learner is not None:
            self._learner.set_active(False)
        self.stop_housekeeping()
        if self._frames is not None and not self._frames.stop():
            self.get_logger().warning("the thread that takes frames still works on one and is left behind")
        self._frames = None
        if self._assembly is not None:
            self._assembly.destroy()
            self._earlier = self._frame_counts()
            self._assembly = None

    def cleanup(self) -> None:
        """Save the state and let go of networks and outputs."""
        if self._learner is not None and not self._learner.stop(JOIN_S):
            self.get_logger().warning("a step is still running: it is given up, keyframes are saved without it")
            self._save_state(self._learner.adaptation)
        self._learner = None
        if self._diagnostics is not None:
            self._diagnostics.destroy()
            self._diagnostics = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _lock_state_dir(self) -> FolderLock | None:
        """None when it cannot be written: said now, not only at the first hand-over; keyframes are collected anyway.

        Raises:
            S4NetError: another node uses it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return FolderLock(self._folder, "end it, or give every adaptation node its own parameter state_dir")
        except OSError as error:
            self.get_logger().error(f"no weights can be handed over from state_dir {self._folder}: {describe(error)}")
            return None

    def _save_state(self, adaptation: Adaptation) -> None:
        try:
            adaptation.save_state()
        except S4NetError as error:
            self.get_logger().error(f"state was not saved: {error}")

    # Called on the thread that takes frames, and on the learner's.

    def _offer(self, view: View) -> None:
        if self._learner is not None:
            offer = self._learner.adaptation.offer(view.decode())
            self._frames_used += 1
            if offer.id is None:
                self._rejected.add(offer.reason)

    def _frame_failed(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, BadFrame) else type(error).__name__
        self._failed.add(reason)
        text = str(error) if isinstance(error, S4NetError) else "".join(traceback.format_exception(error))
        self.get_logger().error(f"frame not used: {text}", throttle_duration_sec=LOG_AGAIN_S)

    def _on_handover(self, handover: Handover) -> None:
        version = handover.version
        self._handovers.add("accepted" if handover.accepted else "refused")
        if handover.accepted:
            self.get_logger().info(f"weights version {version.number} handed over: {version.info.metrics}")
        else:
            reasons = "; ".join(handover.reasons)
            self.get_logger().warning(f"weights refused, version {version.number} goes on serving: {reasons}")
        if self._outputs is not None:
            self._outputs.announce_if_new(version)

    def _on_failure(self, reason: str, trace: str) -> None:
        self.get_logger().error(f"learning is paused: {reason}" + (f"\n{trace}" if trace else ""))

    # Housekeeping, once a second.

    def _keep_house(self) -> None:
        assert self._learner is not None
        assert self._outputs is not None
        stamp = self.get_clock().now().to_msg()
        node = self._node_status()  # first: a frame that it counts as used is then among the keyframes as well
        self._outputs.publish_status(status_message(self._learner.adaptation.status, node, stamp))
        self._outputs.publish_keyframes()
        self._log_drops()
        if reason := self._watch.reason():
            self.get_logger().warning(reason, throttle_duration_sec=self.settings.stream.stall_warning)

    def _log_drops(self) -> None:
        """The newest text of every reason for which frames are dropped, each once in a while."""
        assert self._assembly is not None
        now = time.monotonic()
        for reason, count in self._assembly.skipped.items():
            before, at = self._logged.get(reason, (0, -LOG_AGAIN_S))
            if count != before and now - at >= LOG_AGAIN_S:
                self._logged[reason] = (count, now)
                self.get_logger().warning(
                    f"{count} frames dropped so far ({reason}): {self._assembly.details.get(reason, '')}"
                )

    def _frame_counts(self) -> "Counter[str]":
        """Frames ``received``, and dropped by reason, since the node was started."""
        counts = Counter(self._earlier)
        if self._assembly is not None:
            counts.update(self._assembly.skipped)
            counts["received"] += self._assembly.received
        return counts

    def _node_status(self) -> NodeStatus:
        assert self._learner is not None
        counts = self._frame_counts()
        received = counts.pop("received", 0)
        counts.update(self._failed.snapshot())
        return NodeStatus(
            received=received,
            used=self._frames_used,
            dropped=counts,
            rejected=self._rejected.snapshot(),
            handovers=self._handovers["accepted"],
            refused=self._handovers["refused"],
            paused=self._learner.paused,
            failure=self._learner.failure,
            failures=self._learner.failures,
            alive=self._learner.alive,
            duty_cycle=self.settings.adaptation.duty_cycle,
            stall=self._watch.reason() if self.running else "",
        )

    def _report(self) -> Report:
        assert self._learner is not None
        return report(self._learner.adaptation.status, self._node_status())

    def _new_watch(self) -> StallWatch:
        return StallWatch(self, self.settings.stream.stall_warning, self.settings.stream.sync_slop)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m s4net_ros.adaptation_node --ros-args ...``."""
    code = run(AdaptationNode, args)
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        # A step that is still running would use what the interpreter takes down at its end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
