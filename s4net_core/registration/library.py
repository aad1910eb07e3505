"""Imports Open3D on first use."""

import ctypes
import importlib
import importlib.util
from functools import cache
from typing import Any

from s4net_core.errors import RegistrationError


@cache
def open3d() -> Any:
    """The module ``open3d``.

    Raises:
        RegistrationError: it is not installed, or the system lacks a library that it needs.
    """
    if importlib.util.find_spec("open3d") is None:
        raise RegistrationError("registration needs Open3D, which is not installed: pip install open3d libusb-package")
    _provide_libusb()
    try:
        module = importlib.import_module("open3d")
    except ImportError as error:
        raise RegistrationError(
            f"Open3D cannot be loaded ({error}): install the system library that it names, e.g. apt-get install "
            "libusb-1.0-0 libgl1 libgomp1"
        ) from error
    module.utility.set_verbosity_level(module.utility.VerbosityLevel.Error)  # views that do not fit are expected
    return module


def _provide_libusb() -> None:
    """Load libusb from PyPI's package, if installed. Open3D links to libusb for cameras; bare machines lack it."""
    if importlib.util.find_spec("libusb_package") is not None:
        path = importlib.import_module("libusb_package").get_library_path()
        if path is not None:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
