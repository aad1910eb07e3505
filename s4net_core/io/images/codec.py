"""ROS image payloads to arrays and back, without ROS: the same code decodes live topics and recorded bags."""

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame
from s4net_core.io.images.pixels import JPEG_START, PNG_SIGNATURE, check_pixels, encoded_size

MILLIMETRES = 1000.0
"""16UC1 depth is in millimetres (REP 118)."""

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
COLOR_ENCODINGS = tuple(_CHANNELS)
"""Encodings of colour that `decode_color` reads."""

_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
_DEPTH_TYPES: dict[str, np.dtype[Any]] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
_JPEG_END = b"\xff\xd9"
_JPEG_TAIL = 1024
"""Some cameras pad behind the end-of-image marker by up to this many bytes."""
_GREY_16 = bytes([16, 0])
"""Bit depth and colour type, bytes 24 and 25 of a PNG, of one channel with 16 bit."""
_DEPTH_HEADER = struct.Struct("<iff")
"""compressed_depth_image_transport's ConfigHeader: format, depthQuantA, depthQuantB."""


def decode_color(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Any) -> NDArray[np.uint8]:
    """Colour of a sensor_msgs/Image -> (H, W, 3) uint8 RGB, read-only; rgb8 without padding is not copied.

    Args:
        encoding: ``rgb8``, ``bgr8``, ``rgba8``, ``bgra8`` or ``mono8``.
        step: bytes a row, padding included.
        is_bigendian: unused for 8 bits; accepted so that all image fields pass through one call.
        data: anything with the buffer protocol.

    Raises:
        BadFrame: ``color_format`` for another encoding or when `data` is too short, ``image_size``.
    """
    if encoding not in _CHANNELS:
        raise BadFrame(
            "color_format", f"colour has encoding '{encoding}': configure the camera for one of {', '.join(_CHANNELS)}"
        )
    rows = _rows("color_format", data, height, width, step, np.dtype(np.uint8), _CHANNELS[encoding])
    if encoding == "rgb8":
        color: NDArray[np.uint8] = np.ascontiguousarray(rows)
    else:
        color = np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), _TO_RGB[encoding]), np.uint8)
    color.flags.writeable = False
    return color


def decode_depth(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Any
) -> NDArray[np.float32]:
    """Depth of a sensor_msgs/Image -> (H, W) float32, metres, 0 = none (REP 118: 0, NaN, ±Inf and negative are none).

    Args:
        encoding: ``16UC1`` or ``mono16`` (millimetres), ``32FC1`` (metres).
        step: bytes a row, padding included.
        is_bigendian: byte order of `data`.
        data: anything with the buffer protocol.

    Raises:
        BadFrame: ``depth_format`` for another encoding or when `data` is too short, ``image_size``.
    """
    if encoding not in _DEPTH_TYPES:
        raise BadFrame(
            "depth_format",
            f"depth has encoding '{encoding}': publish 16UC1 (millimetres) or 32FC1 (metres), see REP 118",
        )
    dtype = _DEPTH_TYPES[encoding].newbyteorder(">" if is_bigendian else "<")
    return _metres(_rows("depth_format", data, height, width, step, dtype, 1)[..., 0])


