"""The adaptation node while it is configured: a session, the thread that learns, the outputs and the counts."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from rclpy.impl.rcutils_logger import RcutilsLogger

from s4net_core.errors import S4NetError
from s4net_core.learning.session import Session
from s4net_core.learning.status import Handover
from s4net_core.learning.versions import Version
from s4net_core.streams.drops import AT_REST
from s4net_ros.adaptation.keyframe_markers import KeyframeMarkers
from s4net_ros.adaptation.learner_thread import LearnerThread
from s4net_ros.adaptation.outputs import AdaptationOutputs
from s4net_ros.adaptation.status import NodeStatus, report, status_message
from s4net_ros.diagnostics import DiagnosticsPublisher, Report, StallWatch
from s4net_ros.frame_assembly import camera_frames
from s4net_ros.frame_thread import FrameThread
from s4net_ros.node_base import S4NetNode
from s4net_ros.pose_corrections import PoseCorrections
from s4net_ros.unusable_watch import UnusableWatch
from s4net_ros.worker import JOIN_S, for_log, stop_or_warn

LOG_AGAIN_S = 10.0
"""Seconds between two log lines about the same reason for dropped frames; the counts miss none."""
DOUBT_AGAIN_S = 60.0
"""Seconds between two log lines about poses that contradict each other."""


class ConfiguredAdaptation:
    """Lives from `configure` to the clean-up of the node; `activate` connects it to the camera for a while.

    Args:
        node: publishes and logs.
        session: closed at the clean-up, after the learner's thread.
        undo: collects the actions of the clean-up.
    """

    def __init__(self, node: S4NetNode["ConfiguredAdaptation"], session: Session, undo: ExitStack) -> None:
        self._node = node
        self._session = session
        undo.callback(session.close)  # runs last, even if an action before it fails
        self._settings = node.settings
        frame = self._settings.stream.fixed_frame
        markers = KeyframeMarkers(session.keyframes, frame, lambda: session.status.health.agreement_of)
        self._outputs = AdaptationOutputs(node, markers)
        undo.callback(self._outputs.destroy)
        self.learner = LearnerThread(
            session, self._settings, on_handover=self._on_handover, on_failure=self._on_failure
        )
        undo.callback(self._stop_learner)
        self._earlier: Counter[str] = Counter()
        self._assembled: Callable[[], Counter[str]] = Counter
        """Returns the frames received and dropped since the last activation; empty while the node is not active."""
        self._stall: Callable[[], str] = str
        """Returns why no frames come, or can be used; empty while the node is not active."""
        self._logged: dict[str, tuple[int, float]] = {}
        undo.callback(DiagnosticsPublisher(node, self._report).destroy)

    def announce(self, version: Version) -> None:
        """Publish which weights serve, for the nodes that label."""
        self._outputs.announce(version)

    def activate(self, period: float, undo: ExitStack) -> None:
        """Announce the weights that serve, subscribe, learn, and publish the status.

        Args:
            period: seconds between two status messages.
            undo: collects the actions of the deactivation, which does not wait for a running step.
        """
        node, stream = self._node, self._settings.stream
        self.announce(self._session.current)
        watch = StallWatch(node, stream.stall_warning, stream.sync_slop)
        assembly = camera_frames(node, watch)
        undo.callback(assembly.destroy)
        self._assembled = lambda: Counter(assembly.skipped) + Counter(received=assembly.received)
        unusable = UnusableWatch(stream.stall_warning)
        self._stall = lambda: assembly.stall() or unusable.reason()
        undo.callback(self._end_counting)
        corrections = PoseCorrections(node, self._session.keyframes, stream, assembly.look_up)
        undo.callback(corrections.destroy)
        frames = FrameThread(assembly, lambda view: unusable.note(self._session.offer(view)), self._frame_failed)
        undo.callback(stop_or_warn, "frames", frames, self._log)
        node.start_housekeeping(period, lambda: self._keep_house(assembly.details), undo)
        self.learner.set_active(True)
        undo.callback(self.learner.set_active, False)

    # At the end.

    def _end_counting(self) -> None:
        self._earlier += self._assembled()
        self._assembled, self._stall = Counter, str

    def _stop_learner(self) -> None:
        """Stop the thread. A step that does not end in time finds a closed session: it cannot save or hand over."""
        if self.learner.stop(JOIN_S):
            return
        self._log.warning("a learner step did not end in time: it is given up, and keyframes are saved without it")
        saving = threading.Thread(target=self._save, name="last save", daemon=True)  # the disk may hang for ever
        saving.start()
        saving.join(JOIN_S)
        self._session.close()

    def _save(self) -> None:
        try:
            self._session.save()
        except S4NetError as error:
            self._log.error(f"state was not saved: {error}")

    # Called on the thread that takes frames, and on the learner's.

    def _frame_failed(self, error: Exception) -> None:
        """The assembly has counted the frame already."""
        self._log.error(f"frame not used: {for_log(error)}", throttle_duration_sec=LOG_AGAIN_S)

    def _on_handover(self, handover: Handover) -> None:
        version = handover.version
        if handover.accepted:
            self._log.info(f"weights version {version.number} handed over: {version.info.metrics}")
        elif not handover.reasons:  # a refusal is logged by the session
            self._log.info(f"weights are no better, version {version.number} keeps serving")
        self._outputs.announce_if_new(version)

    def _on_failure(self, what: str, trace: str) -> None:
        self._log.error(what + (f"\n{trace}" if trace else ""))

    # Housekeeping, on the executor's thread.

    def _keep_house(self, details: dict[str, str]) -> None:
        stamp, status = self._node.get_clock().now().to_msg(), self._session.status
        self._outputs.publish_status(status_message(status, self._node_status(), stamp))
        self._outputs.publish_keyframes()
        self._log_drops(details)
        if reason := self._stall():
            self._log.warning(reason, throttle_duration_sec=self._settings.stream.stall_warning)
        if status.doubt:
            self._log.warning(status.doubt, throttle_duration_sec=DOUBT_AGAIN_S)

    def _log_drops(self, details: dict[str, str]) -> None:
        """Log the newest detail of each reason for dropped frames, at most once in `LOG_AGAIN_S`."""
        now, counts = time.monotonic(), self._assembled()
        del counts["received"], counts[AT_REST]
        for reason, count in counts.items():
            before, at = self._logged.get(reason, (0, -LOG_AGAIN_S))
            if count != before and now - at >= LOG_AGAIN_S:
                self._logged[reason] = (count, now)
                self._log.warning(f"frames dropped so far ({reason}): {count}; the last one: {details.get(reason, '')}")

    def _node_status(self) -> NodeStatus:
        counts = self._earlier + self._assembled()
        received = counts.pop("received", 0)
        return NodeStatus(
            received=received,
            dropped=counts,
            paused=self.learner.paused,
            failure=self.learner.failure,
            failures=self.learner.failures,
            active=self._node.running,
            alive=self.learner.alive,
            duty_cycle=self._settings.adaptation.duty_cycle,
            held_up=self.learner.watch.held_up(),
            stall=self._stall(),
        )

    def _report(self) -> Report:
        return report(self._session.status, self._node_status())

    @property
    def _log(self) -> RcutilsLogger:
        return self._node.get_logger()
