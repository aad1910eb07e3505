"""ONNX: a network as a graph that needs no PyTorch, run by ONNX Runtime and compared with what it was made from."""

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s4net_core.errors import ExportError, S4NetError, SettingsError, first_line
from s4net_core.models.build import SegmentationNetwork
from s4net_core.models.checkpoint import CheckpointInfo
from s4net_core.models.folding import folded

OPSET = 18
"""Version of the ONNX operators; ONNX Runtime 1.14, TensorRT 8.6 and newer know it."""
INPUT, OUTPUT = "image", "logits"
CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
_ON_CUDA = (CUDA_PROVIDER, "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
"""Execution providers whose images and logits stay in the memory of the GPU."""
MAX_LOGIT_ERROR, MAX_LOGIT_ERROR_ON_GPU = 1e-3, 1e-2
"""Largest difference of a logit from PyTorch's, as a share of the largest logit, that counts as rounding.

Accelerators multiply with 10 bits of mantissa (TF32) or less, on both sides of the comparison.
"""
MIN_EQUAL_LABELS, MIN_EQUAL_LABELS_ON_GPU = 0.999, 0.99
"""Smallest share of pixels with PyTorch's label; rounding decides between classes that are equally probable."""
_WEIGHT = "weights."
"""Prefix of the names of tensors that come from the network."""
_exporting = threading.Lock()
"""The exporter of PyTorch keeps state of its own while it runs."""


@dataclass(frozen=True)
class Comparison:
    """How far a graph's answers are from PyTorch's.

    Args:
        logit_error: largest |difference| of a logit.
        largest_logit: largest |logit| of PyTorch.
        equal_labels: share of the pixels with the same most probable class.
        images: number of images compared.
        provider: execution provider that computed the answers.
    """

    logit_error: float
    largest_logit: float
    equal_labels: float
    images: int
    provider: str = CPU_PROVIDER

    def check(self) -> None:
        """Refuse more than rounding.

        Raises:
            ExportError: with the numbers.
        """
        on_cpu = self.provider == CPU_PROVIDER
        max_error = (MAX_LOGIT_ERROR if on_cpu else MAX_LOGIT_ERROR_ON_GPU) * self.largest_logit
        min_equal = MIN_EQUAL_LABELS if on_cpu else MIN_EQUAL_LABELS_ON_GPU
        if not self.logit_error <= max_error or self.equal_labels < min_equal:
            raise ExportError(
                f"the ONNX graph answers otherwise than PyTorch: logits of up to {self.largest_logit:.3g} differ by up "
                f"to {self.logit_error:.3g}, {self.equal_labels:.2%} of the labels are equal: serve these weights with "
                "segmentation.runtime torch, or try other versions of torch, onnxscript and onnxruntime"
            )


class OnnxTemplate:
    """The structure of a network as ONNX, into which weights are filled: export is slow, filling is not.

    Args:
        network: on any device, in any mode; left as it is. Batch norms stay, so that it answers faster when `folded`.
        width, height: size of the images.

    Raises:
        ExportError: PyTorch cannot express the network in ONNX.
        S4NetError: the libraries are not installed.
    """

    def __init__(self, network: SegmentationNetwork, width: int, height: int) -> None:
        _check_exporter()
        self._size = (width, height)
        model = network.settings
        image = torch.zeros(1, 3, height, width, device=network.mean.device)
        was_training = network.training
        network.eval()
        import onnx
        import onnxscript.optimizer

        try:
            with _exporting, torch.no_grad():
                program = torch.onnx.export(
                    network,
                    (image,),
                    dynamo=True,
                    optimize=False,  # else weights would be merged with each other, and could not be replaced
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    opset_version=OPSET,
                    verbose=False,
                )
        except Exception as error:
            raise ExportError(
                f"{model.architecture} on {model.encoder} cannot be exported to ONNX ({first_line(error)}): use "
                "another encoder, or segmentation.runtime torch"
            ) from error
        finally:
            network.train(was_training)
        assert program is not None
        weights = network.state_dict().keys()
        for name, value in list(program.model.graph.initializers.items()):
            if name in weights:  # a node may bear the same name as a weight, which ONNX Runtime refuses
                value.name = _WEIGHT + name
        proto = program.model_proto
        for tensor in [tensor for tensor in proto.graph.initializer if tensor.name.startswith(_WEIGHT)]:
            # An input, else the optimiser would merge weights with each other, and they could not be replaced.
            place = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(place)
            proto.graph.initializer.remove(tensor)
        self._structure: bytes = onnxscript.optimizer.optimize(proto).SerializeToString()

    def fill(self, network: SegmentationNetwork, info: CheckpointInfo, sha256: str = "") -> bytes:
        """As `export_onnx`, for a network of the same kind."""
        import onnx

        proto = onnx.load_from_string(self._structure)
        image, *weights = proto.graph.input
        del proto.graph.input[:]
        proto.graph.input.append(image)
        values = network.state_dict()
        for place in weights:
            value = values[place.name.removeprefix(_WEIGHT)].cpu().numpy()
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, place.name))
        width, height = self._size
        properties = _properties(network, info) | {"sha256": sha256, "width": str(width), "height": str(height)}
        onnx.helper.set_model_props(proto, {f"s4net.{key}": value for key, value in properties.items()})
        return bytes(proto.SerializeToString())


