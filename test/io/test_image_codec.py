"""Image payloads against values that are worked out by hand."""

import array
import struct

import cv2
import numpy as np
import pytest

from s4net_core.errors import BadFrame
from s4net_core.io.images.codec import (
    decode_color,
    decode_compressed_color,
    decode_compressed_depth,
    decode_depth,
    depth_to_millimetres,
    encode_compressed_color,
    encode_compressed_depth,
)
from s4net_core.io.images.pixels import DEFAULT_MEGAPIXELS, encoded_size, limit_pixels

H, W = 3, 5
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
RAMP_X, RAMP_Y = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 24))
SMOOTH = np.stack((RAMP_X, RAMP_Y, np.full_like(RAMP_X, 90)), -1).astype(np.uint8)


def padded(image: np.ndarray, padding: int) -> bytes:
    """Rows of an image, each followed by bytes that must not show."""
    rows = image.reshape(image.shape[0], -1).view(np.uint8)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB).tobytes()


class TestColor:
    @pytest.mark.parametrize("padding", [0, 1, 7])
    @pytest.mark.parametrize(
        ("encoding", "image"),
        [
            ("rgb8", RGB),
            ("bgr8", RGB[..., ::-1]),
            ("rgba8", np.dstack((RGB, np.full((H, W), 17, np.uint8)))),
            ("bgra8", np.dstack((RGB[..., ::-1], np.full((H, W), 17, np.uint8)))),
        ],
    )
    def test_every_encoding_gives_the_same_rgb(self, encoding, image, padding):
        image = np.ascontiguousarray(image)
        step = W * image.shape[2] + padding
        color = decode_color(encoding, H, W, step, False, padded(image, padding))
        np.testing.assert_array_equal(color, RGB)
        assert color.dtype == np.uint8
        assert color.flags.c_contiguous

    def test_grey_has_three_equal_channels(self):
        color = decode_color("mono8", H, W, W, False, RGB[..., 0].tobytes())
        np.testing.assert_array_equal(color, np.repeat(RGB[..., :1], 3, axis=2))

    @pytest.mark.parametrize(
        "wrap",
        [bytes, bytearray, lambda b: array.array("B", b), memoryview],
        ids=["bytes", "bytearray", "array", "view"],
    )
    def test_rgb8_is_not_copied_and_cannot_be_written_to(self, wrap):
        data = wrap(RGB.tobytes())
        color = decode_color("rgb8", H, W, W * 3, False, data)
        assert np.shares_memory(color, np.frombuffer(data, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            color[0, 0, 0] = 1

    def test_payload_of_a_bag_reader_is_taken_as_it_is(self):
        data = np.frombuffer(RGB.tobytes(), np.uint8)
        color = decode_color("rgb8", H, W, W * 3, False, data)
        np.testing.assert_array_equal(color, RGB)
        assert np.shares_memory(color, data)

    @pytest.mark.parametrize("encoding", ["16UC1", "32SC1", "yuv422", ""])
    def test_other_encodings_are_named_with_the_remedy(self, encoding):
        with pytest.raises(BadFrame, match=f"'{encoding}'.*rgb8") as caught:
            decode_color(encoding, H, W, W * 3, False, bytes(H * W * 3))
        assert caught.value.reason == "color_format"

    @pytest.mark.parametrize(
        ("height", "width", "step", "size"),
        [(H, W, W * 3, H * W * 3 - 1), (H, W, W * 3 - 1, 1000), (H, W, W * 3, 0), (0, W, W * 3, 100), (H, 0, 0, 100)],
        ids=["short", "step", "empty", "no rows", "no columns"],
    )
    def test_sizes_that_do_not_fit_are_refused(self, height, width, step, size):
        with pytest.raises(BadFrame) as caught:
            decode_color("rgb8", height, width, step, False, bytes(size))
        assert caught.value.reason == "color_format"


class TestDepth:
    MM = np.array([[0, 1, 1234, 65535, 999]], np.uint16).repeat(H, 0)

    @pytest.mark.parametrize("padding", [0, 1, 6])
    @pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
    @pytest.mark.parametrize(("is_bigendian", "dtype"), [(False, "<u2"), (True, ">u2")])
    def test_millimetres_become_metres(self, encoding, is_bigendian, dtype, padding):
        data = padded(self.MM.astype(dtype), padding)
        depth = decode_depth(encoding, H, W, W * 2 + padding, is_bigendian, data)
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth[1], np.float32([0, 0.001, 1.234, 65.535, 0.999]))

    @pytest.mark.parametrize(("is_bigendian", "dtype"), [(False, "<f4"), (True, ">f4")])
    def test_what_is_no_distance_becomes_zero(self, is_bigendian, dtype):
        metres = np.array([[1.5, np.nan, np.inf, -np.inf, -1.0]], dtype).repeat(H, 0)
        depth = decode_depth("32FC1", H, W, W * 4 + 2, is_bigendian, padded(metres, 2))
        assert depth.dtype == np.float32
        assert depth.dtype.isnative
        np.testing.assert_array_equal(depth, np.float32([[1.5, 0, 0, 0, 0]]).repeat(H, 0))

    @pytest.mark.parametrize("encoding", ["8UC1", "16SC1", "64FC1", "mono8", "rgb8"])
    def test_other_encodings_are_refused(self, encoding):
        with pytest.raises(BadFrame, match="REP 118") as caught:
            decode_depth(encoding, H, W, W * 8, False, bytes(H * W * 8))
        assert caught.value.reason == "depth_format"

    def test_short_data_is_refused(self):
        with pytest.raises(BadFrame, match="29 bytes") as caught:
            decode_depth("16UC1", H, W, W * 2, False, bytes(H * W * 2 - 1))
        assert caught.value.reason == "depth_format"

    def test_the_senders_data_is_not_changed(self):
        data = bytearray(np.float32([[np.nan, 1, 2, 3, -4]]).repeat(H, 0).tobytes())
        before = bytes(data)
        decode_depth("32FC1", H, W, W * 4, False, data)[:] = 5
        assert bytes(data) == before


class TestCompressedColor:
    def test_png_is_exact_and_rgb(self):
        png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
        np.testing.assert_array_equal(decode_compressed_color("rgb8; png compressed bgr8", png), RGB)

    def test_jpeg_round_trip_keeps_the_order_of_channels(self):
        format, data = encode_compressed_color(SMOOTH)
        assert format == "rgb8; jpeg compressed bgr8"
        decoded = decode_compressed_color(format, array.array("B", data))
        assert decoded.shape == SMOOTH.shape
        assert np.abs(decoded.astype(int) - SMOOTH).mean() < 3

    def test_grey_jpeg_becomes_rgb(self):
        jpeg = cv2.imencode(".jpg", SMOOTH[..., 0])[1].tobytes()
        assert decode_compressed_color("mono8; jpeg compressed mono8", jpeg).shape == SMOOTH.shape

    def test_padding_behind_a_jpeg_is_harmless(self):
        format, data = encode_compressed_color(SMOOTH)
        decode_compressed_color(format, data + bytes(500))

    @pytest.mark.parametrize("extension", [".jpg", ".png"])
    @pytest.mark.parametrize("share", [0.99, 0.5, 0.05])
    def test_truncated_pictures_are_refused_instead_of_filled_with_grey(self, extension, share):
        data = cv2.imencode(extension, np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))[1].tobytes()
        with pytest.raises(BadFrame) as caught:
            decode_compressed_color("jpeg", data[: int(len(data) * share)])
        assert caught.value.reason == "color_format"

    @pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50)])
    def test_what_is_no_picture_is_refused(self, data):
        with pytest.raises(BadFrame, match="jpeg or png"):
            decode_compressed_color("h264", data)


