"""Typed settings: the only place where a default, unit, range and help text is written.

YAML files, the command line (``--set learner.learning_rate=1e-4``) and ROS parameters are generated from these models.
A setting's dotted name is its path through the groups of `Settings`, e.g. ``keyframes.min_translation``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s4net_core.errors import SettingsError


def setting(default: Any, help: str, *, unit: str = "", live: bool = False, **limits: Any) -> Any:
    """One setting.

    Args:
        default: value when nobody says otherwise.
        help: one line for YAML comments, ``--help`` and the ROS parameter description.
        unit: e.g. ``m``, ``deg``, ``s``; empty = none.
        live: may change while a node runs; everything else is read-only after start-up.
        limits: ``ge``, ``gt``, ``le``, ``lt`` of pydantic's ``Field``.
    """
    return Field(default=default, description=help, json_schema_extra={"unit": unit, "live": live}, **limits)


PAPER_TARGET_BATCH = {"deeplabv3plus": 4, "pspnet": 3, "transformers": 4}
"""Target images a step in the paper; its auxiliary branch makes PSPNet's dearer."""


class Group(BaseModel):
    """Base of every group: unknown names are refused, values are checked on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False)


class ModelSettings(Group):
    """The network."""

    architecture: Literal["deeplabv3plus", "pspnet", "transformers"] = setting(
        "deeplabv3plus", "Decoder of the network; transformers = a whole network of the Hugging Face hub."
    )
    encoder: str = setting(
        "resnet50",
        "Encoder: any name of segmentation-models-pytorch; timm's with the prefix 'tu-'; with transformers, the "
        "network's name on the hub or its folder.",
    )
    encoder_weights: str = setting(
        "imagenet", "Weights of a new encoder: 'imagenet' (fetched from a hub), 'none', or a file of tensors."
    )
    label_space: Literal["sunrgbd37"] = setting("sunrgbd37", "Classes that the network predicts.")
    width: int = setting(480, "Width at which images are processed.", unit="px", ge=32, le=4096)
    height: int = setting(360, "Height at which images are processed.", unit="px", ge=32, le=4096)
    auxiliary: Literal["auto", "always", "never"] = setting(
        "auto", "Auxiliary branch on an earlier feature map, which is trained as well; auto = PSPNet has one."
    )
    depth_decoder: bool = setting(False, "Second decoder on the same encoder, which predicts depth from colour.")

    @property
    def has_auxiliary(self) -> bool:
        """Whether the network has an auxiliary branch: what `auxiliary` says, or what the paper's network has."""
        return self.auxiliary == "always" or (self.auxiliary == "auto" and self.architecture == "pspnet")


class GeometrySettings(Group):
    """Which pixels of two views count as the same 3D point (paper: eq. 4 and the tests around it)."""

    occlusion_threshold: float = setting(
        0.05, "Largest depth difference of the same point in two views, as a share of its depth.", gt=0, le=1
    )
    require_source_depth: bool = setting(
        True, "Ignore pixels where the other view has no depth, so that occlusion cannot be tested."
    )
    depth_source: Literal["sensor", "predicted"] = setting(
        "sensor", "Depth of the target views: of a depth camera, or predicted by the network (model.depth_decoder)."
    )
    boundary_mask: bool = setting(True, "Ignore pixels near a border between predicted segments.")
    boundary_radius: int = setting(
        2, "Pixels this near to a border between predicted segments are ignored.", unit="px", ge=0, le=64
    )
    min_depth: float = setting(0.1, "Nearer depth is treated as none.", unit="m", ge=0, le=100)
    max_depth: float = setting(10.0, "Farther depth is treated as none.", unit="m", gt=0, le=1000)

    @property
    def from_sensor(self) -> bool:
        """Whether the target views have depth of a depth camera."""
        return self.depth_source == "sensor"

    @property
    def border_width(self) -> int:
        """Pixels to either side of a border between segments that do not count: 0 without the boundary mask."""
        return self.boundary_radius if self.boundary_mask else 0


