"""``s4net import-model``: make a base model from a network of the Hugging Face hub."""

import argparse
import logging
import os
from pathlib import Path

from rich.console import Console

from s4net_core.classes import NATIVE
from s4net_core.cli.options import add_classes, add_classes_option, add_settings_options, settings_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "network", help="name on huggingface.co, e.g. nvidia/segformer-b0-finetuned-ade-512-512, or a folder"
    )
    parser.add_argument("output", type=Path, help="weights file to write")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    add_classes_option(parser, f"{NATIVE} (the network's own), ")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch the network, map its classes, write it, and print the classes that it lacks."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its errors are raised again as S4NetError
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    add_classes(args)
    settings = settings_from(args)
    from s4net_core.models.build import build_network
    from s4net_core.models.checkpoint import save_checkpoint

    model = settings.model.model_copy(
        update={"architecture": "transformers", "encoder": args.network, "encoder_weights": "imagenet"}
    )
    with Console(stderr=True).status(f"fetching {args.network}"):
        network = build_network(model)
    sha256 = save_checkpoint(args.output, network, half=args.half)
    names = network.label_space.names
    absent = [names[id - 1] for id in network.body.without_members]
    console = Console()
    console.print(f"{args.output}: {len(names) - len(absent)} of {len(names)} classes, sha256 {sha256[:12]}")
    if absent:
        console.print(f"not known to it before training: {', '.join(absent)}")
    return 0
