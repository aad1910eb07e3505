"""The folder in which a session saves keyframes and weights, locked as long as the session may still write."""

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.errors import CheckpointError, KeyframeError, S4NetError, SessionClosed
from s4net_core.files import (
    BASE,
    FolderLock,
    open_regular,
    read_file,
    remove_temporaries,
    write_atomically,
    write_result,
)
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.versions import Version, VersionStore
from s4net_core.models.checkpoint import MAX_BYTES, file_sha256, read_info

log = logging.getLogger(__name__)

BOOT = "boot_id"
"""File beside the keyframes: the boot of the computer during which they were taken."""
OF_A_BASE_MODEL = re.compile("[0-9a-f]{12}")
"""Names of the sub-folders: one for each base model, by the start of its hash."""
IN_USE = "wait until it has ended, or use another folder (--state of a command, state_dir elsewhere)"


class StateFolder:
    """Keyframes and versions of one base model on disk.

    The folder is locked for this process. After `close` no new call can begin. A call that still runs keeps the lock
    until it ends, but its further writes are refused.

    If the folder cannot be written, the log says so and the session goes on: somebody may free space on a full disk.
    The first write then takes the lock, or fails.

    Args:
        root: state folder; it holds one sub-folder a base model, so that changing the base model neither mixes weights
            nor loses any.
        base: the base model.
        settings: `model` with an image size, `adaptation.keep_versions` and `keyframes.after_restart`.

    Raises:
        S4NetError: another process uses the folder.
    """

    def __init__(self, root: str | Path, base: Version, settings: Settings) -> None:
        self._root = Path(root).expanduser()
        self._folder = self._root / base.sha256[:12]
        self._original = base
        self._settings = settings
        self._keyframes = self._folder / "keyframes_{}x{}".format(*settings.model.size)
        """By their size, so that a run at another one costs none."""
        self._changed = threading.Condition()
        self._calls = 0
        self._closed = False
        self._lock: FolderLock | None = None
        self._owes_copy = False
        """Whether the folder was removed, with its copy of the base model."""
        self._owes_removal = False
        """Whether the next write removes what earlier sessions have saved."""
        self.problem = ""
        """Why the folder could not be written when that was last tried; empty = it could."""
        try:
            self._take_lock()
            base = self._with_copy(base)
        except OSError as error:
            self.problem = self._unwritable(error)
            log.error("nothing is saved: %s", self.problem)
        self.versions = VersionStore(base, self._folder, settings.adaptation.keep_versions)

    @contextmanager
    def call(self) -> Iterator[None]:
        """A block in which the caller may write; the lock is held until it ends.

        Raises:
            SessionClosed: the folder was closed before or during the block, so that its result is not used.
        """
        with self._changed:
            self._check_open()
            self._calls += 1
        try:
            yield
            with self._changed:
                self._check_open()
        finally:
            with self._changed:
                self._calls -= 1
                self._release_if_idle()
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[VersionStore]:
        """One write, inside a `call`; yields the versions, which may be changed in the block.

        Raises:
            SessionClosed: the folder is closed.
            S4NetError: another process uses the folder, or it cannot be written.
        """
        with self._changed:
            self._check_open()
        try:
            with self._changed:
                self._take_lock()
            if self._owes_copy:
                self._copy_again()
            if self._owes_removal:
                self._remove_saved()
            if self.versions.owes_write:
                self.versions.save()
            yield self.versions
        except OSError as error:
            self.problem = self._unwritable(error)
            raise S4NetError(self.problem) from error
        except S4NetError as error:
            self.problem = str(error)
            raise
        self.problem = ""

    def close(self, timeout: float = 0.0) -> bool:
        """Refuse further calls and writes, and unlock the folder when the last call has ended.

        Args:
            timeout: how long to wait for the last call, seconds.

        Returns:
            Whether the folder is unlocked.
        """
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._calls, timeout)
            self._release_if_idle()
            return not self._calls

    def check_target(self, path: Path) -> None:
        """As `check_target` for this folder and its base model."""
        check_target(path, self._original.path, self._root)

    def replace_saved(self) -> None:
        """Remove what earlier sessions have saved, of all base models, with the first write.

        Until then this session may still be refused, and has cost nothing.
        """
        self._owes_removal = True

    def _remove_saved(self) -> None:
        """The lock and this base model's copy stay."""
        own = [entry for entry in self._folder.iterdir() if entry.name != BASE]
        others = [entry for entry in self._root.iterdir() if OF_A_BASE_MODEL.fullmatch(entry.name)]
        for entry in own + [entry for entry in others if entry != self._folder]:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self._owes_removal = False

    def load_keyframes(self, keyframes: KeyframeBuffer) -> None:
        """Load saved keyframes that still fit; the log says what was left out, and why."""
        for problem in self._load_keyframes(keyframes):
            log.warning("saved keyframes: %s", problem)

    def save_keyframes(self, keyframes: KeyframeBuffer) -> None:
        """Write the keyframes that are not on disk yet.

        Raises:
            KeyframeError, S4NetError: the folder cannot be written.
            SessionClosed: it is closed.
        """
        with self.write():
            keyframes.save(self._keyframes)
            write_result(self._keyframes / BOOT, boot_id(), KeyframeError)

    def forget_keyframes(self) -> None:
        """Remove the keyframes of other sizes.

        Raises:
            S4NetError: the folder cannot be written.
            SessionClosed: it is closed.
        """
        with self.write():
            for folder in self._folder.glob("keyframes_*"):
                if folder != self._keyframes:
                    shutil.rmtree(folder)

    def _load_keyframes(self, keyframes: KeyframeBuffer) -> list[str]:
        folder = self._keyframes
        rule = self._settings.keyframes.after_restart
        if rule == "drop":
            return []
        if not folder.is_dir():
            others = ", ".join(sorted(path.name for path in self._folder.glob("keyframes_*")))
            return [f"{others} stay, but are not used by {folder.name}: images have another size now"] if others else []
        if rule == "same_boot" and boot_id() != _read_text(folder / BOOT):
            return ["left out, the computer was restarted since (setting keyframes.after_restart)"]
        try:
            return keyframes.load(folder)
        except KeyframeError as error:
            return [str(error)]

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed(f"the session of {self._folder} is closed: nothing is saved any more")

    def _unwritable(self, error: OSError) -> str:
        return f"state folder {self._root} cannot be written ({error}): check its rights and free space"

    def _take_lock(self) -> None:
        """Lock the folder, again if somebody has removed it: another process may have made and locked a new one."""
        if self._lock is not None and not self._lock.holds:
            self._owes_copy = True
            log.error("state folder %s was removed: what it held is lost", self._root)
            self._lock.release()
            self._lock = None
        if self._lock is None:
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self._root, IN_USE)
            for folder in (self._root, self._folder, self._folder / "weights"):
                remove_temporaries(folder)

    def _copy_again(self) -> None:
        """Make the copy of the base model anew: without its file a roll-back to it cannot be announced."""
        original = self._original
        if _is_file_with(original.path, original.sha256):
            self._with_copy(original)
        else:
            log.error("%s is gone or changed, and its copy is gone: nodes cannot go back to it", original.path)
        self._owes_copy = False

    def _with_copy(self, base: Version) -> Version:
        """The base model as its copy in the folder."""
        copy = self._folder / BASE
        if not _is_file_with(copy, base.sha256):
            write_atomically(copy, read_file(base.path, MAX_BYTES))
            if not _is_file_with(copy, base.sha256):  # it was replaced after it had been loaded
                copy.unlink()
                raise OSError(f"{base.path} has changed while it was read")
        return replace(base, path=copy)

    def _release_if_idle(self) -> None:
        if self._closed and not self._calls and self._lock is not None:
            self._lock.release()
            self._lock = None


def check_target(path: Path, base: Path, root: Path) -> None:
    """Refuse to write weights to a place where something else would be lost.

    Args:
        path: file that somebody has asked for.
        base: weights file of the base model.
        root: state folder.

    Raises:
        CheckpointError: it is the base model, belongs to the state, or is there and no weights file of ours.
    """
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if real == Path(os.path.realpath(base)):
        raise CheckpointError(f"{path} is the base model: name another file")
    inside = real.relative_to(root).parts if root in real.parents else ()
    if real.name.startswith(".") or (len(inside) > 1 and OF_A_BASE_MODEL.fullmatch(inside[0])):
        raise CheckpointError(f"{path} is hidden or lies in a folder of the state in {root}: name another file")
    if os.path.lexists(path):
        try:
            read_info(path)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is there and is not overwritten: {error}") from error


def boot_id() -> str:
    """Id of this computer's current boot; empty if the system has none."""
    return _read_text(Path("/proc/sys/kernel/random/boot_id"))


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(4096).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        log.warning("%s is left out: %s", path, error)
        return ""


def _is_file_with(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except CheckpointError:
        return False
