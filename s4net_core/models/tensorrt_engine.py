"""TensorRT: an engine for one kind of NVIDIA GPU, built from an ONNX graph.

TensorRT needs an NVIDIA GPU to build; this code follows its documented API and has not run on one yet.
"""

from typing import Any

from s4net_core.errors import ExportError, S4NetError

WORKSPACE_BYTES = 2 * 1024**3
"""Memory that TensorRT may use for trying out kernels."""


def build_engine(graph: bytes, *, half: bool = False) -> bytes:
    """Serialised engine for this machine's GPU and this version of TensorRT; takes minutes. Untested on a GPU.

    Args:
        graph: as `onnx_model.export_onnx` writes it; names and shapes of input and output stay.
        half: let layers compute in float16 where that is faster.

    Raises:
        ExportError: TensorRT refuses the graph or cannot build the engine.
        S4NetError: TensorRT is not installed, or has no GPU.
    """
    tensorrt = _tensorrt()
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_explicit_batch(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ExportError(f"TensorRT {tensorrt.__version__} cannot read the ONNX graph ({errors}): use --format onnx")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if half:
        _allow_half(tensorrt, config)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT {tensorrt.__version__} cannot build the engine; its messages above say why: use --format onnx"
        )
    return bytes(engine)


def _explicit_batch(tensorrt: Any) -> int:
    """A flag without which version 8 refuses ONNX, and which later ones no longer know."""
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _allow_half(tensorrt: Any, config: Any) -> None:
    if not hasattr(tensorrt.BuilderFlag, "FP16"):
        raise S4NetError(f"TensorRT {tensorrt.__version__} has no float16 mode for such graphs: leave out --half")
    config.set_flag(tensorrt.BuilderFlag.FP16)


def check_tensorrt() -> None:
    """Say early that it is missing.

    Raises:
        S4NetError: with the remedy.
    """
    _tensorrt()


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise S4NetError(
            f"TensorRT is not installed ({error}): on a machine with an NVIDIA GPU `pip install tensorrt`, on a Jetson "
            "it comes with JetPack; --format onnx needs neither"
        ) from error
    return tensorrt
