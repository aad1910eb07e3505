"""Groups of settings for what happens before adaptation: source set, pre-training, registration."""

from typing import Literal

from s4net_core.config.group import FilePath, Group, ImageSide, setting


class SourceSettings(Group):
    """The labelled source set S."""

    path: FilePath = setting(
        "",
        "Labelled source set: a folder, or a file that `s4net pack` has written; empty = adaptation has none.",
    )
    cache_megabytes: int = setting(
        1024,
        "Memory for images of the source set; images beyond it are read from disk each time. 0 = all are.",
        unit="MB",
        ge=0,
        le=65536,
    )


class PretrainSettings(Group):
    """Supervised training on the source set alone."""

    steps: int = setting(
        20000, "Largest number of pre-training steps; pretrain.patience may end training earlier.", unit="steps", ge=1
    )
    learning_rate: float = setting(1e-4, "Step size of Adam during pre-training.", gt=0, le=1)
    schedule: Literal["constant", "one_cycle"] = setting(
        "constant", "Step size over time: constant, or rising for a tenth of the steps and then falling to zero."
    )
    batch: int = setting(8, "Number of images in each pre-training step on each device.", ge=1, le=256)
    batch_norm: Literal["frozen", "live"] = setting(
        "live", "Batch norm during pre-training: frozen = the encoder weights' statistics, live = each batch's own."
    )
    width: ImageSide = setting(
        0,
        "Width of the training images; 0 = model.width, which suits whole images: enlarged crops suit a larger one.",
        unit="px",
        ge=0,
        le=4096,
    )
    height: ImageSide = setting(0, "Height of the training images; 0 = model.height.", unit="px", ge=0, le=4096)
    max_zoom: float = setting(
        1.5, "Largest factor by which a random crop enlarges its part of an image; 1 = whole images.", ge=1, le=8
    )
    color_jitter: float = setting(
        0.3, "Largest random change of brightness, contrast and saturation, as a share; 0 = none.", ge=0, le=1
    )
    hue_jitter: float = setting(
        0.0,
        "Largest random shift of the hue, as a share of the colour circle; 0 = none, which is three times faster.",
        ge=0,
        le=0.5,
    )
    camera_jitter: float = setting(
        1.0,
        "Strength of what differs between cameras: white balance, exposure, blur, sharpening, noise, JPEG; 0 = none.",
        ge=0,
        le=1,
    )
    class_weight_power: float = setting(
        1.0,
        "Exponent of the class weights in the loss: 1 = median frequency, as in the paper; 0 = none.",
        ge=0,
        le=1,
    )
    evaluate_every: int = setting(
        500,
        "Steps between two tests, of which the best weights are kept; 0 = no tests, the last weights are kept.",
        unit="steps",
        ge=0,
    )
    patience: int = setting(
        8, "Number of tests without a rise of the mIoU after which pre-training stops; 0 = it goes on.", ge=0
    )
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = setting(
        "auto",
        "Precision, as Lightning Fabric names it; auto = mixed on CUDA (bfloat16 if the device has it), else 32 bit.",
    )
    devices: int = setting(
        1, "Number of GPUs (or of processes on a CPU) that pre-train together; 0 = all GPUs.", ge=0, le=1024
    )
    workers: int = setting(
        4,
        "Number of processes per device that read and augment images; 0 = the training process does it.",
        ge=0,
        le=256,
    )


class RegistrationSettings(Group):
    """Poses for a capture that has none (s4net register); a new keyframe starts as `keyframes` says."""

    width: int = setting(
        320,
        "Width to which views are resized before they are aligned; image features are found at full size.",
        unit="px",
        ge=32,
    )
    max_depth: float = setting(4.0, "Largest depth that is used to align views.", unit="m", gt=0, le=100)
    max_distance: float = setting(
        0.05, "Largest distance between points of two views that count as the same surface.", unit="m", gt=0, le=1
    )
    min_fitness: float = setting(
        0.3, "Smallest share of a view's points that must lie on the other view's surface.", gt=0, le=1
    )
    features: int = setting(
        1000, "Largest number of image features per view, by which views of the same place are found.", ge=8, le=100000
    )
    min_matches: int = setting(
        25, "Smallest number of image features that must agree with a pose for it to be used.", ge=6, le=10000
    )
    neighbours: int = setting(
        2, "Number of keyframes before the last one to which a new keyframe is tied as well.", ge=0, le=100
    )
    loops: int = setting(
        3, "Number of earlier keyframes of similar appearance to which a new keyframe may be tied.", ge=0, le=100
    )
