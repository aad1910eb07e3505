"""Runs an experiment: base models, adaptations, measurements; finished parts are not repeated."""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from s4net_core import __version__
from s4net_core.classes import label_space_of
from s4net_core.config import Settings
from s4net_core.errors import CaptureError, SettingsError
from s4net_core.experiments.experiment import SUPERVISED, SUPERVISED_DEPTH, Experiment, Method, Scene
from s4net_core.experiments.method import (
    TrainedNetwork,
    adapt_base,
    adapt_by_entropy,
    measure_on_images,
    measure_on_scans,
)
from s4net_core.experiments.provenance import Provenance, changed_of, data_sha256, settings_of
from s4net_core.experiments.report import ExperimentReport, joined, write_experiment_report
from s4net_core.experiments.results import Result, ResultStore, key_of
from s4net_core.files import write_result
from s4net_core.frames import Capture, FrameSequence
from s4net_core.io.captures.opening import open_views, pose_file
from s4net_core.io.source_sets.opening import open_source_set, open_test_set
from s4net_core.io.source_sets.source_set import SourceSet
from s4net_core.learning.offline import patience_of
from s4net_core.learning.pretraining import Pretraining, training_settings
from s4net_core.models.checkpoint import common_space, file_sha256, read_info

Progress = Callable[[str, int, int], None]
"""Called with the name of the task, the steps done and the total number of steps; 0 = not known."""


def run_experiments(
    experiments: Mapping[str, Experiment],
    data: Path,
    out: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    keep_weights: bool = False,
    on_progress: Progress = lambda what, done, total: None,
    on_report: Callable[[str, Path], None] = lambda title, folder: None,
) -> list[ExperimentReport]:
    """Run experiments one after the other; all of them are checked before the first one starts.

    Args:
        experiments: by the name of their folder below `out`.
        data, out, overrides, keep_weights, on_progress: as `ExperimentRun`. ``results.md`` in `out` has all tables.
        on_report: called with title and folder when an experiment has been reported on.

    Returns:
        One report a table: experiments that share one are joined.

    Raises:
        SettingsError: as `ExperimentRun`.
        S4NetError: data cannot be read, or results cannot be written.
    """
    runs = {
        name: ExperimentRun(experiment, data, out, overrides, keep_weights=keep_weights, on_progress=on_progress)
        for name, experiment in experiments.items()
    }
    out.mkdir(parents=True, exist_ok=True)  # if that fails, fail now and not after the first run
    tables: dict[str, list[ExperimentReport]] = {}
    for name, run in runs.items():
        report = run.report()
        write_experiment_report(out / name, report)
        on_report(report.title, out / name)
        tables.setdefault(run.experiment.table, []).append(report)
    joint = {table: joined(table, reports) for table, reports in tables.items()}
    for table, reports in tables.items():
        if len(reports) > 1:
            write_experiment_report(out / re.sub(r"\W+", "-", table).strip("-").lower(), joint[table])
    write_result(out / "results.md", "\n".join(report.markdown() for report in joint.values()))
    return list(joint.values())


