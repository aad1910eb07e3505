"""The weights file of the base model: a user's, a public model for real rooms, or the demo's."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT as HF_ENDPOINT

from s4net_core.config import ModelSettings
from s4net_core.errors import BaseModelMissing, CheckpointError, S4NetError, first_line
from s4net_core.files import TEMPORARY, FolderLock, share_file, write_result

log = logging.getLogger(__name__)

AUTO, DEMO = "auto", "demo"
"""Values of the setting `checkpoint` that are no files."""
MODELS_FOLDER = Path("~/.ros/s4net/models")
_POLL_S = 0.2


@dataclass(frozen=True)
class PublicModel:
    """A network of the Hugging Face hub whose licence lets everybody use it.

    Args:
        network: name on huggingface.co.
        licence: SPDX identifier, from its model card.
        about: what it is and what it was trained on.
    """

    network: str
    licence: str
    about: str

    @property
    def file_name(self) -> str:
        """Name of the weights file that is made from it."""
        return self.network.rpartition("/")[2] + ".safetensors"


PUBLIC_MODEL = PublicModel(
    "openmmlab/upernet-convnext-tiny", "MIT", "UPerNet on ConvNeXt-tiny, trained on ADE20K, 241 MB to fetch"
)
"""What `checkpoint` = auto means."""


def base_model_file(checkpoint: str, model: ModelSettings, folder: Path = MODELS_FOLDER) -> Path:
    """The weights file that the setting `checkpoint` stands for; the public model is fetched when it is not there yet.

    Args:
        checkpoint: a file, `AUTO` or `DEMO`.
        model: image size for which a network that is fetched is tried; the file says it.
        folder: of fetched models; two processes that need the same model fetch it once.

    Raises:
        BaseModelMissing: the public model is not in the folder and cannot be fetched.
        CheckpointError: the setting is empty.
        S4NetError: the demo's model was not installed, or the folder cannot be written.
    """
    if not checkpoint:
        raise CheckpointError(f"checkpoint is empty: name the weights file of the base model, '{AUTO}' or '{DEMO}'")
    if checkpoint == DEMO:
        return share_file("demo", "weights", "base.safetensors")
    if checkpoint != AUTO:
        return Path(checkpoint).expanduser()
    file = public_model_file(folder)
    if not file.is_file():
        with _alone(file.parent):
            if not file.is_file():
                _fetch(PUBLIC_MODEL, model, file)
    return file


def public_model_file(folder: Path = MODELS_FOLDER) -> Path:
    """Where the public model lies once it has been fetched or copied."""
    return folder.expanduser() / PUBLIC_MODEL.file_name


def _fetch(public: PublicModel, model: ModelSettings, file: Path) -> None:
    """Import the network from the hub, and write what it is beside it."""
    # late: both import torch, and `s4net live` asks for the file before it starts its nodes
    from s4net_core.models.build import build_network
    from s4net_core.models.checkpoint import save_checkpoint

    for left_behind in file.parent.glob(f".{file.name}.*{TEMPORARY}"):  # by a process that was killed
        left_behind.unlink()
    log.warning("fetching the base model %s (%s, licence %s)", public.network, public.about, public.licence)
    kind = {"architecture": "transformers", "encoder": public.network, "encoder_weights": "imagenet"}
    # Its size is that of the file from now on, whatever size the settings of the first start give.
    fetched = model.model_copy(update=kind | {"width": 0, "height": 0})
    try:
        _check_reachable(public.network)
        network = build_network(fetched)
    except (S4NetError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise BaseModelMissing(
            f"there is no base model: {public.network} could not be fetched ({first_line(cause)}). "
            f"On a machine with a network run `s4net import-model {public.network} {file.name}` and copy the file to "
            f"{file.parent}, or choose another one with checkpoint:=FILE (of a command: --checkpoint FILE), where FILE "
            f"may be '{DEMO}' for a dry run",
            file,
        ) from error
    sha256 = save_checkpoint(file, network)
    notice = (
        f"{file.name}: {public.network} of huggingface.co\n{public.about}\nlicence: {public.licence}\n"
        f"size: {file.stat().st_size} bytes\nSHA-256: {sha256}\n"
    )
    write_result(file.with_suffix(".txt"), notice)
    log.warning("%s", notice.strip().replace("\n", "; "))


def _check_reachable(network: str) -> None:
    """Without a network the hub's library tries for half a minute, and writes a line for each attempt.

    Raises:
        OSError: the hub's name is not known here, and the network was not fetched before.
    """
    if Path(network).is_dir() or getproxies() or isinstance(try_to_load_from_cache(network, "config.json"), str):
        return
    host = urlsplit(HF_ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise ConnectionError(f"{host} cannot be reached: {error}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into the folder."""
    while True:
        try:
            lock = FolderLock.of_new(folder, "wait until it has fetched the base model")
        except S4NetError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            time.sleep(_POLL_S)
        else:
            with lock:
                yield
            return
