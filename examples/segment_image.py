"""Label one image. Print each class with its share and probability, and write the labels as a coloured image.

python examples/segment_image.py [IMAGE [CHECKPOINT [OUT]]]
"""

import sys
from pathlib import Path

import numpy as np

from s4net_core import load_model, segment
from s4net_core.io.images.files import write_color
from s4net_core.labels import SUNRGBD37

DEMO = Path(__file__).resolve().parents[1] / "demo"


def main(
    image: str = str(DEMO / "capture/color/000060.jpg"),
    checkpoint: str = str(DEMO / "weights/base.safetensors"),
    out: str = "labels.png",
) -> None:
    """Print the classes, largest first, and write the coloured labels."""
    model = load_model(checkpoint)
    result = segment(model, image)
    classes, pixels = np.unique(result.label, return_counts=True)
    for index in np.argsort(-pixels):
        name, share = SUNRGBD37.names[classes[index] - 1], pixels[index] / result.label.size
        probability = result.confidence[result.label == classes[index]].mean()
        print(f"{name:15} {share:6.1%} of the image, probability {probability:.2f}")
    write_color(Path(out), SUNRGBD37.colorize(result.label))
    print(f"{out}: labels of version {result.version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
