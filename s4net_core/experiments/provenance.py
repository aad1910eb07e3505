"""Where numbers come from: settings, versions, seeds, and hashes of the weights and of the data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from s4net_core import __version__
from s4net_core.config import Settings, changed_settings
from s4net_core.errors import S4NetError
from s4net_core.files import creation_time, files_below, open_regular

BLOCK = 1 << 20
"""Bytes that are read at once."""
WITHOUT_EFFECT = (
    *("checkpoint", "state_dir", "source", "device", "threads"),
    *("cockpit", "map", "registration", "adaptation.niceness", "adaptation.duty_cycle", "pretrain.workers"),
)
"""Settings and groups on which no number of a report depends: paths, whose content is hashed instead, what differs from
computer to computer, and what serves other commands and the nodes alone. `cockpit` even has a secret."""
SHOWN = 12
"""Digits of a hash that are shown to people; JSON has all of them."""


@dataclass(frozen=True)
class Provenance:
    """Everything that must be equal to get the same numbers again.

    Args:
        settings: as of `settings_of`, by what they were used for.
        changed: as of `changed_of`.
        seeds: of the runs; empty = nothing was drawn.
        weights: SHA-256 of every weights file, by name.
        data: SHA-256 of every capture, file of other poses and source set (`data_sha256`), by name.
        package: name and version of this package.
        created: UTC, ISO 8601.
    """

    settings: Mapping[str, Any]
    changed: Mapping[str, Any]
    seeds: Sequence[int] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    package: str = f"s4net {__version__}"
    created: str = field(default_factory=creation_time)

    @classmethod
    def of(cls, settings: Settings, *, weights: Mapping[str, str], data: Mapping[str, str]) -> "Provenance":
        """Provenance of numbers without random choices, all with the same settings."""
        return cls(settings_of(settings), changed_of(settings), weights=weights, data=data)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def shown(self) -> dict[str, object]:
        """For people: names and values, hashes cut short."""
        rows: dict[str, object] = {"version": self.package, "created": self.created}
        if self.seeds:
            rows["seeds of the runs"] = ", ".join(map(str, self.seeds))
        rows |= {f"weights: {name}": f"sha256 {sha256[:SHOWN]}" for name, sha256 in self.weights.items()}
        rows |= {f"data: {name}": f"sha256 {sha256[:SHOWN]}" for name, sha256 in self.data.items()}
        return {**rows, **self.changed}

    def lines(self) -> list[str]:
        """`shown`, a line each."""
        return [f"{name}: {value}" for name, value in self.shown().items()]


def settings_of(settings: Settings) -> dict[str, Any]:
    """The settings on which numbers depend, nested: all but those `WITHOUT_EFFECT`."""
    values = settings.model_dump(mode="json")
    for name in WITHOUT_EFFECT:
        group, _, key = name.rpartition(".")
        del (values[group] if group else values)[key]
    return values


def changed_of(settings: Settings) -> dict[str, Any]:
    """The settings on which numbers depend and which differ from the defaults, by dotted name."""
    without = tuple(f"{name}." for name in WITHOUT_EFFECT)
    changed = changed_settings(settings)
    return {name: value for name, value in changed.items() if not f"{name}.".startswith(without)}


def data_sha256(path: str | Path) -> str:
    """SHA-256 over names and contents of a file or of all files of a folder; each path is read once a process.

    Raises:
        S4NetError: it is not there, or cannot be read.
    """
    return _data_sha256(Path(path).resolve())


@cache
def _data_sha256(path: Path) -> str:
    if not path.exists():
        raise S4NetError(f"{path} does not exist: check the path")
    files = [path] if path.is_file() else sorted(files_below(path))
    total = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        try:
            with open_regular(file) as opened:
                while block := opened.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise S4NetError(f"{file} cannot be read ({error}): check its rights") from error
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        total.update(f"{name}\0{digest.hexdigest()}\n".encode())
    return total.hexdigest()
