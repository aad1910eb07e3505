"""``s4net export``: write a network as an ONNX graph."""

import argparse
from pathlib import Path

from rich.console import Console

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.errors import ExportError
from s4net_core.files import write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", type=Path, help="weights file")
    parser.add_argument("output", type=Path, help="file to write")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Export, compare with PyTorch, write; the image size is the checkpoint's unless the settings give one."""
    settings, console = settings_from(args), Console()
    from s4net_core.models.checkpoint import file_sha256, load_checkpoint
    from s4net_core.models.onnx_model import OPSET, OnnxModel, compare_with_torch, export_onnx

    with Console(stderr=True).status("exporting, and comparing with PyTorch"):
        sha256 = file_sha256(args.checkpoint)
        network, info = load_checkpoint(args.checkpoint, sha256=sha256)
        width, height = settings.model.sized(info.model).size
        data = export_onnx(network, info, width, height, sha256)
        compared = compare_with_torch(OnnxModel(data), network)
    console.print(
        f"ONNX opset {OPSET}, {width}x{height}; {compared.images} images against PyTorch: logits "
        f"of up to {compared.largest_logit:.3g} differ by up to {compared.logit_error:.2g}, "
        f"{compared.equal_labels:.3%} of the labels are equal"
    )
    compared.check()
    write_result(args.output, data, ExportError)
    console.print(f"{args.output}: {len(data) / 1e6:.1f} MB")
    return 0
