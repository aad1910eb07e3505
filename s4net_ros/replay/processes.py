"""Child processes with log files, which end with their parent even when it is killed."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from s4net_core.errors import S4NetError

TAIL_LINES = 25
"""Last lines of a dead child's log that the error shows."""
GRACE = ((signal.SIGINT, 10.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))
"""Signals that end a child, each with the seconds it then gets."""
_PR_SET_PDEATHSIG = 1


class ChildDied(S4NetError):
    """A child process ended although it should still be running.

    Args:
        what: which one, and its exit code.
        log: file of what it wrote.
        tail: end of the log.
    """

    def __init__(self, what: str, log: Path, tail: str) -> None:
        super().__init__(f"{what}; the end of {log}:\n{tail}")
        self.what = what


class Child:
    """One process in a group of its own, with a log file.

    Args:
        name: used in messages.
        command: argument list.
        log: file that takes stdout and stderr; appended to.
        environment: added to this process' own.
        own_session: whether it has a session of its own, as below.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], *, own_session: bool = True
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},  # else a log is out of order
                # Either way Ctrl-C reaches the parent alone, which then ends the children in order.
                start_new_session=own_session,
                preexec_fn=_die_with_parent if own_session else _lead_a_group,
            )

    @property
    def pid(self) -> int:
        """Process id, which is the id of its group too."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs, negative when a signal ended it."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; no error if the group has ended."""
        with suppress(ProcessLookupError):  # the group may have ended already
            os.killpg(self._process.pid, number)

    def wait(self, timeout: float) -> int | None:
        """Exit code, or None when it still runs after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """End of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Children:
    """The children of a ``with`` block; when it is left, all are ended, the last started first.

    Args:
        logs: folder for ``<name>.log``.
        environment: added to every child's environment.
        own_sessions: whether each has a session of its own. Linux shares the CPU between sessions (autogroup), so that
            a child's niceness then means nothing to the others; under ``ros2 launch`` all nodes share one session.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], *, own_sessions: bool = True) -> None:
        self._logs = logs
        self._own_sessions = own_sessions
        self._environment = environment
        self._children: dict[str, Child] = {}
        self._may_end: dict[str, tuple[int, ...]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        may_end: tuple[int, ...] = (),
    ) -> Child:
        """Start a child; `name` may be used again once its predecessor has ended.

        Args:
            name: of the child and its log.
            command: argument list.
            environment: for this child alone.
            may_end: exit codes with which it may end by itself.
        """
        given, log = {**self._environment, **(environment or {})}, self._logs / f"{name}.log"
        child = Child(name, command, log, given, own_session=self._own_sessions)
        self._children[name] = child
        self._may_end[name] = may_end
        return child

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    def check(self) -> None:
        """Check that every child is running, or has ended as it may.

        Raises:
            ChildDied: one ended otherwise; shows the end of its log.
        """
        for name, child in self._children.items():
            if child.code is not None and child.code not in self._may_end[name]:
                raise ChildDied(f"{name} ended with exit code {child.code}", child.log, child.tail())

    def stop(self) -> None:
        """End all children: SIGINT, then SIGTERM, then SIGKILL, to whole process groups."""
        at_first = [child for child in self._children.values() if child.code is None]
        for number, grace in GRACE:
            running = [child for child in reversed(at_first) if child.code is None]
            for child in running:
                child.send(number)
            deadline = time.monotonic() + grace
            for child in running:
                child.wait(max(0.0, deadline - time.monotonic()))
        for child in at_first:
            child.send(signal.SIGKILL)  # grandchildren that outlived their parent

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave orphans behind.
        old = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGINT, old)


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """In the child, before it becomes the program: SIGTERM when the parent is gone, even if it was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _lead_a_group() -> None:
    """As `_die_with_parent`, and in a process group of its own."""
    os.setpgid(0, 0)
    _die_with_parent()
