"""Runs an experiment of the paper: base models, adaptations, measurements; what is there already is not done again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from s4net_core import __version__
from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.paper_report import PaperReport
from s4net_core.evaluation.provenance import Provenance, changed_settings, data_sha256, settings_of
from s4net_core.evaluation.results import Result
from s4net_core.frames import Frame, FrameSource
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.source_sets.opening import open_source_set, open_test_set
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.compare import adapt_and_measure, measure_scans
from s4net_core.learning.experiment import SCANS, SUPERVISED, SUPERVISED_DEPTH, Experiment, Method, Scene
from s4net_core.learning.pretraining import Pretraining
from s4net_core.learning.result_store import ResultStore, key_of
from s4net_core.models.checkpoint import file_sha256

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the steps done and all of them; 0 = not known."""


class ExperimentRun:
    """One experiment on data on disk.

    Base models and results lie in the output folder under a hash of what they follow from: experiments that have some
    in common share them, and an experiment that was interrupted goes on where it was.

    Args:
        experiment: what to run.
        data: folder to which its paths are relative.
        out: folder for ``bases/``, ``runs/`` and ``weights/``.
        overrides: settings, nested or by dotted name; they win over the experiment's, but not over those of a method.
        keep_weights: keep adapted weights, in ``weights/``.
        on_progress: called after every step.

    Raises:
        SettingsError: data are missing (all of them are named), or the settings are wrong or would never end.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Path,
        out: Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        keep_weights: bool = False,
        on_progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.experiment = experiment
        self._data, self._out, self._keep_weights = data, out, keep_weights
        self._on_progress = on_progress
        self._store = ResultStore(out / "runs")
        self.shared = experiment.shared_settings(overrides)
        self.methods = {method.name: experiment.method_settings(method, overrides) for method in experiment.methods}
        self._check_data()
        for name, settings in self.methods.items():
            if not settings.adaptation.max_steps and not settings.adaptation.patience:
                raise SettingsError(f"method {name} would never end: set adaptation.max_steps or adaptation.patience")

    def _check_data(self) -> None:
        wanted = {self.experiment.source: "the labelled source set"}
        if self.experiment.base:
            wanted[self.experiment.base] = "weights of the base model"
        for scene in self.experiment.places():
            wanted |= {scene.scan1: f"{SCANS[0]} of {scene.name}", scene.scan2: f"{SCANS[1]} of {scene.name}"}
        missing = [f"{self._data / path} ({what})" for path, what in wanted.items() if not (self._data / path).exists()]
        if missing:
            raise SettingsError(
                f"experiment '{self.experiment.title}' needs data that are not there: {'; '.join(missing)}. Give the "
                "folder that holds them with --data, or let other data stand in with --stand-in"
            )

    def report(self) -> PaperReport:
        """Run what has not been run yet, and report on all of it."""
        bases = {name: self._base(settings) for name, settings in self.methods.items()}
        results: list[Result] = []
        for scene in self.experiment.places():
            first_users = {base: name for name, base in reversed(bases.items())}
            for base in dict.fromkeys(bases.values()):
                results += self._supervised(base, self.methods[first_users[base]], scene)
            for method in self.experiment.methods:
                for seed in self.experiment.seeds:
                    results += self._adapted(bases[method.name], method, seed, scene)
        return PaperReport(
            title=self.experiment.title,
            results=results,
            provenance={self.experiment.title: self._provenance(bases)},
            published={self.experiment.network: self.experiment.paper},
            notes=self.experiment.notes,
        )

    def _base(self, settings: Settings) -> Path:
        """Weights file of the base model for these settings; trained when there is none yet."""
        if self.experiment.base:
            return self._data / self.experiment.base
        content = settings_of(settings)
        follows_from = {name: content[name] for name in ("seed", "model", "pretrain")}
        follows_from |= {"holdout": settings.guard.holdout, "mirror": settings.learner.mirror}
        follows_from["auxiliary_weight"] = settings.learner.auxiliary_weight
        follows_from["source"] = self._sha256(self.experiment.source)
        path = self._out / "bases" / f"{settings.model.architecture}-{key_of(follows_from)}.safetensors"
        if not path.exists():
            self._train(settings, path)
        return path

    def _train(self, settings: Settings, path: Path) -> None:
        """Train a base model. `path` is there when it is done; one that was interrupted goes on with the next call."""
        what, steps = f"{self.experiment.network}: base model", settings.pretrain.steps
        unfinished, state = path.with_suffix(".unfinished"), path.with_suffix(".state")
        training = Pretraining(
            settings,
            self._source,
            unfinished,
            test=open_test_set(self._data / self.experiment.source),
            state=state,
            resume=state.exists(),
        )
        training.run(on_step=lambda report: self._on_progress(what, report.step, steps))
        unfinished.replace(path)
        state.unlink(missing_ok=True)

    def _supervised(self, base: Path, settings: Settings, scene: Scene) -> list[Result]:
        method = SUPERVISED_DEPTH if settings.model.depth_decoder else SUPERVISED
        measuring = self._measuring(settings)
        found = self._store.once(
            self._follows_from(base, measuring, scene),
            lambda: measure_scans(base, measuring, self._scans(scene), method=method, scene=scene.name),
        )
        return [replace(result, method=method, scene=scene.name) for result in found]

    def _adapted(self, base: Path, method: Method, seed: int, scene: Scene) -> list[Result]:
        settings = self.methods[method.name].model_copy(
            deep=True, update={"seed": seed, "checkpoint": str(base), "source": self.shared.source}
        )
        measuring = self._measuring(settings)
        what, steps = f"{self.experiment.network}: {method.name}, {scene.name}", settings.adaptation.max_steps
        weights = self._out / "weights" / f"{what}, seed {seed}.safetensors".replace(": ", "-").replace(", ", "-")
        found = self._store.once(
            {
                **self._follows_from(base, measuring, scene),
                "settings": settings_of(settings),
                "source": self._sha256(self.experiment.source),
                "poses": scene.poses,
            },
            lambda: adapt_and_measure(
                settings,
                open_capture(
                    self._data / scene.scan1,
                    stream=settings.stream,
                    poses=scene.poses,
                    with_depth=settings.geometry.from_sensor,
                ),
                self._source,
                self._scans(scene),
                measuring=measuring,
                keep=weights if self._keep_weights else None,
                on_step=lambda step: self._on_progress(what, step, steps),
            ),
        )
        return [replace(result, method=method.name, scene=scene.name) for result in found]

    def _measuring(self, settings: Settings) -> Settings:
        """Methods may differ in what counts as overlap or occluded; all are measured with the same."""
        return self.shared.model_copy(deep=True, update={"model": settings.model})

    def _follows_from(self, base: Path, measuring: Settings, scene: Scene) -> dict[str, Any]:
        return {
            "version": __version__,
            "base": file_sha256(base),
            "measured": {**settings_of(measuring), "every": self.experiment.every},
            "scans": [self._sha256(scene.scan1), self._sha256(scene.scan2)],
        }

    @cached_property
    def _source(self) -> SourceSet:
        with_depth = any(settings.model.depth_decoder for settings in self.methods.values())
        return open_source_set(self._data / self.experiment.source, with_depth=with_depth)

    def _scans(self, scene: Scene) -> dict[str, FrameSource]:
        """Both scans with their exact poses: noisy ones are what is learned from, not measured by."""
        scans = zip(SCANS, (scene.scan1, scene.scan2), strict=True)
        every = self.experiment.every
        return {name: Thinned(open_capture(self._data / p, stream=self.shared.stream), every) for name, p in scans}

    def _sha256(self, path: str) -> str:
        return data_sha256(self._data / path)

    def _provenance(self, bases: Mapping[str, Path]) -> Provenance:
        experiment = self.experiment
        changed = changed_settings(self.shared)
        changed |= {f"{method.name}: {key}": v for method in experiment.methods for key, v in method.settings.items()}
        paths = [experiment.source, *(path for scene in experiment.places() for path in (scene.scan1, scene.scan2))]
        return Provenance(
            settings={name: settings_of(settings) for name, settings in self.methods.items()},
            changed=changed,
            seeds=experiment.seeds,
            weights={f"base of {name}": file_sha256(base) for name, base in bases.items()},
            data={path: self._sha256(path) for path in paths},
        )


@dataclass(frozen=True)
class Thinned:
    """Every n-th frame of a capture."""

    capture: FrameSource
    every: int

    @property
    def name(self) -> str:
        """Of the capture."""
        return self.capture.name

    @property
    def skipped(self) -> dict[str, int]:
        """Of the capture."""
        return self.capture.skipped

    def __len__(self) -> int:
        """As the capture's, divided."""
        return -(-len(self.capture) // self.every)

    def __iter__(self) -> Iterator[Frame]:
        """In time order."""
        return islice(iter(self.capture), 0, None, self.every)