class TestCompressedDepth:
    DEPTH = np.array([[0, 0.5, 1.0, 2.0, 9.999]], np.float32).repeat(H, 0)

    def test_millimetres_survive_their_round_trip(self):
        format, data = encode_compressed_depth(self.DEPTH)
        assert format == "16UC1; compressedDepth png"
        assert data[:12] == bytes(12)
        np.testing.assert_allclose(decode_compressed_depth(format, data), self.DEPTH, atol=1e-6)

    @pytest.mark.parametrize(
        "format", ["32FC1; compressedDepth png", "32FC1; compressedDepth", "32FC1;compressedDepth"]
    )
    def test_inverse_depth_is_dequantised(self, format):
        # As compressed_depth_image_transport quantises, with its defaults depth_max 10 and depth_quantization 100.
        a = 100.0 * 101.0
        b = 1.0 - a / 10.0
        quantised = np.where(self.DEPTH > 0, a / np.maximum(self.DEPTH, 1e-9) + b, 0).astype(np.uint16)
        data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", quantised)[1].tobytes()
        depth = decode_compressed_depth(format, data)
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth[:, 0], 0)
        np.testing.assert_allclose(depth, self.DEPTH, rtol=2e-3)

    def test_a_plain_16_bit_png_is_read_as_millimetres(self):
        png = cv2.imencode(".png", np.uint16([[0, 1500], [2, 3]]))[1].tobytes()
        depth = decode_compressed_depth("16UC1; png compressed ", png)
        np.testing.assert_array_equal(depth, np.float32([[0, 1.5], [0.002, 0.003]]))

    @pytest.mark.parametrize(
        ("format", "picture"),
        [
            ("16UC1; compressedDepth rvl", np.zeros((4, 6), np.uint16)),
            ("rgb8; jpeg compressed bgr8", np.zeros((4, 6), np.uint16)),
            ("16UC1; compressedDepth png", np.zeros((4, 6), np.uint8)),
            ("16UC1; compressedDepth png", np.zeros((4, 6, 3), np.uint16)),
        ],
        ids=["rvl", "colour", "8 bit", "three channels"],
    )
    def test_other_payloads_are_refused(self, format, picture):
        data = bytes(12) + cv2.imencode(".png", picture)[1].tobytes()
        with pytest.raises(BadFrame) as caught:
            decode_compressed_depth(format, data)
        assert caught.value.reason == "depth_format"

    @pytest.mark.parametrize("length", [0, 5, 12, 15, 60, -5])
    def test_short_data_is_refused(self, length):
        format, data = encode_compressed_depth(np.random.default_rng(0).uniform(0, 9, (30, 40)).astype(np.float32))
        with pytest.raises(BadFrame) as caught:
            decode_compressed_depth(format, data[:length])
        assert caught.value.reason == "depth_format"

    def test_inverse_depth_without_its_parameters_is_refused(self):
        png = cv2.imencode(".png", np.ones((2, 2), np.uint16))[1].tobytes()
        with pytest.raises(BadFrame, match="no header"):
            decode_compressed_depth("32FC1; png compressed ", png)

    def test_what_16_bits_cannot_hold_becomes_none(self):
        depth = np.float32([[np.nan, np.inf, -1, 65.535, 65.536, 0.0004, 0.0006]])
        np.testing.assert_array_equal(depth_to_millimetres(depth), [[0, 0, 0, 65535, 0, 0, 1]])


