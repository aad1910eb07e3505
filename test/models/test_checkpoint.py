"""Weights files: written whole, read back exactly, refused when anything about them is wrong."""

import hashlib
import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from own_classes import five_classes
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from s4net_core.classes import named_space
from s4net_core.config import ModelSettings, load_settings
from s4net_core.errors import CheckpointError
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import (
    CheckpointInfo,
    _content_sha256,
    file_sha256,
    load_checkpoint,
    load_weights,
    read_info,
    save_checkpoint,
)

MODEL = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=96, height=64)


def new_network(seed=0, model=MODEL):
    torch.manual_seed(seed)
    network = build_network(model)
    network.train()(torch.rand(2, 3, 48, 80))  # statistics of batch norm other than those of a new network
    return network.eval()


def described(model, **changes):
    return CheckpointInfo(model=model.model_copy(update=changes))


@pytest.fixture(scope="module")
def network():
    return new_network()


@pytest.fixture
def saved(tmp_path, network):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, network, CheckpointInfo(model=MODEL, version=3, parent="abc", metrics={"source_miou": 0.25}))
    return path


def equal_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_everything_comes_back(saved, network):
    loaded, info = load_checkpoint(saved)
    assert equal_state(loaded, network)
    assert not loaded.training
    assert (info.version, info.parent, info.metrics) == (3, "abc", {"source_miou": 0.25})
    assert info.model == MODEL.model_copy(update={"auxiliary": "never"})
    assert read_info(saved) == info
    images = torch.rand(1, 3, 37, 61)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images))


def test_what_could_not_be_measured_is_left_out_and_the_file_stays_readable(tmp_path, network):
    metrics = {"agreement": float("nan"), "loss": float("inf"), "source_miou": 0.5}
    save_checkpoint(tmp_path / "weights.safetensors", network, CheckpointInfo(model=MODEL, metrics=metrics))
    assert load_checkpoint(tmp_path / "weights.safetensors")[1].metrics == {"source_miou": 0.5}


def test_the_same_weights_give_the_same_file_when_their_time_is_given(tmp_path, network, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    first, second = (save_checkpoint(tmp_path / name, network) for name in ("first", "second"))
    assert first == second
    assert read_info(tmp_path / "first").created == "1970-01-02T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86401")
    assert save_checkpoint(tmp_path / "third", network) != first


def test_hash_that_saving_returns_is_that_of_the_file(tmp_path, network):
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    sha256 = save_checkpoint(path, network)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)
    load_checkpoint(path, sha256=sha256.upper())


def test_half_size_file_loads_to_float32_within_float16_rounding(tmp_path, saved):
    network = new_network()
    network.state_dict()["body.encoder.model.bn1.running_var"][0] = 1e6  # beyond float16
    small = tmp_path / "half.safetensors"
    save_checkpoint(small, network, half=True)
    assert small.stat().st_size < 0.55 * saved.stat().st_size
    loaded = load_checkpoint(small)[0].state_dict()
    for key, value in network.state_dict().items():
        assert loaded[key].dtype == value.dtype
        torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-7)


def test_one_flipped_bit_anywhere_is_refused(tmp_path, network, saved):
    data = saved.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(0)
    places = [rng.randrange(header) for _ in range(60)] + [rng.randrange(header, len(data)) for _ in range(20)]
    damaged = tmp_path / "damaged.safetensors"
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(7)
        damaged.write_bytes(changed)
        with pytest.raises(CheckpointError):
            load_weights(network, damaged)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.9999])
