"""Typed settings: the only place where a default, unit, range and help text is written.

YAML files, the command line (``--set learner.learning_rate=1e-4``) and ROS parameters follow from these models. A
setting's dotted name is its path through the groups of `Settings`, e.g. ``keyframes.min_translation``.
"""

from typing import Literal

from pydantic import field_validator

from s4net_core.config.group import FilePath, Group, ImageSide, setting
from s4net_core.config.node_groups import CockpitSettings, MapSettings, SegmentationSettings, StreamSettings
from s4net_core.config.offline_groups import PretrainSettings, RegistrationSettings, SourceSettings

PAPER_TARGET_BATCH = {"deeplabv3plus": 4, "pspnet": 3}
"""Target images a step in the paper; its auxiliary branch makes PSPNet's dearer."""
OTHER_TARGET_BATCH = 4
"""Target images a step with other networks."""
Architecture = Literal[
    "deeplabv3plus",
    "pspnet",
    "deeplabv3",
    "dpt",
    "fpn",
    "linknet",
    "manet",
    "pan",
    "segformer",
    "unet",
    "unetplusplus",
    "upernet",
    "transformers",
]
"""Written out because settings are known without torch; a test compares it with the library's own list."""


class ModelSettings(Group):
    """The network."""

    architecture: Architecture = setting(
        "deeplabv3plus",
        "Decoder of segmentation-models-pytorch; 'transformers' is a whole network from the Hugging Face hub.",
    )
    encoder: FilePath = setting(
        "resnet50",
        "Encoder: a name of segmentation-models-pytorch, 'tu-' and a name of timm, or a hub name or folder "
        "(transformers).",
    )
    encoder_weights: FilePath = setting(
        "imagenet", "Weights with which a new encoder starts: 'imagenet' (downloaded), 'none' (random), or a file."
    )
    label_space: FilePath = setting(
        "sunrgbd37",
        "Classes of a new network: 'sunrgbd37', or a YAML file of your own; a weights file knows its classes.",
    )
    width: ImageSide = setting(
        0,
        "Width to which the network's input images are resized; 0 = the base model's, or 480 for a new network.",
        unit="px",
        ge=0,
        le=4096,
    )
    height: ImageSide = setting(
        0,
        "Height to which the network's input images are resized; 0 = the base model's, or 360 for a new network.",
        unit="px",
        ge=0,
        le=4096,
    )
    auxiliary: Literal["auto", "always", "never"] = setting(
        "auto", "Whether a second, auxiliary classifier is trained on an earlier feature map; auto = with PSPNet only."
    )
    depth_decoder: bool = setting(False, "Whether a second decoder on the same encoder predicts depth from colour.")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def sized(self, base: "ModelSettings | None" = None) -> "ModelSettings":
        """A copy with a width and a height: its own, else those of `base`; None = a new network."""
        width, height = base.size if base else (480, 360)
        return self.model_copy(update={"width": self.width or width, "height": self.height or height})

    @property
    def has_auxiliary(self) -> bool:
        """Whether the network has an auxiliary branch: what `auxiliary` says, or what the paper's network has."""
        return self.auxiliary == "always" or (self.auxiliary == "auto" and self.architecture == "pspnet")


class GeometrySettings(Group):
    """Which pixels of two views count as the same 3D point (paper: eq. 4 and the tests around it)."""

    occlusion_threshold: float = setting(
        0.05,
        "Largest difference of a point's depth in two views, as a share of that depth; more is an occlusion.",
        gt=0,
        le=1,
    )
    require_neighbour_depth: bool = setting(
        True, "Ignore pixels for which the neighbour has no depth, so that occlusion cannot be tested."
    )
    depth: Literal["sensor", "predicted"] = setting(
        "sensor", "Depth of the views: of a depth camera, or predicted by the network (model.depth_decoder)."
    )
    boundary_radius: int = setting(
        0,
        "Distance from a border between predicted segments up to which pixels are ignored; 0 = none are.",
        unit="px",
        ge=0,
        le=64,
    )
    min_depth: float = setting(
        0.1, "Smallest depth that counts; nearer pixels are treated as having no depth.", unit="m", ge=0, le=100
    )
    max_depth: float = setting(
        10.0, "Largest depth that counts; farther pixels are treated as having no depth.", unit="m", gt=0, le=65
    )

    @property
    def from_sensor(self) -> bool:
        """Whether the views have depth of a depth camera."""
        return self.depth == "sensor"


