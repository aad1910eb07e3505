"""What can be set: typed groups with defaults, units, ranges and help; files, command line and ROS say the same."""

from s4net_core.config.group import Group
from s4net_core.config.groups import (
    PAPER_TARGET_BATCH,
    AdaptationSettings,
    GeometrySettings,
    GuardSettings,
    KeyframeSettings,
    LearnerSettings,
    ModelSettings,
    Settings,
)
from s4net_core.config.leaves import Leaf, changed_settings, leaves, to_yaml
from s4net_core.config.loading import assign, from_values, is_ros_parameters, load_settings, read_yaml, with_values
from s4net_core.config.node_groups import CockpitSettings, MapSettings, SegmentationSettings, StreamSettings
from s4net_core.config.offline_groups import PretrainSettings, RegistrationSettings, SourceSettings

__all__ = [
    "PAPER_TARGET_BATCH",
    "AdaptationSettings",
    "CockpitSettings",
    "GeometrySettings",
    "Group",
    "GuardSettings",
    "KeyframeSettings",
    "Leaf",
    "LearnerSettings",
    "MapSettings",
    "ModelSettings",
    "PretrainSettings",
    "RegistrationSettings",
    "SegmentationSettings",
    "Settings",
    "SourceSettings",
    "StreamSettings",
    "assign",
    "changed_settings",
    "from_values",
    "is_ros_parameters",
    "leaves",
    "load_settings",
    "read_yaml",
    "to_yaml",
    "with_values",
]