def decode_compressed_color(format: str, data: Any) -> NDArray[np.uint8]:
    """Colour of a sensor_msgs/CompressedImage (JPEG or PNG) -> (H, W, 3) uint8 RGB, read-only.

    Args:
        format: the message's format, for the error text only; the data itself tells its format.
        data: anything with the buffer protocol.

    Raises:
        BadFrame: ``color_format`` when it is no JPEG or PNG, or is truncated; ``image_size``.
    """
    blob = bytes(data)
    if blob.startswith(JPEG_START) and blob.rfind(_JPEG_END, max(len(blob) - _JPEG_TAIL, 0)) < 0:
        # OpenCV fills the missing part with grey instead of refusing it.
        raise BadFrame("color_format", f"compressed colour is truncated ({len(blob)} bytes, format '{format}')")
    if blob.startswith(PNG_SIGNATURE) and blob[24:26] == _GREY_16:
        raise BadFrame("color_format", "a PNG of one channel with 16 bit is depth, or grey that is not read: use 8 bit")
    image = imdecode(blob, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadFrame(
            "color_format",
            f"compressed colour ({len(blob)} bytes, format '{format}') is not a whole JPEG or PNG: set the publisher's "
            "compressed.format to jpeg or png",
        )
    color = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    color.flags.writeable = False
    return color


def decode_compressed_depth(format: str, data: Any) -> NDArray[np.float32]:
    """Depth of a ``compressedDepth`` CompressedImage (or a plain 16-bit PNG) -> (H, W) float32, metres, 0 = none.

    The payload is compressed_depth_image_transport's: 12 bytes of header, then a 16-bit PNG that holds millimetres
    (16UC1) or quantised inverse depth (32FC1: depth = A / (value - B)).

    Args:
        format: e.g. ``16UC1; compressedDepth png``.
        data: anything with the buffer protocol.

    Raises:
        BadFrame: ``depth_format`` for RVL, another encoding, or a PNG that is truncated or not 16 bit; ``image_size``.
    """
    blob = bytes(data)
    encoding, _, transport = (part.strip() for part in format.partition(";"))
    if encoding not in _DEPTH_TYPES or "rvl" in transport:
        raise BadFrame(
            "depth_format",
            f"compressed depth has format '{format}': set the publisher's compressedDepth.format to png, depth in "
            "16UC1 or 32FC1",
        )
    headerless = blob.startswith(PNG_SIGNATURE)
    png = blob if headerless else blob[_DEPTH_HEADER.size :]
    values = imdecode(png, cv2.IMREAD_UNCHANGED) if png.startswith(PNG_SIGNATURE) else None
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise BadFrame(
            "depth_format", f"compressed depth ({len(blob)} bytes, format '{format}') holds no whole 16-bit PNG"
        )
    if encoding != "32FC1":
        return _metres(values)
    if headerless:
        raise BadFrame("depth_format", "compressed 32FC1 depth has no header: it needs compressedDepth, not compressed")
    _, a, b = _DEPTH_HEADER.unpack_from(blob)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth[values == 0] = 0
    return _metres(depth)


def encode_compressed_color(color: NDArray[np.uint8], quality: int = 95) -> tuple[str, bytes]:
    """(H, W, 3) uint8 RGB -> (format, JPEG bytes) as compressed_image_transport writes them."""
    blob = cv2.imencode(".jpg", cv2.cvtColor(color, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "rgb8; jpeg compressed bgr8", blob.tobytes()


def encode_compressed_mask(mask: NDArray[np.uint8]) -> tuple[str, bytes]:
    """(H, W) uint8 -> (format, PNG bytes) as compressed_image_transport writes them, without loss."""
    png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return "mono8; png compressed ", png.tobytes()


def encode_compressed_depth(depth: NDArray[np.float32]) -> tuple[str, bytes]:
    """(H, W) float32 metres -> (format, bytes) of a 16UC1 ``compressedDepth`` PNG, lossless to the millimetre."""
    png = cv2.imencode(".png", depth_to_millimetres(depth), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return "16UC1; compressedDepth png", _DEPTH_HEADER.pack(0, 0.0, 0.0) + png.tobytes()


def depth_to_millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H, W) float32 metres, 0 = none -> (H, W) uint16 millimetres; values beyond 16 bits become 0."""
    millimetres = np.rint(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0) * MILLIMETRES)
    return np.where((millimetres > 0) & (millimetres <= np.iinfo(np.uint16).max), millimetres, 0).astype(np.uint16)


def imdecode(data: bytes, flags: int) -> NDArray[Any] | None:
    """Decode a PNG or JPEG with OpenCV; None when it is neither, or is damaged.

    Raises:
        BadFrame: ``image_size`` when it has more pixels than the limit.
    """
    size = encoded_size(data)
    if size is None:
        return None
    check_pixels(*size)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _rows(
    reason: str, data: Any, height: int, width: int, step: int, dtype: np.dtype[Any], channels: int
) -> NDArray[Any]:
    """View (H, W, channels) on a payload with padded rows.

    Raises:
        BadFrame: `reason` when the sizes do not fit, ``image_size`` when there are too many pixels.
    """
    check_pixels(width, height)
    row = width * channels * dtype.itemsize
    payload = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    if height <= 0 or width <= 0 or step < row or payload.size < height * step:
        raise BadFrame(
            reason,
            f"image of {width}x{height} with {channels * dtype.itemsize} bytes a pixel and step {step} has "
            f"{payload.size} bytes: it needs a step of at least {row} and height * step bytes; check the driver",
        )
    view = payload[: height * step].reshape(height, step)[:, :row]
    if not view.flags.c_contiguous and dtype.itemsize > 1:
        view = np.ascontiguousarray(view)
    return view.view(dtype).reshape(height, width, channels)


def _metres(values: NDArray[Any]) -> NDArray[np.float32]:
    """uint16 millimetres or float32 metres -> float32 metres, 0 = none."""
    if values.dtype.kind == "u":
        metres: NDArray[np.float32] = np.divide(values, np.float32(MILLIMETRES), dtype=np.float32)
        return metres
    with np.errstate(invalid="ignore"):  # NaN compares false
        return np.where((values > 0) & (values < np.inf), values, np.float32(0)).astype(np.float32, copy=False)
