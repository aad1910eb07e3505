"""The semantic map: labels of many keyframes, fused in voxels."""

from s4net_core.mapping.points import MapPoints
from s4net_core.mapping.semantic_map import SemanticMap

__all__ = ["MapPoints", "SemanticMap"]
