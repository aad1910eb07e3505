"""The node that maps: posed frames become keyframes, their labels are fused in voxels, the map goes out.

Callbacks only enqueue. One thread assembles frames and offers them as keyframes, another one labels and fuses them.
"""

if __name__ == "__main__":  # until there is a node, a signal ends this program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from s4net_core.config import Settings
from s4net_core.machine.process import prepare_process
from s4net_core.models.base_model_file import base_model_file
from s4net_core.models.segmenter import Segmenter
from s4net_ros.mapping.configured import ConfiguredMap
from s4net_ros.mapping.services import MapServices, Served
from s4net_ros.node_base import S4NetNode, run, state_dir
from s4net_ros.worker import step_back_on_gpu

NAME = "semantic_map"


class SemanticMapNode(S4NetNode[ConfiguredMap]):
    """Maps the labels of keyframes, follows new weights and corrected poses, and answers where things are.

    Args:
        defaults: values of parameters that are not set.
        options: as of `S4NetNode`.
    """

    live = ("segmentation.min_confidence",)

    def __init__(self, defaults: Settings | None = None, **options: Any) -> None:
        super().__init__(NAME, defaults, **options)
        self._own_services = MapServices(self)

    def configure(self, undo: ExitStack) -> ConfiguredMap:
        """Load the network and create the outputs."""
        settings = self.settings
        step_back_on_gpu(settings.adaptation.niceness)
        file = base_model_file(settings.checkpoint, settings.model)
        prepare_process(settings)
        segmenter = Segmenter(file, settings.device, settings)
        configured = ConfiguredMap(self, segmenter, undo)
        folder = state_dir(settings, self.get_namespace())
        served = Served(configured.map, configured.load, lambda: configured.frame, folder)
        undo.enter_context(self._own_services.serving(served))
        size = "{}x{}".format(*segmenter.settings.model.size)
        self.get_logger().info(
            f"labels come from {file}, working at {size}; relative paths of saved maps start at {folder}"
        )
        return configured

    def activate(self, configured: ConfiguredMap, undo: ExitStack) -> None:
        """Subscribe, label and fuse."""
        configured.activate(undo)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m s4net_ros.semantic_map_node --ros-args ...``."""
    return run(SemanticMapNode, args)


if __name__ == "__main__":
    sys.exit(main())
