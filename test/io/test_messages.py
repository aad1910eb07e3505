"""Fields of messages to arrays and back; messages are stood in for by anything with their attributes."""

from types import SimpleNamespace

import numpy as np
import pytest

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Intrinsics
from s4net_core.io.bags.messages import (
    calibration_of,
    intrinsics_from_calibration,
    intrinsics_from_info,
    transform_matrix,
)


class TestIntrinsics:
    K = (600.0, 0.0, 320.5, 0.0, 610.0, 240.5, 0.0, 0.0, 1.0)

    def test_k_is_row_major(self):
        intrinsics = intrinsics_from_calibration(640, 480, np.array(self.K), np.zeros(5))
        assert (intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy) == (600, 610, 320.5, 240.5)
        assert (intrinsics.width, intrinsics.height) == (640, 480)
        assert intrinsics.distortion == ()

    @pytest.mark.parametrize(("model", "count"), [("plumb_bob", 5), ("rational_polynomial", 8)])
    def test_distortion_is_kept_in_its_order(self, model, count):
        d = [0.1 * (i + 1) for i in range(count)]
        assert intrinsics_from_calibration(640, 480, self.K, d, model).distortion == tuple(d)

    @pytest.mark.parametrize("bad", [0.0, -600.0, np.nan, np.inf])
    @pytest.mark.parametrize("entry", [0, 4])
    def test_an_uncalibrated_camera_is_refused(self, bad, entry):
        k = list(self.K)
        k[entry] = bad
        with pytest.raises(BadFrame, match="calibrated") as caught:
            intrinsics_from_calibration(640, 480, k, [])
        assert caught.value.reason == "intrinsics"

    @pytest.mark.parametrize(("model", "d"), [("equidistant", [0.1, 0, 0, 0]), ("plumb_bob", [0.1, 0.2])])
    def test_a_lens_that_is_not_undone_is_refused(self, model, d):
        with pytest.raises(BadFrame, match="rectify") as caught:
            intrinsics_from_calibration(640, 480, self.K, d, model)
        assert caught.value.reason == "distortion"

    def test_nan_distortion_is_refused(self):
        with pytest.raises(BadFrame) as caught:
            intrinsics_from_calibration(640, 480, self.K, [np.nan] * 5)
        assert caught.value.reason == "intrinsics"

    def test_fisheye_without_coefficients_is_a_pinhole(self):
        assert intrinsics_from_calibration(640, 480, self.K, [0.0] * 4, "equidistant").distortion == ()


class TestCalibration:
    @pytest.mark.parametrize(
        ("count", "filled", "model"),
        [(0, 5, "plumb_bob"), (4, 5, "plumb_bob"), (5, 5, "plumb_bob"), (8, 8, "rational_polynomial")],
    )
    def test_what_is_written_is_read_back(self, count, filled, model):
        distortion = tuple(0.01 * (i + 1) for i in range(count))
        lens = Intrinsics(640, 360, 500.0, 510.0, 320.5, 170.25, distortion)
        fields = calibration_of(lens)
        assert (fields.distortion_model, len(fields.d)) == (model, filled)
        read = intrinsics_from_info(SimpleNamespace(width=640, height=360, **fields._asdict()))
        assert (read.matrix == lens.matrix).all()
        assert read.distortion[:count] == distortion
        assert not any(read.distortion[count:])

    def test_a_rectified_stream_is_not_undistorted_again_and_has_the_matrix_of_its_projection(self):
        """image_proc publishes the camera_info of the raw image, D included, beside the rectified one."""
        fields = calibration_of(Intrinsics(640, 360, 500.0, 510.0, 320.5, 170.25, (0.1, 0.2, 0.0, 0.0, 0.0)))
        p = [450.0, 0, 310.0, 0, 0, 460.0, 180.0, 0, 0, 0, 1, 0]
        info = SimpleNamespace(width=640, height=360, **fields._replace(p=p)._asdict())
        assert intrinsics_from_info(info).distortion[:2] == (0.1, 0.2)
        assert intrinsics_from_info(info, rectified=True) == Intrinsics(640, 360, 450.0, 460.0, 310.0, 180.0)
        info.p = np.zeros(12)
        assert intrinsics_from_info(info, rectified=True) == Intrinsics(640, 360, 500.0, 510.0, 320.5, 170.25)

    @pytest.mark.parametrize(
        ("topic", "setting", "rectified"),
        [
            ("/camera/image_rect_color", "auto", True),
            ("/rgb/image_rect/compressed", "auto", True),
            ("/left/rectified", "auto", True),
            ("/color/image_raw", "auto", False),
            ("/direct/image_raw", "auto", False),
            ("/color/image_raw", "always", True),
            ("/camera/image_rect_color", "never", False),
        ],
    )
    def test_a_stream_is_rectified_if_its_name_or_the_setting_says_so(self, topic, setting, rectified):
        assert StreamSettings(rectified=setting).is_rectified(topic) == rectified

    def test_an_unrectified_camera_projects_with_its_own_matrix(self):
        fields = calibration_of(Intrinsics(640, 360, 500.0, 510.0, 320.5, 170.25))
        assert fields.k == [500.0, 0, 320.5, 0, 510.0, 170.25, 0, 0, 1]
        assert fields.p == [500.0, 0, 320.5, 0, 0, 510.0, 170.25, 0, 0, 0, 1, 0]
        assert fields.r == [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_a_transform_is_read_by_its_attributes():
    translation, rotation = SimpleNamespace(x=1, y=2, z=3), SimpleNamespace(x=0, y=0, z=np.sqrt(0.5), w=np.sqrt(0.5))
    T = transform_matrix(SimpleNamespace(translation=translation, rotation=rotation))
    np.testing.assert_allclose(T, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-12)
