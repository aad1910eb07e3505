"""A whole step against the paper's losses in plain NumPy, what gets which gradient, and what each ablation changes."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import slow_method as slow
import torch
from scenes import make_room_frames, make_source_images, write_source_set

from s4net_core.io.source_sets.batches import SourceBatches
from s4net_core.io.source_sets.source_set import LabelledImage
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.learning.depth_loss import depth_geometric_loss
from s4net_core.learning.learner import Learner
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import median_frequency_weights
from s4net_core.models.build import build_network

WIDTH, HEIGHT = 48, 36
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def room():
    return make_room_frames(16, WIDTH, HEIGHT, seed=5)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Four views of other rooms with labels and depth."""
    frames = [make_room_frames(1, WIDTH, HEIGHT, seed=300 + i)[0] for i in range(4)]
    images = [LabelledImage(frame.color, frame.label, frame.depth) for frame in frames]
    folder = tmp_path_factory.mktemp("source")
    write_source_set(folder / "set", images)
    return type(write_source_set(folder / "again", images))(folder / "set", with_depth=True)


@pytest.fixture
def make(settings, labelled, room):
    """A learner with the settings of the moment; its network has no dropout, and is sure of the source's classes."""
    settings.model.width, settings.model.height = WIDTH, HEIGHT
    settings.learner.lambda_geometric = 0.25

    def make_learner():
        torch.manual_seed(3)
        network = build_network(settings.model)
        with torch.no_grad():
            network.body.segmentation_head[0].weight.mul_(20)
            absent = sorted(set(range(1, 38)) - {c for i in range(4) for c in np.unique(labelled.label(i)).tolist()})
            network.body.segmentation_head[0].bias[torch.tensor(absent) - 1] = -100.0
            if network.depth_branch is not None:
                network.depth_branch.head[0].weight.normal_(std=0.1)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.p = 0.0
        keyframes = KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=settings.learner.min_overlap)
        for frame in room:
            keyframes.offer(frame)
        weights = median_frequency_weights(map(labelled.label, range(len(labelled))), 37)
        batches = SourceBatches(
            labelled, 2, WIDTH, HEIGHT, False, np.random.default_rng(settings.seed), cache_megabytes=1
        )
        teacher = Teacher(copy.deepcopy(network), settings, CPU)
        return Learner(network, batches, weights, teacher, keyframes, settings, CPU)

    return make_learner


def drawn_by(learner, settings):
    """The views that the learner's first step will draw."""
    rng = np.random.default_rng(settings.seed)
    return learner._keyframes.draw(
        settings.learner.target_batch, settings.learner.neighbours, settings.learner.min_overlap, rng
    )


@torch.no_grad()
def predicted(network, view):
    """Prediction for one keyframe: logits (C, H, W), and depth (H, W) or None."""
    image = torch.from_numpy(view.color.astype(np.float32) / 255).permute(2, 0, 1)[None]
    outputs = network.eval().outputs(image)
    return outputs.logits[0].numpy(), None if outputs.depth is None else outputs.depth[0, 0].numpy()


def described(learner, view, settings):
    """One view as the slow functions take it."""
    logits, depth = predicted(learner.network, view)
    probabilities = slow.softmax(logits.astype(np.float64)).astype(np.float16).astype(np.float64)
    return {
        "depth": view.depth if settings.geometry.from_sensor else depth,
        "predicted": depth,
        "K": view.intrinsics.matrix,
        "T": view.T_world_camera,
        "logits": logits,
        "probabilities": probabilities,
        "label": logits.argmax(axis=0),
        "image": view.color.transpose(2, 0, 1) / 255,
    }


@pytest.mark.parametrize("depth_source", ["sensor", "predicted"])
def test_a_step_equals_the_paper_in_numpy(make, settings, labelled, depth_source):
    settings.geometry.depth = depth_source
    settings.model.depth_decoder = True
    settings.learner.lambda_depth = 0.5
    learner = make()
    rng = np.random.default_rng(settings.seed)
    chosen = [labelled[i] for i in rng.permutation(4)[:2]]
    weights = slow.median_frequency([labelled.label(i) for i in range(4)], 37)
    logits, depths = zip(*(predicted(learner.network, image) for image in chosen), strict=True)
    labels = np.stack([image.label for image in chosen]).astype(int)
    loss_source = slow.cross_entropy(np.stack(logits), labels, weights)
    differences = [np.abs(d - image.depth)[image.depth > 0] for d, image in zip(depths, chosen, strict=True)]
    loss_depth_source = np.concatenate(differences).mean()

    targets, merged, errors = [], [], []
    for target, neighbours in drawn_by(learner, settings):
        here, around = described(learner, target, settings), [described(learner, n, settings) for n in neighbours]
        targets.append(here["logits"])
        merged.append(slow.merged_label(here, around, threshold=0.05, radius=2))
        errors += slow.view_differences({**here, "depth": here["predicted"]}, around, radius=2)
    loss_geometric = slow.cross_entropy(np.stack(targets), np.stack(merged), np.ones(37))
    loss_depth = np.mean(errors)

    report = learner.step()
    assert report.coverage == pytest.approx(np.mean(np.stack(merged) > 0), abs=2 / (WIDTH * HEIGHT))
    assert report.coverage > 0.05
    assert report.loss_source == pytest.approx(loss_source, rel=1e-4)
    assert report.loss_geometric == pytest.approx(loss_geometric, rel=1e-3)
    assert report.loss_depth_source == pytest.approx(loss_depth_source, rel=1e-4)
    assert report.loss_depth_geometric == pytest.approx(loss_depth, rel=1e-3)
    whole = loss_source + 0.25 * loss_geometric + loss_depth_source + 0.5 * loss_depth
    assert report.loss == pytest.approx(whole, rel=1e-3)