class ExperimentRun:
    """One experiment on data on disk.

    Base models and results lie in the output folder under a hash of everything that they depend on. Experiments share
    them where they can, and an interrupted experiment is resumed.

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
        self._sources: dict[bool, SourceSet] = {}
        self._unseen: dict[str, float] = {}
        """mIoU on the experiment's `unseen`, by the SHA-256 of the weights."""
        self.shared = experiment.shared_settings(overrides)
        self.methods = {method.name: experiment.method_settings(method, overrides) for method in experiment.methods}
        self._space = label_space_of(self.shared.model.label_space)
        self._check_data()
        for name, settings in self.methods.items():
            try:
                patience_of(settings.adaptation)
            except SettingsError as error:
                raise SettingsError(f"method {name}: {error}") from error

    def _check_data(self) -> None:
        wanted = {self.experiment.source: "the labelled source set"}
        wanted |= {path: f"weights of the base model {name}" for name, path in self.experiment.bases.items()}
        if self.experiment.unseen:
            wanted[self.experiment.unseen] = "the labelled images of places that nobody learned from"
        for scene in self.experiment.places():
            wanted |= {scene.capture: f"the capture of {scene.name} that is adapted to"}
            wanted |= {path: f"{scan} of {scene.name}" for scan, path in scene.scans.items()}
        for scene, base, seed in product(
            self.experiment.places(), self.experiment.bases or ("",), self.experiment.seeds
        ):
            for method in self.experiment.methods:
                if method.kind == "weights":
                    path = method.weights_of(scene.name, base, seed)
                    wanted[path] = f"weights of {method.name} for {scene.name}"
        missing = [f"{self._data / path} ({what})" for path, what in wanted.items() if not (self._data / path).exists()]
        for scene in self.experiment.places():
            try:
                self._poses_sha256(scene)
            except CaptureError as error:
                missing.append(f"the poses of {scene.name} ({error})")
        if missing:
            raise SettingsError(
                f"experiment '{self.experiment.title}' needs data that are not there: {'; '.join(missing)}. Check the "
                "paths; with `s4net experiment` they are relative to --data, and --stand-in lets other data stand in"
            )

    def report(self) -> ExperimentReport:
        """Run what has not been run yet, and report on all of it."""
        bases = {name: self._bases(settings) for name, settings in self.methods.items()}
        results: list[Result] = []
        for scene in self.experiment.places():
            for base in self.experiment.bases or {"": ""}:
                first_users = {found[base]: name for name, found in reversed(bases.items())}
                for path in dict.fromkeys(found[base] for found in bases.values()):
                    results += self._supervised(base, path, self.methods[first_users[path]], scene)
                for seed in self.experiment.seeds:
                    seconds: dict[str, float] = {}
                    for method in self.experiment.methods:
                        limit = seconds[method.seconds_of] if method.seconds_of else None
                        if method.kind == "weights":
                            results += self._given(base, method, seed, scene)
                            continue
                        adapted = self._adapted(base, bases[method.name][base], method, seed, scene, limit)
                        seconds[method.name] = adapted[0].learning.seconds if adapted[0].learning else 0.0
                        results += adapted
        return ExperimentReport(
            title=self.experiment.title,
            results=results,
            provenance={self.experiment.title: self._provenance(bases)},
            published={self.experiment.network: self.experiment.paper},
            notes=self.experiment.notes,
            control=self.experiment.control,
            oracle=next((method.name for method in self.experiment.methods if method.kind == "oracle"), ""),
        )

    # Base models -----------------------------------------------------------------------------------------------------

    def _bases(self, settings: Settings) -> dict[str, Path]:
        """Weights files of the base models for these settings, by name; one is trained when none is given."""
        if self.experiment.bases:
            paths = {name: self._data / path for name, path in self.experiment.bases.items()}
            own = {f"weights file {path}": read_info(path).label_space for path in paths.values()}
            common_space({"the experiment": self._space, **own})
            return paths
        return {"": self._trained(settings)}

    def _trained(self, settings: Settings) -> Path:
        """Weights file of the base model that follows from these settings."""
        images = {"source": self._sha256(self.experiment.source)}
        key = key_of(training_settings(settings.sized(), self._space) | images)
        path = self._out / "bases" / f"{settings.model.architecture}-{key}.safetensors"
        if not path.exists():
            self._train(settings, path)
        return path

    def _train(self, settings: Settings, path: Path) -> None:
        """Train a base model. `path` appears when it is done; the next call resumes an interrupted training."""
        what, steps = f"{self.experiment.network}: base model", settings.pretrain.steps
        unfinished, state = path.with_suffix(".unfinished"), path.with_suffix(".state")
        training = Pretraining(
            settings,
            self._source(with_depth=settings.model.depth_decoder),
            unfinished,
            test=open_test_set(self._data / self.experiment.source, label_space=self._space),
            state=state,
            resume=state.exists(),
        )
        training.run(on_step=lambda report: self._on_progress(what, report.step, steps))
        unfinished.replace(path)
        state.unlink(missing_ok=True)

    # Results ---------------------------------------------------------------------------------------------------------

    def _supervised(self, base: str, path: Path, settings: Settings, scene: Scene) -> list[Result]:
        """What the base model scores without adaptation."""
        method = SUPERVISED_DEPTH if settings.model.depth_decoder else SUPERVISED

        def measure() -> list[Result]:
            return self._measured(TrainedNetwork(path), settings, method, scene)

        return self._once(self._follows_from(path, settings, scene), measure, method, base, scene)

    def _given(self, base: str, method: Method, seed: int, scene: Scene) -> list[Result]:
        """What the weights score that somebody else's method has made."""
        path, settings = self._data / method.weights_of(scene.name, base, seed), self.methods[method.name]
        common_space({"the experiment": self._space, f"weights file {path}": read_info(path).label_space})

        def measure() -> list[Result]:
            return self._measured(TrainedNetwork(path, seed), settings, method.name, scene)

        return self._once(
            {**self._follows_from(path, settings, scene), "seed": seed}, measure, method.name, base, scene
        )

    def _adapted(
        self, base: str, path: Path, method: Method, seed: int, scene: Scene, seconds: float | None
    ) -> list[Result]:
        """What the base model scores after a method has adapted it, for so many CPU seconds at most."""
        changes = {"seed": seed, "checkpoint": str(path), "source": self.shared.source}
        settings = self.methods[method.name].model_copy(deep=True, update=changes)
        what = ", ".join(filter(None, (f"{self.experiment.network}: {method.name}", scene.name, base, f"seed {seed}")))
        follows_from = {
            **self._follows_from(path, settings, scene),
            "settings": settings_of(settings),
            "source": self._sha256(self.experiment.source),
            "capture": self._sha256(scene.capture),
            "poses": self._poses_sha256(scene),
        }
        if method.kind != "s4net" or seconds is not None:  # the seconds differ from run to run: what gave them counts
            timed = settings_of(self.methods[method.seconds_of]) if method.seconds_of else {}
            follows_from |= {"kind": method.kind, "seconds_of": timed}

        def adapt_and_measure() -> list[Result]:
            with tempfile.TemporaryDirectory() as folder:
                network = self._adapt(method, settings, scene, Path(folder), what, seconds)
                if self._keep_weights:
                    self._keep(network.weights, what)
                return self._measured(network, settings, method.name, scene)

        return self._once(follows_from, adapt_and_measure, method.name, base, scene)

    def _adapt(
        self, method: Method, settings: Settings, scene: Scene, folder: Path, what: str, seconds: float | None
    ) -> TrainedNetwork:
        if method.kind == "tent":
            return adapt_by_entropy(settings, self._capture(scene, settings), folder)
        with_depth = read_info(settings.checkpoint).model.depth_decoder
        return adapt_base(
            settings,
            self._capture(scene, settings),
            None if method.kind == "source_free" else self._source(with_depth=with_depth),
            folder,
            kind=method.kind,
            seconds=seconds,
            curve_on=list(self._scans(scene).values())[-1] if self.experiment.unseen else None,
            on_step=lambda step: self._on_progress(what, step, settings.adaptation.max_steps),
        )

    def _once(
        self, follows_from: Mapping[str, Any], make: Callable[[], list[Result]], method: str, base: str, scene: Scene
    ) -> list[Result]:
        """Stored results, or those of `make`, under this experiment's names of method, base and scene."""
        found = self._store.once(follows_from, make)
        return [replace(result, method=method, base=base, scene=scene.name) for result in found]

    def _measured(self, network: TrainedNetwork, settings: Settings, method: str, scene: Scene) -> list[Result]:
        scans, measuring = self._scans(scene), self._measuring(settings)
        results = measure_on_scans(network, scans, measuring, method=method, scene=scene.name)
        if not self.experiment.unseen:
            return results
        sha256 = results[0].weights
        if sha256 not in self._unseen:  # a base model comes once a scene
            images = open_source_set(self._data / self.experiment.unseen, label_space=self._space)
            self._unseen[sha256] = measure_on_images(network.weights, images, measuring)
        return [replace(result, unseen=self._unseen[sha256]) for result in results]

    def _measuring(self, settings: Settings) -> Settings:
        """Shared settings for measuring: methods may define overlap and occlusion differently."""
        return self.shared.model_copy(deep=True, update={"model": settings.model})

    def _follows_from(self, base: Path, settings: Settings, scene: Scene) -> dict[str, Any]:
        return {
            "version": __version__,
            "base": file_sha256(base),
            "measured": {**settings_of(self._measuring(settings)), "every": self.experiment.every},
            "scans": {name: self._sha256(path) for name, path in scene.scans.items()},
            **({"unseen": self._sha256(self.experiment.unseen)} if self.experiment.unseen else {}),
        }

    def _keep(self, weights: Path, what: str) -> None:
        kept = self._out / "weights" / f"{what}.safetensors".replace(": ", "-").replace(", ", "-")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, kept)

    # Data ------------------------------------------------------------------------------------------------------------

    def _source(self, *, with_depth: bool) -> SourceSet:
        """The labelled source set, with depth for networks that learn from it."""
        if with_depth not in self._sources:
            path = self._data / self.experiment.source
            self._sources[with_depth] = open_source_set(path, with_depth=with_depth, label_space=self._space)
        return self._sources[with_depth]

    def _capture(self, scene: Scene, settings: Settings) -> Capture:
        """The capture to adapt to."""
        return open_views(self._data / scene.capture, settings, poses=scene.poses, labels=self._space)

    def _scans(self, scene: Scene) -> dict[str, FrameSequence]:
        """Scans with their own poses: noisy poses are for learning, not for measuring."""
        return {
            name: open_views(self._data / path, self.shared, labels=self._space, stride=self.experiment.every)
            for name, path in scene.scans.items()
        }

    def _sha256(self, path: str) -> str:
        return data_sha256(self._data / path)

    def _poses_sha256(self, scene: Scene) -> str:
        """Of the file that replaces the poses of a scene's capture; empty = none does."""
        return data_sha256(pose_file(self._data / scene.capture, scene.poses)) if scene.poses else ""

    def _provenance(self, bases: Mapping[str, Mapping[str, Path]]) -> Provenance:
        experiment = self.experiment
        changed = changed_of(self.shared)
        if experiment.bases:  # their files say what network they are
            changed = {name: v for name, v in changed.items() if name not in ("model.architecture", "model.encoder")}
        changed |= {f"{method.name}: {key}": v for method in experiment.methods for key, v in method.settings.items()}
        paths = [path for scene in experiment.places() for path in (scene.capture, *scene.scans.values())]
        data = {path: self._sha256(path) for path in filter(None, (experiment.source, experiment.unseen, *paths))}
        poses = {f"poses of {scene.name}": self._poses_sha256(scene) for scene in experiment.places() if scene.poses}
        return Provenance(
            settings={name: settings_of(settings) for name, settings in self.methods.items()},
            changed=changed,
            seeds=experiment.seeds,
            weights={
                f"base {base} of {name}" if base else f"base of {name}": file_sha256(path)
                for name, found in bases.items()
                for base, path in found.items()
            },
            data=data | poses,
        )
