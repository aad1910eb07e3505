"""Results of many networks on many scans: one record each, kept as JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.depth import DepthEvaluation, DepthScores
from s4net_core.evaluation.evaluate import Evaluation, Measurement
from s4net_core.evaluation.metrics import SegmentationScores

NETWORKS = {"deeplabv3plus": "DeepLabV3+", "pspnet": "PSPNet", "transformers": "transformers"}
"""Names of architectures in tables, the paper's as it writes them."""
NO_AGREEMENT = Agreement(math.nan, 0, 0)


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
        steps: adaptation steps.
        versions, refused: hand-overs that the guard accepted and refused.
    """

    network: str
    method: str
    scene: str
    scan: str
    evaluation: Evaluation | None
    agreement: Agreement = NO_AGREEMENT
    depth: DepthEvaluation | None = None
    seed: int | None = None
    weights: str = ""
    steps: int = 0
    versions: int = 0
    refused: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is None."""
        content = {**self.__dict__, "agreement": asdict(self.agreement)}
        content["agreement"]["mean"] = None if math.isnan(self.agreement.mean) else self.agreement.mean
        if self.evaluation:
            content["evaluation"] = {**asdict(self.evaluation), "counts": self.evaluation.counts.tolist()}
        if self.depth:
            content["depth"] = asdict(self.depth)
        return content


def result_from_dict(content: Mapping[str, Any]) -> Result:
    """The result of which `Result.as_dict` made `content`.

    Raises:
        KeyError, TypeError: it is something else.
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
        )
    if values["depth"]:
        found = values["depth"]
        values["depth"] = DepthEvaluation(
            DepthScores(**found["pooled"]), DepthScores(**found["per_image"]), found["frames"]
        )
    return Result(**values)


def results_of(measured: Measurement, scene: str, scan: str, names: Mapping[str, tuple[str, str]]) -> list[Result]:
    """One result a network of a measurement.

    Args:
        measured: on one scan.
        scene, scan: its names.
        names: network and method by the names in the measurement.
    """
    return [
        Result(
            network=network,
            method=method,
            scene=scene,
            scan=scan,
            evaluation=measured.evaluations.get(name),
            agreement=measured.agreements[name],
            depth=measured.depths.get(name),
        )
        for name, (network, method) in names.items()
    ]
