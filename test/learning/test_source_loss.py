"""The loss on the source set, which pre-training and adaptation share."""

import pytest
import torch

from s4net_core.config import LearnerSettings
from s4net_core.io.source_sets.batches import SourceBatch
from s4net_core.learning.source_loss import source_loss
from s4net_core.losses import depth_supervised_loss, supervised_loss
from s4net_core.models.build import Outputs

WEIGHTS = torch.tensor([0.5, 1.0, 3.0])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 5, 8), generator=generator)
    return SourceBatch(torch.rand(2, 3, 5, 8), labels, torch.rand(2, 1, 5, 8, generator=generator) + 1)


def test_without_branches_it_is_the_supervised_loss(batch):
    logits = torch.rand(2, 3, 5, 8)
    loss = source_loss(Outputs(logits), batch, WEIGHTS, LearnerSettings())
    assert loss.total == loss.segmentation == supervised_loss(logits, batch.labels, WEIGHTS)
    assert loss.auxiliary == loss.depth == 0


def test_the_auxiliary_branch_counts_with_its_weight_and_depth_with_one(batch):
    logits, auxiliary, depth = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 5, 8), torch.rand(2, 1, 5, 8)
    loss = source_loss(Outputs(logits, auxiliary, depth), batch, WEIGHTS, LearnerSettings(auxiliary_weight=0.3))
    assert loss.auxiliary == supervised_loss(auxiliary, batch.labels, WEIGHTS)
    assert loss.depth == depth_supervised_loss(depth, batch.depth)
    torch.testing.assert_close(loss.total, loss.segmentation + 0.3 * loss.auxiliary + loss.depth)


def test_source_images_without_depth_teach_the_segmentation_alone(batch):
    batch = SourceBatch(batch.images, batch.labels, torch.zeros_like(batch.depth))
    depth = torch.rand(2, 1, 5, 8, requires_grad=True)
    loss = source_loss(Outputs(torch.rand(2, 3, 5, 8), None, depth), batch, WEIGHTS, LearnerSettings())
    loss.total.backward()
    assert loss.depth == 0
    assert torch.equal(depth.grad, torch.zeros_like(depth))
