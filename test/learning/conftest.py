"""A tiny base model, source set and room, shared by the tests of learning."""

from pathlib import Path

import pytest
import torch
from paper import paper_settings
from scenes import make_room_frames, make_source_images, write_source_set

from s4net_core.config import Settings, with_values
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import save_checkpoint

WIDTH, HEIGHT = 64, 48


@pytest.fixture(autouse=True)
def one_thread():
    """More threads only wait for each other on images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings() -> Settings:
    """The paper's, but small everywhere; the guard lets everything pass, and no keyframe is held out, unless a test
    says otherwise."""
    return with_values(
        paper_settings(),
        {
            "device": "cpu",
            "model": {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": WIDTH, "height": HEIGHT},
            "learner": {"source_batch": 2, "target_batch": 2, "neighbours": 2, "learning_rate": 1e-3},
            "learner.lambda_geometric": 0.5,
            "guard": {"holdout": 2, "agreement_views": 3, "max_source_drop": 1.0, "max_score_drop": 1.0},
            "guard.max_class_share": 1.0,
            "guard.min_class_ratio": 0.0,
            "adaptation": {"min_keyframes": 4, "handover_every": 2, "max_steps": 6, "patience": 0},
            "keyframes": {"min_sharpness": 0.0, "holdout": 0},
        },
    )


@pytest.fixture
def sure_network(settings: Settings):
    """A network that is sure, and of different classes."""
    torch.manual_seed(3)
    network = build_network(settings.model)
    with torch.no_grad():
        network.body.segmentation_head[0].weight.mul_(2000)
    return network.eval()


@pytest.fixture(scope="session")
def frames():
    """Views of one room."""
    return make_room_frames(24, WIDTH, HEIGHT, seed=5)


@pytest.fixture
def source(tmp_path: Path):
    """Eight labelled views of other rooms."""
    return write_source_set(tmp_path / "source", make_source_images(8, WIDTH, HEIGHT))


@pytest.fixture
def base(tmp_path: Path, settings: Settings) -> Path:
    """Weights file of an untrained network, always the same one."""
    torch.manual_seed(7)
    path = tmp_path / "base.safetensors"
    save_checkpoint(path, build_network(settings.model))
    return path


@pytest.fixture
def keyframes(settings: Settings, frames) -> KeyframeBuffer:
    """Those of the room's views that show something new."""
    buffer = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
    for frame in frames:
        buffer.offer(frame)
    return buffer