class KeyframeSettings(Group):
    """What the keyframe buffer takes, keeps and finds."""

    min_translation: float = setting(
        0.15, "A view is new when it lies this far from the nearest keyframe...", unit="m", ge=0, le=10
    )
    min_rotation: float = setting(10.0, "...or looks this far away from it.", unit="deg", ge=0, le=180)
    min_sharpness: float = setting(
        0.6, "Smallest sharpness of a view, as a share of the median of the recent frames; 0 = no check.", ge=0, le=1
    )
    sharpness_window: int = setting(30, "Number of recent frames in that median.", ge=1, le=1000)
    min_depth_coverage: float = setting(0.3, "Smallest share of pixels with depth.", ge=0, le=1)
    max_megabytes: int = setting(512, "Memory for colour and depth of all keyframes.", unit="MB", ge=1, le=65536)
    after_restart: Literal["same_boot", "keep", "drop"] = setting(
        "same_boot",
        "Whether saved keyframes are used again: a frame like odom starts anew with the computer, map does not.",
    )
    candidates: int = setting(32, "Nearest keyframes whose overlap with a new one is measured.", ge=1, le=1024)
    coarse_width: int = setting(24, "Width of the coarse depth on which overlap is measured.", unit="px", ge=4, le=320)


class LearnerSettings(Group):
    """One step of S4-Net; the defaults are the paper's."""

    learning_rate: float = setting(1e-5, "Step size of Adam.", gt=0, le=1)
    lambda_geometric: float = setting(0.01, "Weight λ of the geometric loss; 0 = control without it.", ge=0, le=100)
    source_batch: int = setting(4, "Labelled source images a step.", ge=1, le=64)
    target_batch: int = setting(
        0, "Unlabelled target images a step; 0 = the paper's: 4, or 3 with PSPNet.", ge=0, le=64
    )
    lambda_depth: float = setting(
        0.1, "Weight λ_D of the loss between views on predicted depth (model.depth_decoder).", ge=0, le=100
    )
    auxiliary_weight: float = setting(0.4, "Weight of every loss on the auxiliary branch.", ge=0, le=10)
    geometric_weights: Literal["none", "median_frequency"] = setting(
        "none", "Class weights in the geometric loss; the weighted one drifts towards rare classes (paper)."
    )
    merge: Literal["argmax", "soft"] = setting(
        "argmax", "Label of a pixel from its neighbours: the most probable class, or their mean probabilities."
    )
    neighbours: int = setting(4, "Views merged for each target image.", ge=1, le=32)
    min_overlap: float = setting(0.25, "Smallest overlap of a neighbour, as a share of the target's view.", gt=0, le=1)
    teacher_refresh: int = setting(100, "Steps after which the teacher takes over the weights.", unit="steps", ge=1)
    teacher_cache_megabytes: int = setting(1024, "Memory for the teacher's predictions.", unit="MB", ge=0, le=65536)
    batch_norm: Literal["frozen", "live"] = setting(
        "frozen", "Statistics of batch norm: of the checkpoint, or of each batch."
    )
    weight_average: float = setting(
        0.0,
        "Handed-over weights are an exponential average over the steps with this decay; 0 = the last step's (paper).",
        ge=0,
        lt=1,
    )
    mirror: bool = setting(True, "Mirror half of the source images.")
    amp: bool = setting(True, "Mixed precision on CUDA; has no effect on a CPU.")

    def target_images(self, architecture: str) -> int:
        """Target images a step: the setting, or the paper's number for the architecture of the network that learns."""
        return self.target_batch or PAPER_TARGET_BATCH[architecture]


class GuardSettings(Group):
    """When adapted weights are good enough to be handed over."""

    holdout: int = setting(24, "Labelled source images kept out of training to measure forgetting.", ge=1, le=1000)
    max_source_drop: float = setting(
        0.05, "Largest fall of the hold-out mIoU below the base model's, absolute.", ge=0, le=1, live=True
    )
    agreement_views: int = setting(12, "Keyframes on which the agreement between views is measured.", ge=1, le=500)
    max_agreement_drop: float = setting(
        0.02, "Largest fall of the agreement between views below the base model's.", ge=0, le=1, live=True
    )
    max_class_share: float = setting(
        0.95, "Prediction has collapsed when one class covers more of the keyframes than this...", gt=0, le=1, live=True
    )
    min_class_ratio: float = setting(
        0.3, "...or when fewer classes are left than this share of the base model's.", ge=0, le=1, live=True
    )


