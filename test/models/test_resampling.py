"""Logits at another size: the same as those at the image's size, scaled afterwards."""

import pytest
import torch
from torch.nn import functional

from s4net_core.config import from_values
from s4net_core.models import resampling
from s4net_core.models.build import build_network
from s4net_core.models.resampling import logits_at

IMAGES = torch.rand(2, 3, 50, 76, generator=torch.Generator().manual_seed(0))
"""Of a size that is padded."""


@pytest.mark.parametrize("size", [(50, 76), (25, 38), (31, 90)])
@pytest.mark.parametrize(("architecture", "composed"), [("deeplabv3plus", True), ("pspnet", True), ("unet", False)])
def test_they_are_those_of_the_image_scaled_afterwards(architecture, composed, size, monkeypatch):
    model = {"architecture": architecture, "encoder": "resnet18", "encoder_weights": "none"}
    torch.manual_seed(1)
    network = build_network(from_values({"model": model}).model).eval()
    with torch.no_grad():
        expected = functional.interpolate(network(IMAGES), size=size, mode="bilinear", antialias=True)
    whole, forward = [], resampling.forward
    monkeypatch.setattr(resampling, "forward", lambda *args, **how: whole.append(args) or forward(*args, **how))
    logits = logits_at(network, IMAGES, size)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert bool(whole) != composed  # no logits of the whole image were made