def test_truncated_file_is_refused_with_a_remedy(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors.*s4net"):
        load_checkpoint(saved)


def test_truncated_header_is_refused_without_the_tensors(saved):
    saved.write_bytes(saved.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not written by s4net"):
        read_info(saved)


def test_safetensors_of_another_program_are_refused(tmp_path, network):
    path = tmp_path / "foreign.safetensors"
    save_file(network.state_dict(), path)
    for refuse in (load_checkpoint, read_info):
        with pytest.raises(CheckpointError, match="was not written by s4net"):
            refuse(path)


class _Exploit:
    def __reduce__(self):
        return os.mkdir, (self.path,)

    def __init__(self, path):
        self.path = path


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickle_is_refused_and_never_run(tmp_path, writer):
    path, trap = tmp_path / "weights.pth", tmp_path / "executed"
    if writer == "torch":
        torch.save({"weight": _Exploit(str(trap))}, path)
    else:
        path.write_bytes(pickle.dumps(_Exploit(str(trap))))
    with pytest.raises(CheckpointError, match="no weights file of s4net"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError):
        build_network(MODEL.model_copy(update={"encoder_weights": str(path)}))
    assert not trap.exists()
    if writer == "pickle":  # the trap itself works
        pickle.loads(path.read_bytes())
        assert trap.exists()


def test_missing_file_and_folder_are_refused(tmp_path, network):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        for refuse in (load_checkpoint, read_info, file_sha256, lambda p: load_weights(network, p)):
            with pytest.raises(CheckpointError, match=r"cannot be read.*check the path"):
                refuse(path)


def test_another_hash_than_expected_is_refused_and_nobody_is_asked_to_send_it_again(saved):
    with pytest.raises(CheckpointError, match=r"000000000000\.\.\. is expected: .* check the disk"):
        load_checkpoint(saved, sha256="0" * 64)


def test_the_demos_weights_fit_the_recipe_beside_them():
    demo = Path(__file__).parents[2] / "demo"
    recipe = load_settings(demo / "pretrain.yaml")
    info = load_checkpoint(demo / "weights" / "base.safetensors", expect=CheckpointInfo(model=recipe.model))[1]
    assert (info.version, info.step) == (0, recipe.pretrain.steps)
    assert info.model.size == recipe.model.size
    assert recipe.threads == 1  # else the sums depend on the number of cores


def test_another_setting_of_the_same_branches_is_no_other_network(tmp_path):
    auto = MODEL.model_copy(update={"architecture": "pspnet"})
    save_checkpoint(tmp_path / "a.safetensors", new_network(model=auto))
    load_checkpoint(tmp_path / "a.safetensors", expect=described(auto, auxiliary="always"))
    with pytest.raises(CheckpointError, match=r"auxiliary 'always' but 'never' is in use: give weights of"):
        load_checkpoint(tmp_path / "a.safetensors", expect=described(auto, auxiliary="never"))


@pytest.mark.parametrize(
    ("name", "value"), [("architecture", "pspnet"), ("encoder", "resnet18"), ("depth_decoder", True)]
)
def test_unexpected_network_is_refused_with_both_names(saved, name, value):
    with pytest.raises(CheckpointError, match=rf"{name} '{getattr(MODEL, name)}' but '{value}' is in use"):
        load_checkpoint(saved, expect=described(MODEL, **{name: value}))


def test_a_file_always_says_a_size(tmp_path):
    save_checkpoint(tmp_path / "w", new_network(model=MODEL.model_copy(update={"width": 0, "height": 0})))
    with safe_open(tmp_path / "w", "pt") as file:
        written = json.loads(file.metadata()["s4net"])["model"]
    assert (written["width"], written["height"]) == (480, 360)
    assert described(ModelSettings()).model.size == (480, 360)


def test_another_size_is_no_other_network(saved):
    load_checkpoint(saved, expect=described(MODEL, width=480, height=360, encoder_weights="imagenet"))


class TestOwnClasses:
    @pytest.fixture
    def own(self, tmp_path):
        """A network with five classes of a user's own, and its weights file."""
        network = build_network(MODEL, label_space=five_classes(tmp_path))
        save_checkpoint(tmp_path / "five.safetensors", network)
        return network, tmp_path / "five.safetensors"

    def test_they_travel_inside_the_file(self, own):
        network, path = own
        loaded, info = load_checkpoint(path)
        assert loaded.label_space == info.label_space == read_info(path).label_space == network.label_space
        assert loaded.label_space.id_of("skids") == 2
        assert loaded(torch.rand(1, 3, 32, 64)).shape[1] == loaded.num_classes == 5
        assert info.model.label_space == loaded.settings.label_space == "warehouse"

    def test_weights_of_other_classes_are_refused_with_both_named(self, own, saved, network):
        with pytest.raises(CheckpointError, match=r"'warehouse' \(5 classes: .*'sunrgbd37' \(37 classes"):
            load_weights(network, own[1])
        with pytest.raises(CheckpointError, match=r"'sunrgbd37' \(37 classes.*'warehouse' \(5 classes"):
            load_checkpoint(saved, expect=load_checkpoint(own[1])[1])

    def test_as_many_classes_of_the_same_name_are_not_the_same_classes(self, own):
        _, path = own
        other = named_space("warehouse", ["floor", "rack", "pallet", "person", "rest"])
        with pytest.raises(CheckpointError, match="use weights of the same classes"):
            load_weights(build_network(MODEL, label_space=other), path)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda c: c.update(name="other"), "'warehouse', but they are those of 'other'"),
            (lambda c: c["classes"][1].update(name="floor"), "names two classes"),
            (lambda c: c["classes"][1].update(color=[0, 0, 256]), r"classes\.1\.color\.2"),
            (lambda c: c["classes"].extend({"name": f"c{i}"} for i in range(250)), "at most 254 items"),
            (lambda c: c["classes"][1].update(name="x" * 65), "at most 64 characters"),
            (lambda c: c["classes"][1].update(name=5), "valid string"),
            (lambda c: c.clear(), "Field required"),
        ],
    )
    def test_a_header_is_not_trusted(self, own, change, problem):
        _, path = own
        description = json.loads(read_info(path).model_dump_json())
        change(description["classes"])
        save_file(load_file(path), path, metadata={"s4net": json.dumps(description)})
        for read in (read_info, load_checkpoint):
            with pytest.raises(CheckpointError, match=problem):
                read(path)

    def test_a_header_without_its_classes_is_refused(self, own):
        _, path = own
        description = json.loads(read_info(path).model_dump_json())
        del description["classes"]
        save_file(load_file(path), path, metadata={"s4net": json.dumps(description)})
        with pytest.raises(CheckpointError, match="'warehouse', but they are not described"):
            read_info(path)

    def test_changed_classes_are_noticed(self, own):
        _, path = own
        description = json.loads(read_info(path).model_dump_json())
        description["classes"]["classes"].reverse()
        save_file(load_file(path), path, metadata={"s4net": json.dumps(description)})
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path)