class KeyframeSettings(Group):
    """What the keyframe buffer takes, keeps and finds."""

    min_translation: float = setting(
        0.15,
        "Smallest distance from every keyframe that makes a view new, whatever its direction.",
        unit="m",
        ge=0,
        le=10,
    )
    min_rotation: float = setting(
        10.0, "Smallest rotation from every nearby keyframe that makes a view new.", unit="deg", ge=0, le=180
    )
    min_sharpness: float = setting(
        0.6,
        "Smallest sharpness of a new view, as a share of the median of recent new views; 0 = no check.",
        ge=0,
        le=1,
    )
    sharpness_window: int = setting(
        30, "Number of recent new views whose median sharpness min_sharpness refers to.", ge=1, le=1000
    )
    min_depth_coverage: float = setting(
        0.3, "Smallest share of its pixels for which a view must have depth to become a keyframe.", ge=0, le=1
    )
    max_megabytes: int = setting(
        512,
        "Memory for the colour and depth of all keyframes; beyond it keyframes are evicted.",
        unit="MB",
        ge=1,
        le=65536,
    )
    after_restart: Literal["same_boot", "keep", "drop"] = setting(
        "same_boot",
        "When keyframes of an earlier run are used again: same_boot suits fixed_frame odom, keep suits map.",
    )
    max_speed: float = setting(
        2.0,
        "Speed of the camera above which its pose has jumped, and a new segment begins; 0 = no check.",
        unit="m/s",
        ge=0,
        le=100,
    )
    max_gap: float = setting(
        2.0, "Longest pause between two views of one segment of keyframes; 0 = no limit.", unit="s", ge=0, le=3600
    )
    max_free_space: float = setting(
        0.04,
        "Largest share of pixels through which a view sees farther than one it teaches; 3 times as much under drift.",
        gt=0,
        le=1,
    )
    max_residual: float = setting(
        0.024,
        "Largest rms difference, as a share of depth, of views that teach each other; 3 times as much under drift.",
        gt=0,
        le=1,
    )
    candidates: int = setting(
        32, "Number of nearest keyframes whose overlap with a new keyframe is measured.", ge=1, le=1024
    )
    holdout: int = setting(
        10,
        "Every n-th keyframe is not learned from, so that the guard can measure on it; 0 = none, 1 is refused.",
        ge=0,
        le=1000,
    )
    coarse_width: int = setting(
        24, "Width of the reduced depth image on which the overlap of keyframes is measured.", unit="px", ge=4, le=320
    )

    @field_validator("holdout")
    @classmethod
    def _some_are_learned_from(cls, holdout: int) -> int:
        if holdout == 1:
            raise ValueError("every keyframe would be held out and none learned from: give 0, or 2 or more")
        return holdout


