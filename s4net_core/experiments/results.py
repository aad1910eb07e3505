"""Results of many networks on many scans: one record each, kept as JSON so that nothing is run twice."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.depth import DepthEvaluation, DepthScores
from s4net_core.evaluation.evaluate import Evaluation
from s4net_core.evaluation.metrics import SegmentationScores
from s4net_core.evaluation.summary import DEPTH
from s4net_core.files import nan_as_none, read_json, write_result
from s4net_core.labels import SUNRGBD37

log = logging.getLogger(__name__)

NETWORKS = {
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "dpt": "DPT",
    "fpn": "FPN",
    "linknet": "LinkNet",
    "manet": "MAnet",
    "pan": "PAN",
    "pspnet": "PSPNet",
    "segformer": "SegFormer",
    "transformers": "transformers",
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "upernet": "UPerNet",
}
"""Names of architectures in tables, the paper's as it writes them."""
AGREEMENT = "agreement"
"""Name of the score that needs no labels."""
KEY_LENGTH = 16
"""Digits of the hash in the name of a file of results."""


@dataclass(frozen=True)
class Point:
    """The learner's weights at one hand-over, measured on the scene's last scan; the time of measuring does not count.

    Args:
        step: learner steps so far.
        seconds: CPU seconds of learning so far, labels and guard included.
        miou, pixel_accuracy: pooled.
        metrics: what can be known without labels: the guard's measurements by name.
        served: whether these weights became a version.
    """

    step: int
    seconds: float
    miou: float
    pixel_accuracy: float
    metrics: Mapping[str, float]
    served: bool


@dataclass(frozen=True)
class Learning:
    """How an adaptation went.

    Args:
        seconds: CPU seconds of learning.
        curve: one point a hand-over that was not refused.
        label_accuracy: share of the learner's labels of the capture that are right; NaN = the truth is not known.
        label_coverage: share of the pixels that have a label of the learner.
    """

    seconds: float = 0.0
    curve: tuple[Point, ...] = ()
    label_accuracy: float = math.nan
    label_coverage: float = math.nan


@dataclass(frozen=True)
class Result:
    """What one network scored on one scan of one scene.

    Args:
        network: architecture, as the paper writes it.
        method: how it was trained, e.g. ``supervised`` or ``S4-Net``.
        scene: name of the place.
        scan: which recording of the place, e.g. ``Scan 1``.
        evaluation: against labels; None = the scan has none.
        agreement: between the scan's overlapping views.
        depth: against depth; None = the scan, or the network, has none.
        seed: of the training that distinguishes this result; None = nothing was drawn.
        weights: SHA-256 of the weights file.
        steps: adaptation steps; without `learning` nothing is known of them.
        versions, refused: hand-overs that the guard accepted and refused.
        base: name of the base model; empty = it has none.
        unseen: pooled mIoU on the experiment's `unseen`; NaN = not measured.
        learning: None = the network was not adapted.
    """

    network: str
    method: str
    scene: str
    scan: str
    evaluation: Evaluation | None
    agreement: Agreement
    depth: DepthEvaluation | None = None
    seed: int | None = None
    weights: str = ""
    steps: int = 0
    versions: int = 0
    refused: int = 0
    base: str = ""
    unseen: float = math.nan
    learning: Learning | None = None

    def score(self, name: str, convention: str = "pooled") -> float:
        """One score; NaN = it was not measured.

        Args:
            name: a field of `SegmentationScores` or `DepthScores`, or `AGREEMENT`.
            convention: ``pooled`` or ``per_image``; the agreement is always pooled.
        """
        if name == AGREEMENT:
            return self.agreement.mean
        found = self.depth if name in DEPTH else self.evaluation
        return float(getattr(getattr(found, convention), name)) if found else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is None."""
        content = {**self.__dict__, "agreement": asdict(self.agreement)}
        if self.evaluation:
            content["evaluation"] = {**asdict(self.evaluation), "counts": self.evaluation.counts.tolist()}
        if self.depth:
            content["depth"] = asdict(self.depth)
        if self.learning:
            content["learning"] = asdict(self.learning)
        return {name: nan_as_none(value) for name, value in content.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Result":
        """Inverse of `as_dict`.

        Raises:
            KeyError, TypeError: `content` does not come from `as_dict`.
        """
        values = dict(content)
        mean = values["agreement"]["mean"]
        values["agreement"] = Agreement(**{**values["agreement"], "mean": math.nan if mean is None else mean})
        if values["evaluation"]:
            found = values["evaluation"]
            values["evaluation"] = Evaluation(
                SegmentationScores(**found["pooled"]),
                SegmentationScores(**found["per_image"]),
                {int(id): iou for id, iou in found["class_iou"].items()},
                found["frames"],
                np.array(found["counts"], np.int64),
                tuple(found.get("names", SUNRGBD37.names)),
            )
        if values["depth"]:
            found = values["depth"]
            values["depth"] = DepthEvaluation(
                DepthScores(**found["pooled"]), DepthScores(**found["per_image"]), found["frames"]
            )
        values["unseen"] = _none_as_nan(values["unseen"])
        if values["learning"]:
            found = _none_as_nan(values["learning"])
            values["learning"] = Learning(**{**found, "curve": tuple(Point(**point) for point in found["curve"])})
        return cls(**values)


def on_last_scans(results: Sequence[Result]) -> list[Result]:
    """Those on the last scan of their scene in the order of the results: no method has learned from it."""
    last = {result.scene: result.scan for result in results}
    return [result for result in results if result.scan == last[result.scene]]


def _none_as_nan(value: Any) -> Any:
    """Inverse of `files.nan_as_none`."""
    if isinstance(value, Mapping):
        return {name: _none_as_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_none_as_nan(part) for part in value]
    return math.nan if value is None else value


class ResultStore:
    """Results on disk, one JSON file per run, named by a hash of everything that they depend on.

    Args:
        folder: made when the first result is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def once(self, follows_from: Mapping[str, Any], make: Callable[[], Sequence[Result]]) -> list[Result]:
        """The results of an earlier run if they are stored, else those of `make`, which are then stored.

        Args:
            follows_from: everything on which the results depend; written beside them.
            make: run when there is no file of such results, or a damaged one.

        Raises:
            S4NetError: the results cannot be written.
        """
        path = self._folder / f"{key_of(follows_from)}.json"
        if path.is_file():
            try:
                return [Result.from_dict(found) for found in read_json(path)["results"]]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is damaged (%s): it is made again", path, error)
        results = list(make())
        content = {"follows_from": follows_from, "results": [result.as_dict() for result in results]}
        write_result(path, json.dumps(content) + "\n")
        return results


def key_of(follows_from: Mapping[str, Any]) -> str:
    """File name of results that depend on these values."""
    return hashlib.sha256(json.dumps(follows_from, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
