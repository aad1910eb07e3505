"""The versions of one base model on disk: which serves, which a roll-back can reach, which survive a restart."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from s4net_core.errors import CheckpointError
from s4net_core.files import read_json, write_result
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """Weights that may serve: a file that is complete on disk.

    Args:
        number: 0 = the base model; rises with every hand-over and is never used twice.
        path: weights file.
        sha256: of that file.
        info: its metadata.
    """

    number: int
    path: Path
    sha256: str
    info: CheckpointInfo


class VersionStore:
    """Good versions, oldest first; the base model is the first and is never removed.

    Args:
        base: the base model.
        folder: weights files and ``state.json``.
        keep: versions kept beside the base model.
    """

    def __init__(self, base: Version, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._good = [base]
        self._last_number = 0
        self.steps = 0
        """Learner steps when a version was last added, dropped since or not; a resumed run counts on from here."""
        self.steps_before_views = 0
        """How many of these were made before the keyframes of now, in places whose keyframes were not kept; every write
        saves it."""
        self.since: dict[str, float] = {}
        """What hand-overs since then have changed of the current version's metrics."""
        self.owes_write = False
        """Whether versions were given up and no write has saved that since."""
        self._given_up: list[Path] = []
        """Weights files that the next write removes."""

    @property
    def current(self) -> Version:
        """The version that serves now."""
        return self._good[-1]

    def load(self, version: Version) -> SegmentationNetwork:
        """The network of a version.

        Raises:
            CheckpointError: its file has been damaged or removed.
        """
        return load_checkpoint(version.path, sha256=version.sha256)[0]

    def add(self, network: SegmentationNetwork, steps: int, metrics: dict[str, float]) -> Version:
        """Write weights as the next version, which serves from now on.

        Raises:
            CheckpointError: the file cannot be written; the old version keeps serving.
        """
        number = self._last_number + 1
        version = self._save(network, number, steps, metrics)
        kept = self._good[1:][-(self._keep - 1) :] if self._keep > 1 else []
        good = [*kept, version]
        self._write(good, number, steps, {})
        self._given_up += [version.path for version in self._good[1:] if version not in good]
        self._good[1:] = good
        self._last_number, self.steps, self.since = number, steps, {}
        self._remove_given_up()
        return version

    def _save(self, network: SegmentationNetwork, number: int, steps: int, metrics: dict[str, float]) -> Version:
        parent, path = self.current.sha256, self._path(number)
        info = CheckpointInfo(model=network.settings, version=number, parent=parent, step=steps, metrics=metrics)
        return Version(number, path, save_checkpoint(path, network, info), info)

    def note(self, metrics: dict[str, float]) -> None:
        """Keep metrics for `since`, beside the current version's own.

        Raises:
            CheckpointError: they cannot be written.
        """
        self._write(self._good[1:], self._last_number, self.steps, metrics)
        self.since = metrics

    def drop_current(self) -> Version:
        """Back to the version before the current one, at once; the base model stays. `save` writes it down.

        Returns:
            The version that serves now.
        """
        self._give_up(self._good[1:][-1:])
        return self.current

    def clear(self) -> Version:
        """Back to the base model, as `drop_current`; numbers go on rising: nodes may still know the old ones."""
        self._give_up(self._good[1:])
        self.steps = self.steps_before_views = 0
        return self.current

    def _give_up(self, versions: list[Version]) -> None:
        self._given_up += [version.path for version in versions]
        self._good = [version for version in self._good if version not in versions]
        self.since = {}
        self.owes_write = True

    def save(self) -> None:
        """Write which versions are left, and remove the files of the others.

        Raises:
            CheckpointError: it cannot be written.
        """
        self._write(self._good[1:], self._last_number, self.steps, self.since)
        self._remove_given_up()

    def _remove_given_up(self) -> None:
        good = {version.path for version in self._good}  # one may have got the name of what a crash has left behind
        while self._given_up:
            if self._given_up[-1] not in good:
                self._given_up[-1].unlink(missing_ok=True)
            self._given_up.pop()

    def resume(self) -> None:
        """Load the versions of an earlier run; damaged ones are named in the log and left out."""
        path = self._folder / "state.json"
        try:
            state = read_json(path)
            last_number, steps = int(state["last_number"]), int(state["steps"])
            before = min(int(state.get("steps_before_views", 0)), steps)
            known = [(int(v["number"]), str(v["sha256"])) for v in state["versions"]]
            since = {str(name): float(value) for name, value in state.get("since", {}).items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s): starting from the base model", path, error)
            self._last_number = max((int(p.stem) for p in self._weights() if p.stem.isdigit()), default=0)
            return
        self._last_number, self.steps, self.steps_before_views = last_number, steps, before
        named = {self._path(number) for number, _ in known}
        self._given_up = [path for path in self._weights() if path not in named]  # what a crash has left behind
        for number, sha256 in known:
            try:
                _, info = load_checkpoint(self._path(number), expect=self._good[0].info, sha256=sha256)
            except CheckpointError as error:
                log.warning("version %d is left out: %s", number, error)
                continue
            self._good.append(Version(number, self._path(number), sha256, info))
        if self.current.number == (known[-1][0] if known else 0):  # it says nothing of an earlier version
            self.since = since

    def _path(self, number: int) -> Path:
        return self._folder / "weights" / f"{number:06d}.safetensors"

    def _weights(self) -> list[Path]:
        return sorted((self._folder / "weights").glob("*.safetensors"))

    def _write(self, kept: list[Version], last_number: int, steps: int, since: dict[str, float]) -> None:
        state = {
            "last_number": last_number,
            "steps": steps,
            "steps_before_views": min(self.steps_before_views, steps),
            "since": since,
            "versions": [{"number": v.number, "sha256": v.sha256} for v in kept],
        }
        write_result(self._folder / "state.json", json.dumps(state, indent=1), CheckpointError)
        self.owes_write = False


def base_version(path: str | Path) -> tuple[SegmentationNetwork, Version]:
    """The base model as version 0.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    path = Path(path).expanduser()
    sha256 = file_sha256(path)
    network, info = load_checkpoint(path, sha256=sha256)
    return network, Version(0, path, sha256, info)
