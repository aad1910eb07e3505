"""How many pixels an image may have: known from its header, before anything is decoded."""

import struct

from s4net_core.errors import BadFrame

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
DEFAULT_MEGAPIXELS = 50
_MILLION = 1_000_000
_IHDR = struct.Struct(">4x4sII")
"""Length, type, width and height: the beginning of a PNG's first chunk."""
_JPEG_FRAME = struct.Struct(">xHH")
"""Bits a sample, height and width: the beginning of a JPEG's start-of-frame segment."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset([0x00, 0x01, *range(0xD0, 0xD9)])
_max_pixels = DEFAULT_MEGAPIXELS * _MILLION


def limit_pixels(megapixels: int) -> None:
    """Set the largest number of pixels of an image for this process, in millions."""
    global _max_pixels
    _max_pixels = megapixels * _MILLION


def check_pixels(width: int, height: int) -> None:
    """Check the size of an image before memory is asked for.

    Raises:
        BadFrame: ``image_size`` when it has more pixels than the limit.
    """
    if width * height > _max_pixels:
        raise BadFrame(
            "image_size",
            f"an image of {width}x{height} has more than {_max_pixels // _MILLION} million pixels: make it smaller, or "
            "raise max_megapixels",
        )


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a PNG or JPEG; None when it is neither, or ends before its size."""
    try:
        if data.startswith(PNG_SIGNATURE):
            kind, width, height = _IHDR.unpack_from(data, len(PNG_SIGNATURE))
            return (width, height) if kind == b"IHDR" else None
        return _jpeg_size(data) if data.startswith(JPEG_START) else None
    except struct.error:
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = len(JPEG_START)
    while (at := data.find(b"\xff", at)) >= 0:
        (marker,) = struct.unpack_from("B", data, at + 1)
        if marker == 0xFF or marker in _JPEG_WITHOUT_LENGTH:  # 0xFF fills up
            at += 1
        elif marker in _JPEG_FRAMES:
            height, width = _JPEG_FRAME.unpack_from(data, at + 4)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
