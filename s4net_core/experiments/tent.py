"""TENT (Wang et al., *Fully test-time adaptation by entropy minimization*, ICLR 2021), for comparison."""

import numpy as np
import torch

from s4net_core.config import Settings
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.models.build import SegmentationNetwork, batch_norms
from s4net_core.models.predict import pick_device, to_tensor


def tent(network: SegmentationNetwork, keyframes: KeyframeBuffer, settings: Settings) -> None:
    """Make predictions certain: batch norm takes its statistics of the views, its scale and shift learn their entropy.

    Args:
        network: changed in place; only its batch norms are.
        keyframes: the views.
        settings: `seed`, `device`, `learner.learning_rate`, `learner.target_batch`, and `adaptation.max_steps`.
    """
    device = pick_device(settings.device)
    network.to(device).eval().requires_grad_(False)
    norms = batch_norms(network)
    for norm in norms:
        norm.train().requires_grad_(True)
    learned = [parameter for norm in norms for parameter in norm.parameters()]
    optimiser = torch.optim.Adam(learned, lr=settings.learner.learning_rate)
    rng, ids = np.random.default_rng(settings.seed), keyframes.ids()
    count = min(settings.learner.target_images(network.settings.architecture), len(ids))
    for _ in range(settings.adaptation.max_steps):
        chosen = rng.choice(ids, size=count, replace=False).tolist()
        logits = network(to_tensor([keyframes.get(id).color for id in chosen], device))
        log_probabilities = logits.log_softmax(dim=1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
        optimiser.zero_grad(set_to_none=True)
        entropy.backward()
        optimiser.step()
    network.eval()
