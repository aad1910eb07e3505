"""What the start of the live node spends its time on: the same imports and the same network, timed one after the other.

``python -m s4net_ros.replay.start_parts SETTINGS [NAME=VALUE ...]`` prints seconds of process time by part, as JSON.
It imports nothing at its head, because imports are what it measures.
"""


def main() -> None:
    """Import, load and label as the node does; nothing waits for anything, so that only computing counts."""
    import json
    import sys
    import time

    seconds: dict[str, float] = {}

    def end_of(part: str) -> None:
        seconds[part] = time.process_time() - sum(seconds.values())

    end_of("Python")
    import s4net_ros.segmentation_node  # noqa: F401

    end_of("rclpy, settings and the node's own modules")
    import torch

    end_of("PyTorch")
    import torch._dynamo

    end_of("torch._dynamo, which torchvision loads for timm")
    from s4net_core.config import load_settings
    from s4net_core.models.base_model_file import base_model_file
    from s4net_core.models.segmenter import Segmenter

    end_of("timm, torchvision and segmentation-models-pytorch")
    file, *overrides = sys.argv[1:]
    settings = load_settings(file, overrides)
    torch.set_num_threads(1)
    segmenter = Segmenter(base_model_file(settings.checkpoint, settings.model), settings.device, settings)
    end_of("network, two copies")
    import numpy as np

    segmenter.segment(np.zeros((480, 848, 3), np.uint8))
    end_of("first image")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