class TestPixels:
    """A few bytes may stand for a picture that needs gigabytes."""

    @pytest.fixture(autouse=True)
    def limit(self):
        limit_pixels(1)
        yield
        limit_pixels(DEFAULT_MEGAPIXELS)

    @pytest.mark.parametrize("extension", [".png", ".jpg"])
    def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(self, extension, monkeypatch):
        blob = cv2.imencode(extension, np.zeros((1000, 1001), np.uint8))[1].tobytes()
        monkeypatch.setattr(cv2, "imdecode", None)
        with pytest.raises(
            BadFrame, match=r"1001x1000 has more than 1 million pixels: .* raise max_megapixels"
        ) as caught:
            decode_compressed_color("", blob)
        assert caught.value.reason == "image_size"

    def test_the_limit_itself_is_allowed_and_the_setting_moves_it(self):
        assert decode_compressed_color("", cv2.imencode(".png", np.zeros((1000, 1000), np.uint8))[1]).shape[0] == 1000
        limit_pixels(2)
        assert decode_compressed_color("", cv2.imencode(".png", np.zeros((1000, 1001), np.uint8))[1]).shape[1] == 1001

    def test_compressed_depth_and_raw_images_have_the_same_limit(self):
        blob = cv2.imencode(".png", np.zeros((1000, 1001), np.uint16))[1].tobytes()
        with pytest.raises(BadFrame, match="1001x1000"):
            decode_compressed_depth("16UC1; compressedDepth png", bytes(12) + blob)
        with pytest.raises(BadFrame, match="1001x1000"):
            decode_color("mono8", 1000, 1001, 1001, False, bytes(1001 * 1000))

    @pytest.mark.parametrize("flags", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]])
    def test_the_size_is_read_from_every_kind_of_jpeg(self, flags):
        blob = cv2.imencode(".jpg", SMOOTH, flags)[1].tobytes()
        exif = b"\xff\xe1" + struct.pack(">H", 2 + 9) + b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01"  # a thumbnail's frame
        assert encoded_size(blob[:2] + exif + b"\xff\xff" + blob[2:]) == (40, 24)

    @pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 20, 23])
    def test_a_header_that_is_cut_off_has_no_size(self, length):
        for extension in (".png", ".jpg"):
            assert encoded_size(cv2.imencode(extension, SMOOTH)[1].tobytes()[:length]) is None
