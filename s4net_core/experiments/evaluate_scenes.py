"""Networks that are there already, measured on several scenes: a report in the layout of the paper."""

from collections.abc import Mapping

from s4net_core.config import Settings
from s4net_core.experiments.method import TrainedNetwork, measure_on_scans
from s4net_core.experiments.provenance import Provenance, data_sha256
from s4net_core.experiments.report import ExperimentReport
from s4net_core.experiments.results import Result
from s4net_core.io.captures.opening import open_views
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.checkpoint import common_space, file_sha256, read_info

OF_SCENE = "{scene}"
"""Stands for the scene's name in the path of a weights file."""


def evaluate_scenes(
    networks: Mapping[str, str], scenes: Mapping[str, Mapping[str, str]], settings: Settings, *, poses: str = ""
) -> ExperimentReport:
    """Measure every network on every scan.

    Args:
        networks: at least one: weights file by how it was trained, named as in `base_model_file`; `OF_SCENE` in it is
            replaced by the scene's name.
        scenes: at least one: paths of labelled captures by the name of the scan, by the name of the scene.
        settings: the image size is each network's own unless it is set.
        poses: as `open_capture`.

    Raises:
        CaptureError: a scan cannot be read, or has no label.
        CheckpointError: weights cannot be loaded, or networks have different classes.
    """
    results: list[Result] = []
    weights: dict[str, str] = {}
    data: dict[str, str] = {}
    files = {
        (method, scene): base_model_file(file.replace(OF_SCENE, scene), settings.model)
        for method, file in networks.items()
        for scene in scenes
    }
    space = common_space({f"weights file {path}": read_info(path).label_space for path in sorted(set(files.values()))})
    for scene, paths in scenes.items():
        scans = {scan: open_views(path, settings, poses=poses, labels=space) for scan, path in paths.items()}
        data |= {f"{scene}, {scan}": data_sha256(path) for scan, path in paths.items()}
        for method in networks:
            path = files[method, scene]
            results += measure_on_scans(TrainedNetwork(path), scans, settings, method=method, scene=scene)
            weights[f"{method}, {scene}"] = file_sha256(path)
    origin = Provenance.of(settings, weights=weights, data=data)
    return ExperimentReport("Evaluation", results, {"Evaluation": origin})
