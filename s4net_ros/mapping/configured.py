"""The node that maps while it is configured: keyframes and their map, the network that labels, outputs and counts."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus

from s4net_core.frames import View
from s4net_core.keyframes import buffer_for
from s4net_core.mapping import MapPoints, SemanticMap
from s4net_core.models.segmenter import Segmenter
from s4net_ros.diagnostics import Counts, DiagnosticsPublisher, Report, StallWatch
from s4net_ros.frame_assembly import camera_frames
from s4net_ros.frame_thread import FrameThread
from s4net_ros.mapping.map_thread import MapThread
from s4net_ros.mapping.outputs import MapOutputs
from s4net_ros.msg import ModelUpdate
from s4net_ros.node_base import S4NetNode
from s4net_ros.pose_corrections import PoseCorrections
from s4net_ros.qos import latched_qos
from s4net_ros.unusable_watch import UnusableWatch
from s4net_ros.weights import WeightsReceiver
from s4net_ros.worker import for_log, stop_or_warn

POKE_S = 0.5
"""Seconds within which new weights, moved keyframes and joined segments reach the map."""
LOG_AGAIN_S = 10.0
"""Seconds between two log lines about the same kind of failure."""


class ConfiguredMap:
    """Lives from `configure` to the clean-up of the node; `activate` connects it to the camera for a while.

    Args:
        node: publishes and logs.
        segmenter: labels the keyframes.
        undo: collects the actions of the clean-up.
    """

    def __init__(self, node: S4NetNode["ConfiguredMap"], segmenter: Segmenter, undo: ExitStack) -> None:
        self._node = node
        self._settings = node.settings
        self._segmenter = segmenter
        self.map = SemanticMap(segmenter.info.label_space, self._settings.map)
        self.keyframes = buffer_for(segmenter.settings, segmenter.depth)
        self.counts = Counts()
        self._outputs = MapOutputs(node, segmenter.info.label_space, self._settings.map)
        undo.callback(self._outputs.destroy)
        self._problem: Callable[[], str] = str
        """Returns what is wrong; empty while the node is not active."""
        self._assembled: Callable[[], Counter[str]] = Counter
        self._waiting: Callable[[], int] = int
        undo.callback(DiagnosticsPublisher(node, self._report).destroy)

    @property
    def frame(self) -> str:
        """Name of the map's frame; another one than the stream's once poses were corrected in it."""
        return self.keyframes.frame or self._settings.stream.fixed_frame

    def load(self, path: Path) -> None:
        """Put a saved map in the place of this one. The keyframes are forgotten: their votes may be in it already.

        Raises:
            S4NetError: as `SemanticMap.load`; nothing has changed.
        """
        self.map.load(path)
        self.keyframes.clear()

    def activate(self, undo: ExitStack) -> None:
        """Start the threads, then the subscriptions that feed them."""
        node, stream = self._node, self._settings.stream
        thread = MapThread(
            self.map,
            self.keyframes,
            self._segmenter,
            niceness=self._settings.adaptation.niceness,
            period=self._settings.map.period,
            publish=self._publish,
            failed=partial(self._failed, "keyframe not mapped"),
        )
        undo.callback(stop_or_warn, "the map", thread, node.get_logger())
        receiver = WeightsReceiver(self._segmenter, self.counts, node.get_logger())
        undo.callback(stop_or_warn, "weights", receiver, node.get_logger())
        updates = node.create_subscription(ModelUpdate, "model_update", receiver.offer, latched_qos())
        undo.callback(node.destroy_subscription, updates)
        watch = StallWatch(node, stream.stall_warning, stream.sync_slop)
        assembly = camera_frames(node, watch)
        undo.callback(assembly.destroy)
        corrections = PoseCorrections(node, self.keyframes, stream, assembly.look_up)
        undo.callback(corrections.destroy)
        unusable = UnusableWatch(stream.stall_warning)
        frames = FrameThread(assembly, partial(self._offer, unusable), partial(self._failed, "frame not used"))
        undo.callback(stop_or_warn, "frames", frames, node.get_logger())
        node.start_housekeeping(POKE_S, lambda: self._keep_house(thread), undo)
        self._assembled = lambda: Counter(assembly.skipped) + Counter(received=assembly.received)
        self._waiting = lambda: thread.waiting
        self._problem = lambda: assembly.stall() or unusable.reason() or receiver.problem
        undo.callback(self._forget_threads)

    def _forget_threads(self) -> None:
        self._assembled, self._waiting, self._problem = Counter, int, str

    # On the threads.

    def _offer(self, unusable: UnusableWatch, view: View) -> None:
        decision = self.keyframes.offer(view)
        unusable.note(decision)
        self.counts.add(decision.reason)

    def _publish(self, points: MapPoints) -> None:
        self._outputs.publish(points, self.frame)

    def _failed(self, what: str, error: Exception) -> None:
        self._node.get_logger().error(f"{what}: {for_log(error)}", throttle_duration_sec=LOG_AGAIN_S)

    # Housekeeping, on the executor's thread.

    def _keep_house(self, thread: MapThread) -> None:
        thread.poke()
        if reason := self._warning():
            self._node.get_logger().warning(reason, throttle_duration_sec=LOG_AGAIN_S)

    def _warning(self) -> str:
        """What a person should do something about."""
        problems = [self._problem(), self.keyframes.doubt]
        if refused := self.map.refused:
            problems.append(f"the map is full, {refused} voxels are left out: raise map.max_voxels or map.voxel_size")
        return "; ".join(filter(None, problems))

    def _report(self) -> Report:
        values: dict[str, object] = {
            "weights_version": self._segmenter.info.version,
            "voxels": len(self.map),
            "keyframes": len(self.keyframes),
            "keyframes_in_map": self.map.keyframes,
            "keyframes_to_label": self._waiting(),
            "frame": self.frame,
        }
        values |= self._assembled() | Counter(self.counts.snapshot())
        if not self._node.running:
            return Report(DiagnosticStatus.OK, "not active", values)
        if warning := self._warning():
            return Report(DiagnosticStatus.WARN, warning, values)
        return Report(DiagnosticStatus.OK, "mapping", values)