class LearnerSettings(Group):
    """One step of S4-Net; the defaults are for minutes on a robot, and ``config/experiments/base`` has the paper's."""

    trained: Literal["all", "decoder"] = setting(
        "decoder",
        "What learns: the whole network, as in the paper, or its decoders alone; then the encoder sees an image once.",
    )
    learning_rate: float = setting(
        5e-4, "Step size of Adam during adaptation; the paper's is 1e-5.", gt=0, le=1, live=True
    )
    lambda_geometric: float = setting(
        1.0,
        "Weight λ of the geometric loss; 0 = none, which is the control experiment; the paper's is 0.01.",
        ge=0,
        le=100,
    )
    source_batch: int = setting(
        8,
        "Number of labelled source images in each step; without a source set, smallest number of target images.",
        ge=1,
        le=64,
    )
    distillation: float = setting(
        1.0,
        "Weight of the loss that stands in for the source set where there is none: the base model's own predictions.",
        ge=0,
        le=100,
    )
    base_share: float = setting(
        0.3,
        "Share of the base model in the weights that are handed over, where there is no source set.",
        ge=0,
        le=1,
    )
    target_batch: int = setting(
        0, "Number of unlabelled target images in each step; 0 = as in the paper: 3 with PSPNet, else 4.", ge=0, le=64
    )
    lambda_depth: float = setting(
        0.1,
        "Weight λ_D of the loss between the depths predicted for two views; needs model.depth_decoder.",
        ge=0,
        le=100,
    )
    auxiliary_weight: float = setting(
        0.4, "Weight of each loss on the auxiliary branch, relative to the same loss on the main output.", ge=0, le=10
    )
    geometric_weights: Literal["none", "median_frequency"] = setting(
        "none", "Class weights in the geometric loss; without a source set it is always weighted. The paper uses none."
    )
    merge: Literal["argmax", "soft"] = setting(
        "argmax",
        "Target of a pixel from its neighbours' predictions: the most probable class, or their mean probabilities.",
    )
    class_weight_power: float = setting(
        0.5,
        "Exponent of the class weights in the loss on source images: 1 = median frequency, as in the paper; 0 = none.",
        ge=0,
        le=1,
    )
    neighbours: int = setting(
        0,
        "Number of neighbouring views, drawn at each step, whose predictions are merged for a target image; 0 = all.",
        ge=0,
        le=32,
    )
    merge_target: bool = setting(
        True, "Whether the teacher's prediction of the target image itself is merged with those of its neighbours."
    )
    min_overlap: float = setting(
        0.1, "Smallest overlap of a neighbouring view with the target view, as a share of the target view.", gt=0, le=1
    )
    teacher_refresh: int = setting(
        0,
        "Number of steps between two copies of the learner's weights to the teacher; 0 = it stays the base model.",
        unit="steps",
        ge=0,
    )
    teacher_scale: float = setting(
        2.0,
        "The teacher also looks at two sizes, this ratio apart, where its network is surest; 1 = at none.",
        ge=1,
        le=4,
    )
    teacher_mirror: bool = setting(
        True,
        "Whether the teacher mirrors every second look, in turns from view to view; at one scale it then looks twice.",
    )
    feature_cache_megabytes: int = setting(
        1024,
        "Memory for the encoder's feature maps of images that are used again, when the decoder alone learns.",
        unit="MB",
        ge=0,
        le=65536,
    )
    teacher_cache_megabytes: int = setting(
        1024,
        "Memory for the teacher's predictions that are used again, and as much for labels made of them; 0 = none.",
        unit="MB",
        ge=0,
        le=65536,
    )
    batch_norm: Literal["frozen", "live"] = setting(
        "frozen", "Batch norm during adaptation: frozen = the checkpoint's statistics, live = each batch's own."
    )
    weight_average: float = setting(
        0.95,
        "Decay of the average over steps that is handed over as weights; 0 = the last step's weights, as in the paper.",
        ge=0,
        lt=1,
    )
    mirror: bool = setting(True, "Whether a random half of the source images is mirrored left to right.")
    amp: bool = setting(True, "Whether CUDA computes in mixed precision; there is no effect on a CPU.")

    def target_images(self, architecture: str) -> int:
        """Target images a step: the setting, or the paper's number for the architecture of the network that learns."""
        return self.target_batch or PAPER_TARGET_BATCH.get(architecture, OTHER_TARGET_BATCH)