# Gradients.


def losses_between(learner):
    """L_G and the others of one draw, and the outputs that they come from."""
    learner.network.train()
    targets = learner._draw_targets()
    outputs = learner.network.outputs(targets.images)
    return outputs, targets, learner._target_loss(outputs, targets)


def has_gradient(module):
    return any(p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters())


@pytest.fixture
def depth_learner(make, settings):
    settings.geometry.depth, settings.model.depth_decoder = "predicted", True
    return make()


def test_the_geometric_loss_sends_no_gradient_into_the_depth_branch(depth_learner):
    _, _, between = losses_between(depth_learner)
    between.geometric.backward()
    network = depth_learner.network
    assert all(p.grad is None for p in network.depth_branch.parameters())
    assert has_gradient(network.body.segmentation_head)
    assert has_gradient(network.body.encoder)


def test_the_loss_between_depths_sends_no_gradient_through_masks_or_teacher(depth_learner):
    outputs, _, between = losses_between(depth_learner)
    (to_logits,) = torch.autograd.grad(between.depth, outputs.logits, allow_unused=True, retain_graph=True)
    assert to_logits is None
    between.depth.backward()
    network = depth_learner.network
    assert not has_gradient(network.body.decoder)
    assert not has_gradient(network.body.segmentation_head)
    assert has_gradient(network.depth_branch)
    assert has_gradient(network.body.encoder)
    assert all(p.grad is None for p in depth_learner._teacher._network.parameters())


def test_the_gradient_of_the_loss_between_depths_is_its_slope(depth_learner):
    """Compared with finite differences of depth at some pixels, in double precision and with fixed masks."""
    _, targets, _ = losses_between(depth_learner)
    teacher, geometry = depth_learner._teacher, depth_learner._settings.geometry
    depth = torch.cat([torch.from_numpy(t.depth)[None, None] for t, _ in targets.drawn]).double().requires_grad_()

    def loss(d):
        return depth_geometric_loss(targets.images.double(), d, targets.drawn, teacher, geometry)

    (gradient,) = torch.autograd.grad(loss(depth), depth)
    step, checked = 1e-6, 0
    for index in torch.nonzero(gradient.abs() > gradient.abs().max() / 20)[::40]:
        change = torch.zeros_like(depth)
        change[tuple(index)] = step
        with torch.no_grad():
            slope = (loss(depth + change) - loss(depth - change)) / (2 * step)
        assert float(slope) == pytest.approx(float(gradient[tuple(index)]), rel=1e-3, abs=1e-9)
        checked += 1
    assert checked >= 3


# The auxiliary branch.


def test_every_loss_also_counts_on_the_auxiliary_branch_with_its_weight(make, settings):
    settings.model.architecture, settings.learner.auxiliary_weight = "pspnet", 0.3
    report = make().step()
    assert report.loss_auxiliary > 0
    main = report.loss_source + 0.25 * report.loss_geometric
    assert report.loss == pytest.approx(main + 0.3 * report.loss_auxiliary, rel=1e-5)
    settings.learner.auxiliary_weight = 0.0
    assert make().step().loss == pytest.approx(main, rel=1e-5)


def test_the_geometric_loss_alone_reaches_the_auxiliary_branch(make, settings):
    settings.model.architecture = "pspnet"
    learner = make()
    _, _, between = losses_between(learner)
    assert between.auxiliary > 0
    between.auxiliary.backward()
    assert has_gradient(learner.network.auxiliary_head)
    assert not has_gradient(learner.network.body.decoder)


def test_pspnet_takes_three_target_images_and_deeplab_four_unless_told_otherwise(make, settings):
    settings.learner.target_batch = 0
    assert len(make()._draw_targets().images) == 4
    pspnet = make()
    pspnet.network.settings.architecture = "pspnet"  # the network decides, whatever settings.model says
    assert len(pspnet._draw_targets().images) == 3
    settings.learner.target_batch = 2
    assert len(make()._draw_targets().images) == 2


# Ablations.

UNLABELLED_VIEWS = {"loss", "loss_geometric", "coverage"}