class AdaptationSettings(Group):
    """The loop around the learner."""

    min_keyframes: int = setting(8, "Keyframes needed before learning starts.", ge=2, le=10000)
    handover_every: int = setting(25, "Steps between two hand-overs.", unit="steps", ge=1)
    max_steps: int = setting(500, "Steps after which learning stops; 0 = never.", unit="steps", ge=0)
    steps_per_keyframe: float = setting(
        0.0,
        "Steps for each keyframe taken so far, after which learning waits for new ones; 0 = no such limit.",
        unit="steps",
        ge=0,
    )
    patience: int = setting(
        0, "Stop when the agreement has not risen for this many hand-overs; 0 = run to the end.", ge=0
    )
    offline_patience: int = setting(
        10, "What patience is for `s4net adapt`, which has seen the whole capture, where patience is 0.", ge=0
    )
    min_gain: float = setting(
        0.001, "Smaller rises of the agreement above the best so far do not count for patience.", ge=0, le=1
    )
    duty_cycle: float = setting(
        0.7, "Share of the time for which the learner may use the device.", gt=0, le=1, live=True
    )
    keep_versions: int = setting(5, "Weights files kept for roll-back, beside the base model.", ge=1, le=1000)


class SegmentationSettings(Group):
    """The live node's outputs."""

    min_confidence: float = setting(
        0.0, "Pixels predicted with less probability than this are published as unlabelled.", ge=0, le=1, live=True
    )
    overlay_alpha: float = setting(0.5, "Opacity of the labels in the overlay.", ge=0, le=1, live=True)
    points_stride: int = setting(2, "Every n-th pixel of row and column becomes a point.", unit="px", ge=1, le=64)
    points: bool = setting(True, "Publish labelled points; depth is subscribed only while somebody listens to them.")
    output_reliability: Literal["best_effort", "reliable"] = setting("reliable", "QoS of the published images.")
    runtime: Literal["torch", "onnx"] = setting("torch", "What computes the labels: PyTorch, or ONNX Runtime.")
    execution_provider: str = setting(
        "auto", "Execution provider of ONNX Runtime, e.g. TensorrtExecutionProvider; auto = CUDA, else the CPU."
    )


class StreamSettings(Group):
    """How frames are put together from topics or from a bag."""

    fixed_frame: str = setting("odom", "Frame in which the camera is tracked; must not jump (REP 105: odom, not map).")
    sync_slop: float = setting(
        0.017, "Largest stamp difference of colour and depth that still belong together.", unit="s", ge=0, le=1
    )
    sync_queue: int = setting(30, "Messages of each topic that wait for their partners.", ge=1, le=1000)
    pose_wait: float = setting(1.0, "How long a frame waits for its pose.", unit="s", ge=0, le=60)
    camera_info_age: float = setting(
        1.0, "Oldest camera_info that still describes a colour image; 0 = any age.", unit="s", ge=0, le=3600
    )
    max_pose_jump: float = setting(
        0.5, "A pose that moves farther than this within 0.2 s is not believed; 0 = no check.", unit="m", ge=0, le=100
    )
    tf_history: float = setting(30.0, "Length of the transform history.", unit="s", gt=0, le=3600)
    color_reliability: Literal["best_effort", "reliable"] = setting("best_effort", "QoS of the colour subscription.")
    depth_reliability: Literal["best_effort", "reliable"] = setting("best_effort", "QoS of the depth subscription.")
    queue_depth: int = setting(5, "QoS depth of colour and depth in the adaptation node.", ge=1, le=1000)
    color_transport: Literal["raw", "compressed"] = setting("raw", "Transport of the colour image.")
    depth_transport: Literal["raw", "compressedDepth"] = setting("raw", "Transport of the depth image.")
    stall_warning: float = setting(5.0, "Warn when no frame came for this long.", unit="s", gt=0, le=600)


class SourceSettings(Group):
    """The labelled source set S."""

    path: str = setting("", "Labelled source set: a folder, or a file of s4net pack.")
    cache_megabytes: int = setting(
        1024, "Memory for its images; those that do not fit are read again every time.", unit="MB", ge=0, le=65536
    )