def test_description_of_a_newer_version_is_refused_with_the_entry(tmp_path, saved):
    info = json.loads(read_info(saved).model_dump_json()) | {"colour": "blue"}
    save_file(load_file(saved), saved, metadata={"s4net": json.dumps(info)})
    with pytest.raises(CheckpointError, match=r"colour.*newer s4net"):
        load_checkpoint(saved)


def test_tensors_that_do_not_fit_leave_the_network_alone(tmp_path, saved):
    network = new_network(seed=1)
    untouched = {key: value.clone() for key, value in network.state_dict().items()}
    other = new_network(model=MODEL.model_copy(update={"encoder": "tu-test_efficientnet"}))
    other.settings = MODEL  # a file that lies about its network
    save_checkpoint(saved, other)
    with pytest.raises(CheckpointError, match="tensors differ"):
        load_weights(network, saved)
    assert all(torch.equal(untouched[key], value) for key, value in network.state_dict().items())


def test_weights_that_are_not_finite_are_refused(saved):
    network = new_network()
    network.state_dict()["body.segmentation_head.0.bias"][5] = float("nan")
    save_checkpoint(saved, network)
    with pytest.raises(CheckpointError, match=r"not finite.*segmentation_head\.0\.bias"):
        load_checkpoint(saved)


def test_weights_are_loaded_into_an_existing_network(saved, network):
    other = new_network(seed=1)
    assert not equal_state(other, network)
    assert load_weights(other, saved).version == 3
    assert equal_state(other, network)


def test_failed_write_leaves_the_old_file_and_no_rubbish(saved, network, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="free space"):
        save_checkpoint(saved, new_network(seed=1))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("weights", ["imagenet", "pipe"])
def test_encoder_weights_that_a_file_names_are_neither_opened_nor_fetched(tmp_path, saved, network, weights):
    if weights == "pipe":
        weights = str(tmp_path / "pipe.safetensors")
        os.mkfifo(weights)
    description = read_info(saved).model_dump(mode="json")
    description["model"]["encoder_weights"] = weights
    tensors = load_file(saved)
    description["content_sha256"] = _content_sha256(tensors, description)
    save_file(tensors, saved, metadata={"s4net": json.dumps(description)})
    loaded, _ = load_checkpoint(saved)  # a fetch fails here, where there is no network; a pipe would hang
    assert equal_state(loaded, network)
    assert loaded.settings.encoder_weights == "none"


def sparse(path):
    with path.open("wb") as file:
        file.truncate(3 << 30)


FILES_THAT_ARE_NONE = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "kernel": lambda path: path.symlink_to("/proc/kmsg"),
    "folder": lambda path: path.mkdir(),
    "sparse": sparse,
}


@pytest.mark.parametrize("make", FILES_THAT_ARE_NONE.values(), ids=FILES_THAT_ARE_NONE)
def test_what_is_no_file_of_this_size_is_refused_without_being_read(tmp_path, network, make):
    path = tmp_path / "weights.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_weights(network, path)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        read_info(path)


def test_a_header_nested_without_end_is_refused(saved):
    header = b"[" * 200_000
    saved.write_bytes(len(header).to_bytes(8, "little") + header + b"0" * 8)
    with pytest.raises(CheckpointError, match="not written by s4net"):
        read_info(saved)