@pytest.mark.parametrize(
    ("setting", "value", "changes"),
    [
        ("geometry.boundary_radius", 0, UNLABELLED_VIEWS),
        ("geometry.occlusion_threshold", 0.005, UNLABELLED_VIEWS),
        ("learner.neighbours", 1, UNLABELLED_VIEWS),
        ("learner.min_overlap", 0.9, UNLABELLED_VIEWS),
        ("learner.merge", "soft", {"loss", "loss_geometric"}),
        ("learner.geometric_weights", "median_frequency", {"loss", "loss_geometric"}),
        ("learner.lambda_geometric", 0.5, {"loss"}),
        ("learner.lambda_depth", 0.5, set()),
        ("learner.teacher_refresh", 1, set()),
    ],
)
def test_an_ablation_changes_what_it_should_and_nothing_else(make, settings, setting, value, changes):
    before = asdict(make().step())
    group, _, name = setting.partition(".")
    setattr(getattr(settings, group), name, value)
    after = asdict(make().step())
    assert {key for key in before if key != "seconds" and before[key] != after[key]} == changes


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_of_the_source_are_tempered_and_no_others(make, settings, labelled, power):
    settings.learner.class_weight_power, settings.learner.geometric_weights = power, "median_frequency"
    learner = make()
    rng = np.random.default_rng(settings.seed)
    chosen = [labelled[i] for i in rng.permutation(4)[:2]]
    weights = slow.median_frequency([labelled.label(i) for i in range(4)], 37) ** power
    logits = np.stack([predicted(learner.network, image)[0] for image in chosen])
    expected = slow.cross_entropy(logits, np.stack([image.label for image in chosen]).astype(int), weights)
    report = learner.step()
    assert report.loss_source == pytest.approx(expected, rel=1e-4)
    settings.learner.class_weight_power = 1.0
    assert make().step().loss_geometric == report.loss_geometric


def test_without_the_boundary_mask_more_pixels_count(make, settings):
    masked = make().step().coverage
    settings.geometry.boundary_radius = 0
    assert make().step().coverage > masked


def test_soft_labels_are_the_mean_of_what_the_neighbours_say(make, settings):
    learner = make()
    (target, neighbours), *_ = drawn_by(learner, settings)
    hard, valid = learner._teacher.labels(target, neighbours)
    settings.learner.merge = "soft"
    soft, valid_too = learner._teacher.labels(target, neighbours)
    assert torch.equal(valid, valid_too)
    sums = soft.sum(dim=1, keepdim=True)[valid]
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-3, atol=1e-3)
    assert torch.equal((soft.argmax(dim=1) + 1)[valid[:, 0]], hard[valid[:, 0]])


def test_the_teacher_follows_the_network_every_so_many_steps(make, settings):
    settings.learner.teacher_refresh = 2
    learner = make()
    labels = []
    (_, neighbours), *_ = drawn_by(learner, settings)
    for _ in range(4):
        labels.append(torch.cat([p.probabilities for p in learner._teacher._predict(neighbours)]))
        learner.step()
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[2], labels[3])
    assert not torch.equal(labels[1], labels[2])


# Depth.


def test_the_control_of_the_depth_variant_looks_at_no_target(make, settings):
    settings.model.depth_decoder, settings.learner.lambda_geometric, settings.learner.lambda_depth = True, 0.0, 0.0
    report = make().step()
    assert (report.loss_geometric, report.loss_depth_geometric, report.coverage) == (0.0, 0.0, 0.0)
    assert report.loss_depth_source > 0


def test_without_a_depth_decoder_lambda_depth_has_no_effect(make, settings):
    report = make().step()
    assert (report.loss_depth_source, report.loss_depth_geometric) == (0.0, 0.0)


def depth_error(learner, room):
    """Mean of |predicted - true| / true over the views of the room (AbsRel)."""
    errors = [(np.abs(predicted(learner.network, f)[1] - f.depth) / f.depth).mean() for f in room]
    return float(np.mean(errors))


def test_pairs_of_views_alone_improve_the_depth_of_a_scene(make, settings, room, tmp_path):
    """No depth and no label is seen, neither of the source set nor of the room: only colours and poses."""
    settings.geometry.depth, settings.model.depth_decoder = "predicted", True
    settings.learner.lambda_geometric, settings.learner.lambda_depth = 0.0, 10.0
    learner = make()
    blank = [LabelledImage(image.color, np.zeros_like(image.label)) for image in make_source_images(4, WIDTH, HEIGHT)]
    learner._batches = SourceBatches(
        write_source_set(tmp_path / "set", blank), 2, WIDTH, HEIGHT, False, np.random.default_rng(0), cache_megabytes=1
    )
    with torch.no_grad():
        head = learner.network.depth_branch.head[0]
        head.weight.mul_(0.01)
        head.bias.fill_(-3.4)  # 3 m everywhere; the room is 1 to 2.5 m deep
        learner.network.body.segmentation_head[0].weight.zero_()  # one class: both views agree everywhere
    learner.refresh_teacher()
    before = depth_error(learner, room)
    for _ in range(20):
        learner.step()
    assert before > 0.6
    assert depth_error(learner, room) < 0.4 * before