class PretrainSettings(Group):
    """Supervised training on the source set alone."""

    steps: int = setting(20000, "Most training steps; `patience` may end training before.", unit="steps", ge=1)
    learning_rate: float = setting(1e-4, "Step size of Adam.", gt=0, le=1)
    schedule: Literal["constant", "one_cycle"] = setting(
        "constant", "Step size over time: the same, or up in the first tenth of the steps and then down to zero."
    )
    batch: int = setting(8, "Images a step on each device.", ge=1, le=256)
    batch_norm: Literal["frozen", "live"] = setting(
        "live", "Statistics of batch norm: of the new network (its encoder's weights), or of each batch."
    )
    max_zoom: float = setting(
        1.5, "Random crops show their part of an image up to this much larger; 1 = whole images.", ge=1, le=8
    )
    color_jitter: float = setting(
        0.3, "Random change of brightness, contrast and saturation, at most, as a share; 0 = none.", ge=0, le=1
    )
    hue_jitter: float = setting(
        0.0,
        "Random shift of the hue, at most, as a share of the colour circle; triples the work on an image. 0 = none.",
        ge=0,
        le=0.5,
    )
    evaluate_every: int = setting(
        500,
        "Steps between two measurements on the test images; the best weights are kept. 0 = the last step's are.",
        unit="steps",
        ge=0,
    )
    patience: int = setting(8, "Stop when the mIoU has not risen in this many measurements; 0 = run to the end.", ge=0)
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = setting(
        "auto", "Precision as Lightning names it; auto = mixed on CUDA, with bfloat16 where the device has it."
    )
    devices: int = setting(1, "GPUs (or processes on a CPU) that train together; 0 = all GPUs.", ge=0, le=1024)
    workers: int = setting(
        4,
        "Processes for each device that read and augment images, at most one a core; 0 = the training process does.",
        ge=0,
        le=256,
    )


class RegistrationSettings(Group):
    """Poses for a capture that has none (s4net register); a new keyframe starts as `keyframes` says."""

    width: int = setting(320, "Width at which views are aligned; features are found at full size.", unit="px", ge=32)
    max_depth: float = setting(4.0, "Farther depth is not used to align views.", unit="m", gt=0, le=100)
    max_distance: float = setting(
        0.05, "Points of two views count as the same surface when they are this near.", unit="m", gt=0, le=1
    )
    min_fitness: float = setting(
        0.3, "Smallest share of a view's points that must lie on the other view's surface.", gt=0, le=1
    )
    features: int = setting(1000, "Image features a view, by which views are found again.", ge=8, le=100000)
    min_matches: int = setting(25, "Features that must agree with a pose before it is believed.", ge=6, le=10000)
    neighbours: int = setting(2, "Keyframes before the last one to which a new one is tied too.", ge=0, le=100)
    loops: int = setting(3, "Earlier keyframes that look alike to which a new one is tied if it fits.", ge=0, le=100)


class Settings(Group):
    """Everything that can be set."""

    seed: int = setting(0, "Seed of every random choice.", ge=0, le=2**31 - 1)
    device: str = setting("auto", "'auto', 'cpu', 'cuda' or 'cuda:N'.")
    threads: int = setting(0, "CPU threads of torch in each process; 0 = torch's own choice.", ge=0, le=1024)
    checkpoint: str = setting("", "Weights file of the base model.")
    state_dir: str = setting("", "Folder for weights and keyframes of this robot; empty = ~/.ros/s4net/<namespace>.")
    model: ModelSettings = ModelSettings()
    geometry: GeometrySettings = GeometrySettings()
    keyframes: KeyframeSettings = KeyframeSettings()
    learner: LearnerSettings = LearnerSettings()
    guard: GuardSettings = GuardSettings()
    adaptation: AdaptationSettings = AdaptationSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    stream: StreamSettings = StreamSettings()
    source: SourceSettings = SourceSettings()
    pretrain: PretrainSettings = PretrainSettings()
    registration: RegistrationSettings = RegistrationSettings()


@dataclass(frozen=True)
class Leaf:
    """One setting, flattened: what a ROS parameter or an option needs to know.

    Args:
        name: dotted name.
        type: ``bool``, ``int``, ``float`` or ``str``.
        value: current value.
        help: one line, with the unit where there is one.
        unit: unit alone.
        minimum, maximum: inclusive range, or None.
        choices: allowed strings; empty = any.
        live: may change while a node runs.
    """

    name: str
    type: type
    value: Any
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    live: bool


