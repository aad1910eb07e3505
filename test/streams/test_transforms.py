"""Transform buffer: every transform at any stamp, by the rules of tf2."""

import threading

import numpy as np
import pytest

from s4net_core.errors import BadFrame
from s4net_core.streams.transforms import TransformBuffer, TransformUnavailable

MS = 1_000_000
S = 1_000_000_000


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    T[:2, :2] = [[c, -s], [s, c]]
    T[:3, 3] = x, y, z
    return T


def robot() -> TransformBuffer:
    """Odom -> base (moves) -> camera (static); map -> odom (static); lidar on the base."""
    buffer = TransformBuffer(10 * S)
    buffer.set("map", "odom", 0, pose(x=100.0), static=True)
    buffer.set("base", "camera", 0, pose(z=1.0, yaw_deg=90.0), static=True)
    buffer.set("base", "lidar", 0, pose(x=0.5), static=True)
    for i in range(5):
        buffer.set("odom", "base", S + i * 100 * MS, pose(x=i, yaw_deg=10 * i))
    return buffer


class TestTransformBuffer:
    def test_chain_is_multiplied_in_the_right_order(self):
        T = robot().lookup("odom", "camera", S + 200 * MS)
        np.testing.assert_allclose(T, pose(x=2, yaw_deg=20) @ pose(z=1, yaw_deg=90), atol=1e-12)
        origin = T @ [0, 0, 0, 1]  # the camera sits one metre above a base at x = 2
        np.testing.assert_allclose(origin[:3], [2, 0, 1], atol=1e-12)

    def test_lookup_maps_source_to_target_and_back(self):
        buffer = robot()
        forth, back = buffer.lookup("map", "camera", S), buffer.lookup("camera", "map", S)
        np.testing.assert_allclose(forth @ back, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(forth[:3, 3], [100, 0, 1], atol=1e-12)

    def test_siblings_meet_at_their_common_parent_even_without_dynamic_data_there(self):
        T = robot().lookup("lidar", "camera", 77 * S)  # all static below base: any stamp will do
        np.testing.assert_allclose(T, np.linalg.inv(pose(x=0.5)) @ pose(z=1, yaw_deg=90), atol=1e-12)

    def test_a_frame_in_itself_is_identity(self):
        np.testing.assert_array_equal(robot().lookup("odom", "odom", 5), np.eye(4))
        np.testing.assert_array_equal(robot().lookup("unheard_of", "unheard_of", 5), np.eye(4))

    def test_between_two_stamps_translation_is_linear_and_rotation_slerped(self):
        T = robot().lookup("odom", "base", S + 125 * MS)
        np.testing.assert_allclose(T, pose(x=1.25, yaw_deg=12.5), atol=1e-12)

    def test_zero_is_the_newest_time_that_the_whole_chain_knows(self):
        buffer = robot()
        for stamp in (S + 50 * MS, S + 900 * MS):
            buffer.set("camera", "optical", stamp, pose())
        assert buffer.latest("odom", "optical") == S + 400 * MS
        np.testing.assert_allclose(buffer.lookup("odom", "base", 0), pose(x=4, yaw_deg=40), atol=1e-12)
        assert buffer.latest("base", "camera") == 0  # static

    @pytest.mark.parametrize(
        ("target", "source", "stamp", "reason", "text"),
        [
            ("odom", "camera_typo", S, "unknown_frame", "camera_typo"),
            ("odom", "other", S, "not_connected", "different trees"),
            ("odom", "base", S - 1, "too_old", "tf_history"),
            ("odom", "base", S + 401 * MS, "too_new", "0.001 s after its newest"),
        ],
    )
    def test_what_cannot_be_answered_says_why(self, target, source, stamp, reason, text):
        buffer = robot()
        buffer.set("island", "other", 0, pose(), static=True)
        with pytest.raises(TransformUnavailable, match=text) as caught:
            buffer.lookup(target, source, stamp)
        assert caught.value.reason == reason

    def test_ends_of_the_history_are_answered(self):
        buffer = robot()
        np.testing.assert_allclose(buffer.lookup("odom", "base", S), pose(), atol=1e-12)
        np.testing.assert_allclose(buffer.lookup("odom", "base", S + 400 * MS), pose(x=4, yaw_deg=40), atol=1e-12)

    def test_late_transforms_are_sorted_in(self):
        buffer = TransformBuffer(10 * S)
        for stamp in (0, 200, 100):
            buffer.set("odom", "base", S + stamp * MS, pose(x=stamp))
        np.testing.assert_allclose(buffer.lookup("odom", "base", S + 150 * MS), pose(x=150), atol=1e-12)

    def test_history_is_bounded(self):
        buffer = TransformBuffer(S)
        for i in range(100):
            buffer.set("odom", "base", (i + 1) * 100 * MS, pose(x=i))
        with pytest.raises(TransformUnavailable) as caught:
            buffer.lookup("odom", "base", 8 * S)
        assert caught.value.reason == "too_old"
        buffer.lookup("odom", "base", 9 * S)

    def test_what_is_older_than_the_history_is_ignored(self):
        buffer = TransformBuffer(S)
        buffer.set("odom", "base", 95 * S, pose(x=1))
        buffer.set("odom", "base", S, pose(x=9))
        with pytest.raises(TransformUnavailable) as caught:
            buffer.lookup("odom", "base", 2 * S)
        assert caught.value.reason == "too_old"
        assert buffer.latest("odom", "base") == 95 * S

    def test_anew_only_static_transforms_are_left(self):
        buffer = robot()
        fresh = buffer.anew()
        fresh.lookup("base", "camera", 5)
        with pytest.raises(TransformUnavailable) as caught:
            fresh.lookup("odom", "base", S)
        assert caught.value.reason == "not_connected"
        fresh.set("odom", "base", 200 * MS, pose(x=-7))  # another time
        np.testing.assert_allclose(fresh.lookup("map", "camera", 200 * MS)[:3, 3], [93, 0, 1], atol=1e-12)
        buffer.lookup("odom", "base", S)

    def test_a_single_sample_is_known_at_its_own_stamp_alone(self):
        buffer = TransformBuffer(S)
        buffer.set("odom", "base", S, pose(x=3))
        assert buffer.lookup("odom", "base", S)[0, 3] == 3
        for stamp, reason, may_heal in ((S - 1, "too_old", False), (S + 1, "too_new", True)):
            with pytest.raises(TransformUnavailable) as caught:
                buffer.lookup("odom", "base", stamp)
            assert (caught.value.reason, caught.value.may_heal) == (reason, may_heal)

    def test_a_late_transform_is_no_jump(self):
        buffer = robot()
        buffer.set("odom", "base", S - 500 * MS, pose(x=-5))
        np.testing.assert_allclose(buffer.lookup("odom", "base", S - 250 * MS), pose(x=-2.5), atol=1e-12)

    def test_a_frame_that_gets_another_parent_starts_anew(self):
        buffer = robot()
        buffer.set("dock", "base", S, pose(y=3))
        np.testing.assert_allclose(buffer.lookup("dock", "base", S), pose(y=3))
        with pytest.raises(TransformUnavailable):
            buffer.lookup("odom", "base", S)

    def test_leading_slashes_are_ignored_when_added_and_refused_when_asked_for(self):
        buffer = robot()
        buffer.set("/base", "/arm", 0, pose(y=1), static=True)
        np.testing.assert_allclose(buffer.lookup("base", "arm", S), pose(y=1))
        for names in (("/base", "arm"), ("base", "/arm"), ("base", "")):
            with pytest.raises(TransformUnavailable, match="leading '/'") as caught:
                buffer.lookup(*names, S)
            assert (caught.value.reason, caught.value.may_heal) == ("bad_name", False)

    def test_a_loop_of_frames_is_reported_instead_of_followed_forever(self):
        buffer = robot()
        buffer.set("a", "b", 0, pose(), static=True)
        buffer.set("b", "a", 0, pose(), static=True)
        with pytest.raises(TransformUnavailable, match="loop"):
            buffer.lookup("odom", "b", 0)

    def test_a_loop_does_not_matter_below_it(self):
        """As in tf2: the parents of the camera lead to odom, whatever odom's own parent is."""
        buffer = robot()
        buffer.set("camera", "odom", S, pose(x=7.0))
        np.testing.assert_allclose(buffer.lookup("odom", "base", S), pose(), atol=1e-12)
        assert buffer.latest("odom", "camera") == S + 400 * MS

    def test_a_loop_is_gone_when_its_publisher_has_stopped(self):
        """Somebody has published odom as a child of the camera until the stamp S."""
        buffer = TransformBuffer(10 * S)
        for i in range(5):
            buffer.set("odom", "base", S + i * 100 * MS, pose(x=i))
        buffer.set("base", "camera", 0, pose(z=1.0), static=True)
        buffer.set("base", "lidar", 0, pose(x=0.5), static=True)
        buffer.set("camera", "odom", S, pose(x=7.0))
        later = S + 100 * MS
        np.testing.assert_allclose(buffer.lookup("camera", "odom", later), pose(x=-1, z=-1.0), atol=1e-12)
        np.testing.assert_allclose(buffer.lookup("camera", "lidar", later), pose(x=0.5, z=-1.0), atol=1e-12)

    @pytest.mark.parametrize(
        ("parent", "child", "T"),
        [
            ("odom", "base", np.full((4, 4), np.nan)),
            ("odom", "base", np.diag([2.0, 1.0, 1.0, 1.0])),
            ("odom", "odom", np.eye(4)),
            ("", "base", np.eye(4)),
        ],
        ids=["nan", "scaled", "self", "unnamed"],
    )
    def test_what_is_no_transform_is_refused_and_leaves_the_buffer_as_it_was(self, parent, child, T):
        buffer = robot()
        newest = buffer.latest("map", "camera")
        with pytest.raises(BadFrame) as caught:
            buffer.set(parent, child, 2 * S, T)
        assert caught.value.reason == "pose"
        assert buffer.latest("map", "camera") == newest

    def test_stored_transforms_do_not_change_with_the_callers_array(self):
        buffer = TransformBuffer(S)
        T = pose(x=1)
        buffer.set("odom", "base", S, T)
        T[0, 3] = 9
        assert buffer.lookup("odom", "base", S)[0, 3] == 1

    def test_reading_while_another_thread_writes_gives_whole_transforms(self):
        buffer = TransformBuffer(50 * MS)
        buffer.set("odom", "base", S, pose(x=1.0, y=1.0))
        stop = threading.Event()

        def write() -> None:
            stamp = S
            while not stop.is_set():
                stamp += MS
                buffer.set("odom", "base", stamp, pose(x=stamp / S, y=stamp / S))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(300):
                T = buffer.lookup("odom", "base", 0)
                assert T[0, 3] == T[1, 3]
        finally:
            stop.set()
            writer.join()