def export_onnx(network: SegmentationNetwork, info: CheckpointInfo, width: int, height: int, sha256: str = "") -> bytes:
    """The network as an ONNX file, normalisation included, for one image at a time of one size.

    Input ``image`` (1, 3, H, W) float32, RGB, 0..1; output ``logits`` (1, C, H, W) float32, channel c belonging to
    class id c + 1. The file's metadata say what it was made from, under names that begin with ``s4net.``.

    Args:
        network: on any device, in any mode; left as it is.
        info: description of its weights.
        width, height: size of the image.
        sha256: of the weights file.

    Raises:
        ExportError: PyTorch cannot express the network in ONNX.
        S4NetError: the libraries are not installed.
    """
    network = folded(network)
    return OnnxTemplate(network, width, height).fill(network, info, sha256)


def _properties(network: SegmentationNetwork, info: CheckpointInfo) -> dict[str, str]:
    model = network.settings
    return {
        "labels": json.dumps(network.label_space.names),
        "label_space": network.label_space.name,
        "first_label_id": "1",
        "input": "RGB, 0..1",
        "network": f"{model.architecture}/{model.encoder}",
        "version": str(info.version),
    }


class OnnxModel:
    """A graph in ONNX Runtime; may be called from any thread. `device` is where it computes.

    Args:
        graph: as `export_onnx` writes it.
        provider: execution provider; ``auto`` = CUDA where ONNX Runtime has it and `device` is a GPU, else the CPU.
        device: where images come from; its number picks the GPU.

    Raises:
        SettingsError: no such provider here.
        ExportError: ONNX Runtime refuses the graph.
        S4NetError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: bytes, provider: str = "auto", device: torch.device | None = None) -> None:
        runtime = _onnxruntime()
        device = device or torch.device("cpu")
        self.provider = pick_provider(provider, device)
        on_cuda = self.provider in _ON_CUDA
        self.device = torch.device("cuda", device.index or 0) if on_cuda else torch.device("cpu")
        chosen = (self.provider, {"device_id": str(self.device.index)} if on_cuda else {})
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors: its warnings speak of its own optimisations
        try:
            self._session = runtime.InferenceSession(
                graph, options, providers=[chosen] if self.provider == CPU_PROVIDER else [chosen, CPU_PROVIDER]
            )
        except Exception as error:
            raise ExportError(f"ONNX Runtime refuses the graph ({first_line(error)}): export it again") from error
        if self._session.get_providers()[0] != self.provider:  # it falls back to the CPU without an error
            raise SettingsError(
                f"execution provider {self.provider} does not start on this machine: are its driver and libraries "
                f"installed? segmentation.execution_provider {CPU_PROVIDER} always works"
            )
        self._shape: list[int] = self._session.get_outputs()[0].shape

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of its images."""
        return self._shape[2], self._shape[3]

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) float32 of images (B, 3, H, W) float32 RGB 0..1 at the graph's size."""
        return torch.cat([self._run(image) for image in images.to(self.device).contiguous().split(1)])

    def _run(self, image: Tensor) -> Tensor:
        logits = torch.empty(self._shape, device=self.device)
        place = (self.device.type, self.device.index or 0, np.float32)
        binding = self._session.io_binding()
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime works on a stream of its own
        try:
            binding.bind_input(INPUT, *place, list(image.shape), image.data_ptr())
            binding.bind_output(OUTPUT, *place, self._shape, logits.data_ptr())
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime cannot label an image of {tuple(image.shape)} ({first_line(error)}): export for the "
                "size in model.width and model.height"
            ) from error
        return logits


def pick_provider(name: str, device: torch.device) -> str:
    """The execution provider that a setting means.

    Args:
        name: ``auto``, or the name of a provider.
        device: where images come from.

    Raises:
        SettingsError: this machine's ONNX Runtime was built without it.
        S4NetError: ONNX Runtime is not installed.
    """
    available = _onnxruntime().get_available_providers()
    if name == "auto":
        return CUDA_PROVIDER if device.type == "cuda" and CUDA_PROVIDER in available else CPU_PROVIDER
    if name not in available:
        raise SettingsError(
            f"segmentation.execution_provider is '{name}' but this ONNX Runtime has {', '.join(available)}: use one of "
            "them or 'auto', or install another build, e.g. onnxruntime-gpu"
        )
    return name


def compare_with_torch(model: OnnxModel, network: SegmentationNetwork, images: int = 4) -> Comparison:
    """Answers of a graph beside those of the network that it was made from.

    Args:
        model: made from `network`.
        network: in evaluation mode.
        images: number of images; noise of several scales, always the same.
    """
    generator = torch.Generator().manual_seed(0)
    errors, largest, equal = [], [], []
    for index in range(images):
        noise = torch.rand(1, 3, 3 * 4**index, 4 * 4**index, generator=generator)
        image = F.interpolate(noise, size=model.size, mode="bilinear", align_corners=False)
        with torch.no_grad():
            expected = network(image.to(network.mean.device)).float().cpu()
        found = model.logits(image).cpu()
        errors.append(float((found - expected).abs().max()))
        largest.append(float(expected.abs().max()))
        equal.append(float((found.argmax(1) == expected.argmax(1)).float().mean()))
    return Comparison(max(errors), max(largest), sum(equal) / len(equal), images, model.provider)


def _check_exporter() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise _not_installed(error) from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise _not_installed(error) from error
    return onnxruntime


def _not_installed(error: ImportError) -> S4NetError:
    return S4NetError(f"ONNX needs libraries that are not installed ({error}): pip install onnx onnxruntime onnxscript")
