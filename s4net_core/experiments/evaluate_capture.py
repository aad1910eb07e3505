"""One network, or two beside each other, measured on one capture: its tables, numbers and page."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s4net_core.config import Settings
from s4net_core.errors import SettingsError
from s4net_core.evaluation.evaluate import Measurement, measure_networks
from s4net_core.evaluation.page import HtmlPage
from s4net_core.evaluation.summary import confusion_figures, summary_numbers, summary_tables
from s4net_core.evaluation.tables import to_csv
from s4net_core.experiments.provenance import Provenance, data_sha256
from s4net_core.frames import FrameSequence
from s4net_core.models.checkpoint import CheckpointInfo, file_sha256, read_info
from s4net_core.models.segmenter import Segmenter
from s4net_core.streams.drops import counted


@dataclass(frozen=True)
class CaptureEvaluation:
    """Measurements of one or two networks on one capture, with their origin.

    Args:
        measured: scores by the network's name.
        frames: length of the capture.
        left_out: number of frames that were left out, by reason.
        files: weights files by the network's name.
        infos: their metadata.
        size: width and height of the images in the networks.
        origin: where the numbers come from.
    """

    measured: Measurement
    frames: int
    left_out: Mapping[str, int]
    files: Mapping[str, Path]
    infos: Mapping[str, CheckpointInfo]
    size: tuple[int, int]
    origin: Provenance

    def json(self) -> str:
        """All numbers, by network."""
        networks = {
            name: {"checkpoint": str(self.files[name]), "version": self.infos[name].version, **numbers}
            for name, numbers in summary_numbers(self.measured).items()
        }
        content = {"capture": self.measured.capture, "keyframes": self.measured.keyframes, "networks": networks}
        return (
            json.dumps(content | {"left_out": dict(self.left_out), "provenance": self.origin.as_dict()}, indent=2)
            + "\n"
        )

    def csv(self) -> str:
        """The first table: scores, or what there is in their stead."""
        table = summary_tables(self.measured)[0]
        return to_csv(table, [table.title, *self.origin.lines()])

    def page(self) -> HtmlPage:
        """Everything, with pictures."""
        width, height = self.size
        shown: dict[str, object] = {
            f"file ({name})": f"{file}, version {self.infos[name].version}" for name, file in self.files.items()
        }
        notes = [
            f"{self.frames} frames, {self.measured.keyframes} keyframes; left out: {counted(self.left_out) or 'none'}."
        ]
        if not self.measured.evaluations:
            notes.append(
                "The capture has no labels: agreement between views is not accuracy, and it also rises when a network "
                "collapses to a few classes."
            )
        newest = list(self.infos.values())[-1]
        shown |= newest.model.model_dump(include={"architecture", "encoder", "label_space"})
        return HtmlPage(
            title=f"Evaluation on {self.measured.capture}",
            tables=summary_tables(self.measured),
            pictures=self.measured.pictures,
            notes=notes,
            settings={**shown, "size": f"{width}x{height}", **self.origin.shown()},
            figures=confusion_figures(self.measured),
            label_space=self.measured.label_space,
        )


def evaluate_capture(
    files: Mapping[str, Path],
    capture: FrameSequence,
    path: Path,
    settings: Settings,
    *,
    pictures: int = 0,
    on_frame: Callable[[], None] = lambda: None,
    on_view: Callable[[int, int], None] = lambda done, total: None,
) -> CaptureEvaluation:
    """Everything that can be measured on a capture.

    Args:
        files: weights files by the network's name, in the order "before", "after", or a single one.
        capture: with or without labels, with or without depth.
        path: where it lies, for the hash of its data.
        settings: where they give no image size, all networks work at that of the last.
        pictures, on_frame, on_view: as `measure_networks`.

    Raises:
        CheckpointError: weights cannot be loaded.
        SettingsError: nothing can be measured.
    """
    *_, newest = files.values()
    settings = settings.sized(read_info(newest).model)
    segmenters = {name: Segmenter(file, settings.device, settings) for name, file in files.items()}
    measured = measure_networks(segmenters, capture, settings, pictures=pictures, on_frame=on_frame, on_view=on_view)
    if not summary_tables(measured):
        raise SettingsError(
            f"capture {capture.name} has neither labels nor overlapping views with depth, so nothing can be measured: "
            "use another capture"
        )
    return CaptureEvaluation(
        measured=measured,
        frames=len(capture),
        left_out=capture.skipped,
        files=files,
        infos={name: segmenter.info for name, segmenter in segmenters.items()},
        size=settings.model.size,
        origin=Provenance.of(
            settings,
            weights={name: file_sha256(file) for name, file in files.items()},
            data={capture.name: data_sha256(path)},
        ),
    )