def leaves(settings: Settings) -> Iterator[Leaf]:
    """Every setting in the order of the file."""
    yield from _leaves(settings, "")


def _leaves(group: BaseModel, prefix: str) -> Iterator[Leaf]:
    for key, field in type(group).model_fields.items():
        value = getattr(group, key)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{key}.")
            continue
        limits = {k: getattr(m, k) for m in field.metadata for k in ("ge", "gt", "le", "lt") if hasattr(m, k)}
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = str(extra.get("unit", ""))
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if get_origin(field.annotation) in (Union, UnionType):
            raise TypeError(f"setting {prefix}{key}: ROS parameters have one type each")
        yield Leaf(
            name=prefix + key,
            type=type(value),
            value=value,
            help=f"{field.description} [{unit}]" if unit else str(field.description),
            unit=unit,
            minimum=limits.get("ge", limits.get("gt")),
            maximum=limits.get("le", limits.get("lt")),
            choices=choices,
            live=bool(extra.get("live", False)),
        )


def load_settings(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file (only what differs from the defaults) and ``name=value`` overrides.

    A ROS parameters file (``/**: ros__parameters:``) is read as well, so that launch and command line share one file.

    Raises:
        SettingsError: unknown name, wrong type, out of range, or a file that is not there.
    """
    values: dict[str, Any] = {}
    if path:
        try:
            loaded = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise SettingsError(f"settings file {path} cannot be read: {error}") from error
        values = _strip_ros(loaded or {}, path)
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise SettingsError(f"override '{override}' has no '=': write name=value, e.g. learner.learning_rate=1e-4")
        _assign(values, name.strip(), yaml.safe_load(text))
    return from_values(values)


def from_values(values: dict[str, Any]) -> Settings:
    """Settings from nested dictionaries or dotted names.

    Raises:
        SettingsError: as `load_settings`.
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        _assign(nested, name, value)
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        raise _refused(error) from error


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """A copy in which some settings are changed.

    Args:
        settings: to start from.
        values: as `from_values`.

    Raises:
        SettingsError: as `load_settings`.
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        _assign(nested, name, value)
    changed = settings.model_copy(deep=True)
    _set(changed, nested)
    return changed


def _set(group: BaseModel, values: dict[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        inner = getattr(group, name, None)
        if isinstance(inner, BaseModel) and isinstance(value, dict):
            _set(inner, value, f"{prefix}{name}.")
            continue
        try:
            setattr(group, name, value)
        except ValidationError as error:
            raise _refused(error, prefix) from error


def _refused(error: ValidationError, prefix: str = "") -> SettingsError:
    lines = [f"{prefix}{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
    return SettingsError("settings: " + "; ".join(lines))


def _strip_ros(loaded: Any, path: str | Path) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise SettingsError(f"settings file {path} holds {type(loaded).__name__}: it must hold names and values")
    if all(isinstance(v, dict) and "ros__parameters" in v for v in loaded.values()) and loaded:
        merged: dict[str, Any] = {}
        for node in loaded.values():
            for name, value in node["ros__parameters"].items():
                if name != "use_sim_time":
                    _assign(merged, name, value)
        return merged
    return loaded


def _assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name in nested dictionaries; a dictionary value is merged."""
    head, _, rest = name.partition(".")
    if rest:
        inner = values.setdefault(head, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"setting {head} is a value, it has no part {rest}")
        _assign(inner, rest, value)
    elif isinstance(value, dict):
        for key, inner_value in value.items():
            _assign(values.setdefault(head, {}), str(key), inner_value)
    else:
        values[head] = value


def to_yaml(settings: Settings) -> str:
    """All settings as YAML, each with its help as a comment; `load_settings` reads it back."""
    lines: list[str] = []
    group = ""
    for leaf in leaves(settings):
        prefix, _, key = leaf.name.rpartition(".")
        if prefix != group:
            lines.append(f"{prefix}:")
            group = prefix
        indent = "  " if prefix else ""
        value = yaml.safe_dump(leaf.value, default_flow_style=True).removesuffix("...\n").strip()
        choices = f" One of: {', '.join(leaf.choices)}." if leaf.choices else ""
        lines += [f"{indent}# {leaf.help}{choices}", f"{indent}{key}: {value}"]
    return "\n".join(lines) + "\n"