class GuardSettings(Group):
    """When adapted weights are good enough to be handed over."""

    holdout: int = setting(
        24, "Number of labelled source images that are not learnt from, but measure what is forgotten.", ge=1, le=1000
    )
    max_source_drop: float = setting(
        0.05, "Largest fall of the mIoU on the hold-out below the base model's mIoU, absolute.", ge=0, le=1, live=True
    )
    agreement_views: int = setting(
        4,
        "Number of keyframes whose agreement with their best neighbours is measured; held-out ones come first.",
        ge=1,
        le=500,
    )
    max_score_drop: float = setting(
        0.05,
        "Largest fall of the score on held-out keyframes below the base model's score, absolute.",
        ge=0,
        le=1,
        live=True,
    )
    max_class_share: float = setting(
        0.95, "Largest share of the keyframes' pixels that one predicted class may cover.", gt=0, le=1, live=True
    )
    min_class_ratio: float = setting(
        0.3,
        "Smallest number of predicted classes, as a share of the number that the base model predicts.",
        ge=0,
        le=1,
        live=True,
    )


class AdaptationSettings(Group):
    """The loop around the learner."""

    min_keyframes: int = setting(8, "Number of keyframes with which learning starts.", ge=2, le=10000)
    handover_every: int = setting(20, "Number of steps between two hand-overs of weights.", unit="steps", ge=1)
    max_steps: int = setting(0, "Number of steps after which learning stops; 0 = no limit.", unit="steps", ge=0)
    steps_per_keyframe: float = setting(
        2.0,
        "Steps per keyframe after which learning waits for more keyframes; 0 = it never waits.",
        unit="steps",
        ge=0,
    )
    patience: int = setting(
        0, "Number of hand-overs without a rise of the score after which learning stops; 0 = it goes on.", ge=0
    )
    offline_patience: int = setting(
        10, "Patience of offline adaptation (`s4net adapt`), used when patience is 0; 0 = learning goes on.", ge=0
    )
    min_gain: float = setting(
        0.001,
        "Smallest rise of the score above the best one so far that counts as a rise for patience.",
        ge=0,
        le=1,
    )
    duty_cycle: float = setting(
        0.7, "Largest share of the time for which the learner uses the device; 1 = always.", ge=0.01, le=1, live=True
    )
    niceness: int = setting(
        10,
        "Niceness of learner, map and loading of weights (not with ONNX Runtime); 20 = learning on idle cores alone.",
        ge=0,
        le=20,
    )
    keep_versions: int = setting(
        5, "Number of weights files that are kept for roll-back, beside the base model.", ge=1, le=1000
    )


class Settings(Group):
    """Everything that can be set."""

    seed: int = setting(0, "Seed of all random choices.", ge=0, le=2**31 - 1)
    device: str = setting("auto", "Device that computes: 'auto' (CUDA if there is one), 'cpu', 'cuda' or 'cuda:N'.")
    threads: int = setting(
        0, "Number of CPU threads of PyTorch in each process; 0 = as many as PyTorch chooses.", ge=0, le=1024
    )
    max_megapixels: int = setting(
        50, "Largest size of an image that is decoded; larger images are refused.", unit="MP", ge=1, le=1000
    )
    checkpoint: FilePath = setting(
        "auto",
        "Base model to start from: a weights file, 'auto' = a public one, fetched once, or 'demo' = the demo's.",
    )
    state_dir: FilePath = setting(
        "", "Folder for the weights and keyframes of this robot; empty = ~/.ros/s4net/<namespace>."
    )
    model: ModelSettings = ModelSettings()
    geometry: GeometrySettings = GeometrySettings()
    keyframes: KeyframeSettings = KeyframeSettings()
    learner: LearnerSettings = LearnerSettings()
    guard: GuardSettings = GuardSettings()
    adaptation: AdaptationSettings = AdaptationSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    map: MapSettings = MapSettings()
    stream: StreamSettings = StreamSettings()
    cockpit: CockpitSettings = CockpitSettings()
    source: SourceSettings = SourceSettings()
    pretrain: PretrainSettings = PretrainSettings()
    registration: RegistrationSettings = RegistrationSettings()

    def sized(self, base: ModelSettings | None = None) -> "Settings":
        """A copy with a working size, see `ModelSettings.sized`; the other groups are shared, so that they stay live.

        Args:
            base: network of the base model; None = a new one.
        """
        return self.model_copy(update={"model": self.model.sized(base)})
