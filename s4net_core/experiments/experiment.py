"""An experiment, in memory or as a file: which data, which networks, which methods, and what the paper reached."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s4net_core.config import Settings, read_yaml, with_values
from s4net_core.errors import SettingsError, did_you_mean, place_and_problem
from s4net_core.evaluation.summary import DEPTH, SEGMENTATION
from s4net_core.experiments.results import NETWORKS
from s4net_core.io.captures.scannet import PAPER_SCENES, paper_scan

SUPERVISED, SUPERVISED_DEPTH = "supervised", "supervised, with depth decoder"
"""Rows of the base models that adaptation starts from."""
SCANS = ("Scan 1", "Scan 2")
"""The paper's two recordings of a scene: adapted to without its labels, and never seen."""


class _Part(BaseModel):
    """Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scene(_Part):
    """A place.

    Args:
        name: of the place.
        capture: the capture to adapt to; its labels are not used.
        scans: labelled captures to measure on, by name; the first one is usually `capture` itself.
        poses: another file of poses for `capture`, as `open_capture` takes it; scans keep their own.
    """

    name: str
    capture: str
    scans: dict[str, str] = Field(min_length=1)
    poses: str = ""


class Method(_Part):
    """One way to adapt.

    Args:
        name: of its rows in the tables, as the paper calls it.
        kind: ``s4net`` = what the settings say; ``oracle`` = the same with the true labels of the capture, the ceiling;
            ``own_labels`` = self-training on what the base model says of each view alone; ``source_free`` = without the
            source set; ``tent`` = entropy minimisation, see `experiments.tent`; ``weights`` = a method of your own, of
            which `weights` are measured.
        weights: with that kind, a weights file for each scene, base model and seed, which stand in its name as
            ``{scene}``, ``{base}`` (empty where none is named) and ``{seed}``.
        settings: what differs from the experiment's settings, nested or by dotted name.
        seconds_of: name of an earlier method: learning ends when it has used as many CPU seconds as that one did in the
            same scene, from the same base and with the same seed; empty = as the settings say.
    """

    name: str
    kind: Literal["s4net", "oracle", "own_labels", "source_free", "tent", "weights"] = "s4net"
    weights: str = ""
    settings: dict[str, Any] = {}
    seconds_of: str = ""

    def weights_of(self, scene: str, base: str, seed: int) -> str:
        """Its `weights` for a scene, base model and seed."""
        names = {"{scene}": scene, "{base}": base, "{seed}": str(seed)}
        return reduce(lambda path, name: path.replace(name, names[name]), names, self.weights)


class Experiment(_Part):
    """What `ExperimentRun` runs. Paths are relative to a folder of data that is given with it.

    Args:
        title: heading.
        table: experiments with the same name here are rows of one table.
        source: labelled source set.
        scenes: places; instead, `scannet` may be the folder ``scans`` of ScanNet, for the paper's six scenes.
        poses: as of `Scene`, for all places that name none of their own.
        every: n; scans are measured on every n-th frame.
        bases: weights files of base models by name, each of which is adapted; empty = one is trained on the source set
            first.
        unseen: labelled source set of places that nobody learned from, to measure what is forgotten; the learner is
            then also measured at each hand-over, see `Learning`. Empty = neither.
        control: name of the method that the others are compared with beside the base model; empty = none.
        settings: what differs from the defaults, in training as in adaptation, nested or by dotted name.
        methods: each adapts the base model once a scene and seed.
        seeds: of the adaptations.
        paper: the paper's numbers: method, scan, name of the score.
        notes: paragraphs for the report.
    """

    title: str
    table: str
    source: str
    scenes: tuple[Scene, ...] = ()
    poses: str = ""
    scannet: str = ""
    every: int = Field(default=1, ge=1)
    bases: dict[str, str] = {}
    unseen: str = ""
    control: str = ""
    settings: dict[str, Any] = {}
    methods: tuple[Method, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    paper: dict[str, dict[str, dict[str, float]]] = {}
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> "Experiment":
        """Checks that involve several fields."""
        if bool(self.scenes) == bool(self.scannet):
            raise SettingsError("it must have either scenes or scannet")
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise SettingsError(f"two methods have one name in {names}")
        for number, method in enumerate(self.methods):
            timed = [earlier.name for earlier in self.methods[:number] if earlier.kind != "weights"]
            if method.seconds_of and (method.kind == "weights" or method.seconds_of not in timed):
                raise SettingsError(
                    f"method {method.name} has seconds_of '{method.seconds_of}': name an earlier method that learns"
                )
        if self.control and self.control not in names:
            raise SettingsError(f"control is '{self.control}', but the methods are {names}")
        rows, scores = {SUPERVISED, SUPERVISED_DEPTH, *names}, {*SEGMENTATION, *DEPTH}
        known = {name for scene in self.places() for name in scene.scans}
        for published, scans in self.paper.items():
            foreign = set(scans) - known | {name for values in scans.values() for name in values if name not in scores}
            if published not in rows or foreign:
                raise SettingsError(
                    f"paper has '{published}' with {sorted(foreign) or 'its scores'}, but rows are {sorted(rows)}, "
                    f"scans {sorted(known)} and scores {sorted(scores)}"
                )
        for chosen in self.methods:
            try:
                if (chosen.kind == "weights") != bool(chosen.weights):
                    raise SettingsError("kind weights and a name of weights files belong together")
                settings = self.method_settings(chosen)
                if chosen.seconds_of and settings.adaptation.steps_per_keyframe:
                    raise SettingsError(
                        f"adaptation.steps_per_keyframe would end it before {chosen.seconds_of}'s seconds: set it to 0"
                    )
                if chosen.kind == "tent" and not settings.adaptation.max_steps:
                    raise SettingsError("entropy has no end of its own: set adaptation.max_steps")
            except SettingsError as error:
                raise SettingsError(f"method {chosen.name}: {error}") from error
        return self

    def places(self) -> list[Scene]:
        """`scenes`, or the paper's six of ScanNet."""
        scenes = self._paper_scenes() if self.scannet else self.scenes
        return [scene.model_copy(update={"poses": scene.poses or self.poses}) for scene in scenes]

    def _paper_scenes(self) -> list[Scene]:
        scans = Path(self.scannet)
        paths = {scene: [str(paper_scan(scans, scene, number)) for number in (1, 2)] for scene in PAPER_SCENES}
        return [
            Scene(name=scene, capture=first, scans=dict(zip(SCANS, (first, second), strict=True)))
            for scene, (first, second) in paths.items()
        ]

    def shared_settings(self, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Settings without those of a method.

        Args:
            overrides: nested or dotted names; they win over the experiment's own.

        Raises:
            SettingsError: unknown name, wrong type or out of range.
        """
        return _layered(self.settings, overrides or {})

    def method_settings(self, method: Method, overrides: Mapping[str, Any] | None = None) -> Settings:
        """As `shared_settings`, with those of a method, which win over `overrides`."""
        return _layered(self.settings, overrides or {}, method.settings)

    @property
    def network(self) -> str:
        """Architecture, as the paper writes it."""
        return NETWORKS[self.shared_settings().model.architecture]


def load_experiment(path: str | Path, stand_in: str = "") -> Experiment:
    """Read an experiment's YAML file.

    ``extends: OTHER.yaml`` starts from that file in the same folder: mappings are merged, anything else is replaced.
    ``stand_ins: NAME: ...`` holds the changes for other data that stand in for the paper's.

    Args:
        path: the file.
        stand_in: name of the data that stand in; empty = the paper's own.

    Raises:
        SettingsError: a file cannot be read, has an unknown name, or has no such stand-in.
    """
    values = _read(Path(path), ())
    stand_ins = values.pop("stand_ins", {})
    if not isinstance(stand_ins, dict) or not all(isinstance(changes, dict) for changes in stand_ins.values()):
        raise SettingsError(f"experiment {path}: stand_ins must hold a table of changes for each name")
    if stand_in and stand_in not in stand_ins:
        known = ", ".join(map(str, stand_ins)) or "none"
        raise SettingsError(f"experiment {path} has no stand-in '{stand_in}', only: {known}")
    if stand_in:
        values = _merged(values, stand_ins[stand_in])
        for name in ("title", "table"):  # so that nobody takes them for results on the paper's data
            values[name] = f"{values.get(name, '')} (stand-in: {stand_in})"
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        deeper = {e["loc"][0] for e in found if len(e["loc"]) > 1}  # a list whose items are at fault counts as empty
        problems = [
            _problem(e["loc"], e["type"], e["msg"])
            for e in found
            if e["type"] != "too_short" or len(e["loc"]) > 1 or e["loc"][0] not in deeper
        ]
        raise SettingsError(f"experiment {path}: {'; '.join(problems)}") from error


def _problem(where: Sequence[int | str], kind: str, message: str) -> str:
    """What pydantic has found, for somebody who writes YAML."""
    place, message = place_and_problem(where, message)
    if kind == "extra_forbidden":
        parts: dict[int | str, type[_Part]] = {"methods": Method, "scenes": Scene}
        hint = did_you_mean(str(where[-1]), parts.get(where[0], Experiment).model_fields)
        message = ", ".join(filter(None, ("there is no such name", hint)))
    elif kind == "tuple_type":
        message = "it must be a list"
    return f"{place}: {message}" if place else message


def _read(path: Path, readers: Sequence[Path]) -> dict[str, Any]:
    """The file and what it extends, merged."""
    if path in readers:
        raise SettingsError(f"experiment {readers[0]} extends itself: {' -> '.join(p.name for p in (*readers, path))}")
    values = read_yaml(path, "experiment")
    if not isinstance(values, dict):
        what = "nothing" if values is None else type(values).__name__
        raise SettingsError(f"experiment {path} holds {what}: it must hold names and values")
    base = values.pop("extends", "")
    if not isinstance(base, str):
        raise SettingsError(f"experiment {path} extends {base!r}: give the name of a file in the same folder")
    return _merged(_read(path.parent / base, (*readers, path)), values) if base else values


def _layered(*layers: Mapping[str, Any]) -> Settings:
    """The defaults, changed by one layer after the other."""
    return reduce(with_values, map(dict, layers), Settings())


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else of `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
