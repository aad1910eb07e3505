"""Base of all nodes: lifecycle, settings, clock jumps, and running until a signal comes."""

import gc
import signal
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import TypeAdapter, ValidationError
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from s4net_core.config import Settings, load_settings
from s4net_core.errors import BaseModelMissing, S4NetError, SettingsError
from s4net_core.streams.clock import TIME_JUMP_NS
from s4net_ros.diagnostics import DiagnosticsPublisher, Report
from s4net_ros.executor import StreamExecutor
from s4net_ros.library_log import library_logs_to
from s4net_ros.parameters import declare_settings

LOOK_AGAIN_S = 2.0
"""Seconds between two looks for a base model that was missing."""
DEFAULT_STATE_DIR = "~/.ros/s4net"
MAX_ERRORS_IN_A_ROW = 20
"""A node ends after this many failures of callbacks in a row, before their tracebacks fill the disk."""


Configured = TypeVar("Configured")
"""Type of the object that a node holds from `configure` until it is cleaned up."""


class S4NetNode(LifecycleNode, ABC, Generic[Configured]):
    """Lifecycle node whose parameters are the settings.

    Sub-classes fill in `configure` and `activate`, which raise to refuse. Each gets a stack and pushes onto it how to
    undo its work. The stack is undone from the top at clean-up or deactivation, or at once when the transition fails
    half-way. All of this happens on the executor's thread.

    Args:
        name: node name.
        defaults: values of parameters that are not set; None = those of the parameter ``settings_file``.
        options: as of `rclpy.node.Node`, e.g. ``namespace``, ``context``, ``parameter_overrides``, ``cli_args``.

    Raises:
        SettingsError: a parameter has the wrong type or lies outside its range, or the settings file cannot be used.
    """

    bunch = 0.0
    """As of `StreamExecutor`: seconds by which messages may wait for each other."""
    live: tuple[str, ...] = ()
    """As of `declare_settings`."""

    def __init__(self, name: str, defaults: Settings | None = None, **options: Any) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **options)
        self.loading: Callable[[], AbstractContextManager[None]] = nullcontext
        """Surrounds `configure`, which may take seconds; `run` lets signals end the process meanwhile."""
        self._running = False
        self._configured: Configured
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._missing: BaseModelMissing | None = None
        self._unconfigured = Report(DiagnosticStatus.ERROR, "")
        """What /diagnostics say while the node waits for a base model."""
        self._undo_missing = ExitStack()
        try:
            self._autostart = self._declare(
                "autostart", True, "Configure and activate at start; false leaves that to a lifecycle manager."
            )
            file = self._declare("settings_file", "", "Plain settings file; parameters win over it. Empty = none.")
            self.settings = declare_settings(self, defaults or load_settings(file), self.live)
        except Exception:
            self.destroy_node()
            raise
        # Sub-classes must not reuse this name: the handle has to live on, and rclpy does not keep it alive.
        self._clock_jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-TIME_JUMP_NS), on_clock_change=False),
            post_callback=self._on_jump,
        )

    # For sub-classes to fill in.

    @abstractmethod
    def configure(self, undo: ExitStack) -> Configured:
        """Load networks and data, create publishers and services.

        Args:
            undo: collects the actions of the clean-up.

        Returns:
            What `activate` needs.

        Raises:
            S4NetError: the node stays unconfigured; the text is logged.
        """

    @abstractmethod
    def activate(self, configured: Configured, undo: ExitStack) -> None:
        """Start threads and subscriptions. Lifecycle publishers publish before this, and still do when it is undone.

        Args:
            configured: from `configure`.
            undo: collects the actions of the deactivation.
        """

    # For sub-classes to use.

    def autostart(self) -> bool:
        """Configure and activate, unless the parameter ``autostart`` leaves that to a lifecycle manager.

        Without a base model the node stays unconfigured, says so in /diagnostics, and starts when the file is there.

        Returns:
            False when the node should have started by itself and failed.
        """
        if not self._autostart:
            return True
        self._start()
        return self.running or self._missing is not None

    def _start(self) -> None:
        # Read the state: the return values of the triggers differ between versions of rclpy.
        self.trigger_configure()
        if self._state_label() == "inactive":
            self.trigger_activate()

    @property
    def running(self) -> bool:
        """Whether the node is active."""
        return self._running

    def start_housekeeping(self, seconds: float, callback: Callable[[], None], undo: ExitStack) -> None:
        """Call `callback` every `seconds` of steady time, which a stopped or jumping /clock does not touch."""
        timer = self.create_timer(seconds, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        undo.callback(self.destroy_timer, timer)

    def transport_topic(self, base: str, transport: str) -> str:
        """Topic of an image in a transport, as image_transport names it: ``<base>/<transport>``, raw = `base` itself.

        A remapping of `base` holds for its transports too; a remapping of the transport's own topic wins.
        """
        if transport == "raw":
            return base
        topic = f"{base}/{transport}"
        resolved: str = self.resolve_topic_name(topic)
        if resolved != self.resolve_topic_name(topic, only_expand=True):
            return resolved
        return f"{self.resolve_topic_name(base)}/{transport}"

    def shut_down(self) -> None:
        """End threads and release everything, from any state."""
        if self._state_label() in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()

    # Lifecycle, as rclpy calls it. It swallows exceptions there, so they are logged here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `configure`."""
        with self.loading():
            result = self._attempt("configure", self._configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._clean_up()
            return result
        self._wait_no_more()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `activate` once publishers publish."""
        result = super().on_activate(state)
        if result == TransitionCallbackReturn.SUCCESS:
            result = self._attempt("activate", partial(self.activate, self._configured, self._undo_activate))
        if result != TransitionCallbackReturn.SUCCESS:
            self._deactivate()
            super().on_deactivate(state)
        self._running = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undoes `activate` while publishers still publish."""
        result = self._deactivate()
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undoes `configure`."""
        result = self._clean_up()
        super().on_cleanup(state)
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undoes everything, from any state."""
        self._wait_no_more()
        stopped, cleaned = self._deactivate(), self._clean_up()
        super().on_shutdown(state)
        return stopped if stopped != TransitionCallbackReturn.SUCCESS else cleaned

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception in a transition: back to unconfigured."""
        self._deactivate()
        self._clean_up()
        return super().on_error(state)

    def _configure(self) -> None:
        self._configured = self.configure(self._undo_configure)
        self._undo_configure.callback(delattr, self, "_configured")  # networks take memory

    def _deactivate(self) -> TransitionCallbackReturn:
        self._running = False
        return self._attempt("deactivate", self._undo_activate.close)

    def _clean_up(self) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._undo_configure.close)

    def _attempt(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except S4NetError as error:
            self.get_logger().error(f"cannot {what}: {error}")
            if isinstance(error, BaseModelMissing):
                self._wait_for(error)
            self._explain(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"cannot {what}:\n{traceback.format_exc()}")
            self._explain(f"{type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    # Without a base model.

    def _wait_for(self, missing: BaseModelMissing) -> None:
        if self._missing is not None:
            return
        self._missing = missing
        self._undo_missing.callback(DiagnosticsPublisher(self, lambda: self._unconfigured).destroy)
        if self._autostart:
            looks = _Looks(missing.file)
            self.start_housekeeping(LOOK_AGAIN_S, partial(self._look_again, looks), self._undo_missing)

    def _explain(self, reason: str) -> None:
        self._unconfigured = Report(DiagnosticStatus.ERROR, f"unconfigured: {reason}", {"state": "unconfigured"})

    def _look_again(self, looks: "_Looks") -> None:
        if looks.new() and self._state_label() == "unconfigured":
            self._start()

    def _wait_no_more(self) -> None:
        self._missing = None
        self._undo_missing.close()

    def _declare(self, name: str, default: bool | str, help: str) -> Any:
        """Declare a parameter that is no setting. Returns its value, checked and converted as that of a setting."""
        given = default
        if self.has_parameter(name):
            value = self.get_parameter(name).value
            try:
                given = TypeAdapter(type(default)).validate_python(value)
            except ValidationError as error:
                raise SettingsError(f"parameter {name} = {value!r}: {error.errors()[0]['msg']}") from error
            self.undeclare_parameter(name)
        self.declare_parameter(name, given, ParameterDescriptor(description=help, read_only=True), ignore_override=True)
        return given

    def _on_jump(self, jump: TimeJump) -> None:
        if jump.clock_change in (ClockChange.ROS_TIME_NO_CHANGE, ClockChange.SYSTEM_TIME_NO_CHANGE):
            seconds = jump.delta.nanoseconds / 1e9
            self.get_logger().info(f"the clock went back by {-seconds:.1f} s: going on with the stamps of colour")

    def _state_label(self) -> str:
        label: str = self._state_machine.current_state[1]
        return label


class _Looks:
    """Looks at a file that somebody may be copying: half of it is not worth an attempt to load it.

    Args:
        file: may be missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last: tuple[int, int] | None = None
        self._found: tuple[int, int] | None = None

    def new(self) -> bool:
        """Whether the file is as it was at the last look, and not as it was when this was last true."""
        state = None
        with suppress(OSError):
            stat = self._file.stat()
            state = stat.st_size, stat.st_mtime_ns
        settled, self._last = state == self._last, state
        if state is None or not settled or state == self._found:
            return False
        self._found = state
        return True


def state_dir(settings: Settings, namespace: str) -> Path:
    """Folder of what a robot keeps; without the setting `state_dir` it is named after the namespace of the robot."""
    folder = settings.state_dir or f"{DEFAULT_STATE_DIR}/{namespace.strip('/')}"
    return Path(folder).expanduser().absolute()


def run(make: Callable[[], S4NetNode], args: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM.

    While the node is made and configured, a signal ends the process at once: there is nothing to save yet, and loading
    a network or a library takes longer than anyone waits. Later a signal only ends the loop, so that threads may still
    publish while they are stopped.

    Args:
        make: creates the node; called after ``rclpy.init``.
        args: command line, None = ``sys.argv``.

    Returns:
        Exit code: 0 after a signal, 1 when the node could not start by itself, 2 for parameters that do not fit.
    """
    signals = _Signals()
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
    except S4NetError as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    signals.catch()
    node.loading = signals.ending_at_once
    executor = StreamExecutor(node.bunch)
    executor.add_node(node)
    try:
        with library_logs_to(node.get_logger()):
            return _start_and_spin(executor, node, signals.caught)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


class _Signals:
    """SIGINT and SIGTERM of this process: at first, each ends it as it ends any program that does not care."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        """No threading.Event: a second signal inside its `set` would wait for ever for the first."""
        self._handle(signal.SIG_DFL)

    def catch(self) -> None:
        """Note signals from now on."""
        self._handle(lambda number, frame: self.caught.append(number))

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """In this block a signal ends the process, and so does one that has been caught before."""
        self._handle(signal.SIG_DFL)  # the kernel's way works in the middle of an import, too
        if self.caught:
            signal.raise_signal(self.caught[0])
        try:
            yield
        finally:
            self.catch()

    def _handle(self, handler: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)


def _start_and_spin(executor: StreamExecutor, node: S4NetNode, signals: list[int]) -> int:
    try:
        if not node.autostart():
            return 1
        # A garbage collection through all objects of PyTorch stops every thread for 0.1 to 0.3 s.
        gc.collect()
        gc.freeze()
        return _spin(executor, node, signals)
    finally:
        node.shut_down()


def _spin(executor: StreamExecutor, node: S4NetNode, signals: list[int]) -> int:
    """Spin until a signal. A failing callback is logged; `MAX_ERRORS_IN_A_ROW` failures in a row end the node."""
    errors = 0
    while not signals and rclpy.ok():
        try:
            executor.spin_on()
            errors = 0
        except ExternalShutdownException:
            break
        except Exception:
            errors += 1
            node.get_logger().error(f"error in a callback:\n{traceback.format_exc()}")
            if errors >= MAX_ERRORS_IN_A_ROW:
                return 1
    return 0
