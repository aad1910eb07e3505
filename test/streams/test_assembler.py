"""Frames from streams: what comes out, and under which reason everything else is counted."""

import re
from pathlib import Path

import numpy as np
import pytest
from looped_streams import LAGS, START, around_a_jump, looped

import s4net_core
from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Frame, Intrinsics, LazyView, decoded
from s4net_core.io.bags.messages import intrinsics_from_calibration
from s4net_core.io.images.codec import decode_color, decode_depth
from s4net_core.streams.assembler import WAITING_QUEUES, FrameAssembler, Picture
from s4net_core.streams.drops import DROP_REASONS
from s4net_core.streams.offline import StreamAssembler

MS = 1_000_000
S = 1_000_000_000
H, W = 6, 10
STEP = 33 * MS
INTRINSICS = Intrinsics(W, H, 8.0, 8.0, 4.5, 2.5)


def color_at(stamp: int, value: int = 100, shape: tuple[int, ...] = (H, W, 3), frame: str = "optical") -> Picture:
    return Picture(stamp, frame, lambda: np.full(shape, value, np.uint8))


def depth_at(stamp: int, value: float = 2.0, shape: tuple[int, ...] = (H, W), frame: str = "optical") -> Picture:
    return Picture(stamp, frame, lambda: np.full(shape, value, np.float32))


def pose(x: float) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


class Camera:
    """A sound camera on a moving base; tests change one thing at a time."""

    def __init__(self, **settings: object) -> None:
        self.assembler = StreamAssembler(StreamSettings(**settings))
        self.assembler.add_transform("base", "optical", 0, pose(0.5), static=True)
        self.frames: list[Frame] = []
        self.expected = 0

    def shoot(self, stamp: int, *, color=None, depth=None, info=INTRINSICS, x: float | None = 0.0) -> None:
        self.expected += 1
        if x is not None:
            self.assembler.add_transform("odom", "base", stamp, pose(x))
        if info is not None:
            self.assembler.add_camera_info(stamp, lambda: info)
        self.assembler.add_color(color or color_at(stamp))
        if depth is not False:
            self.assembler.add_depth(depth or depth_at(stamp))
        self.poll()

    def deliver(self, topic: str, stamp: int, x: float) -> None:
        """One message of one topic."""
        self.expected += topic == "color"
        match topic:
            case "tf":
                self.assembler.add_transform("odom", "base", stamp, pose(x))
            case "info":
                self.assembler.add_camera_info(stamp, lambda: INTRINSICS)
            case "color":
                self.assembler.add_color(color_at(stamp))
            case "depth":
                self.assembler.add_depth(depth_at(stamp))
        self.poll()

    def poll(self) -> None:
        for frame in decoded(iter(self.assembler.poll, None)):
            self.frames.append(frame)
            self.check()
        self.check()

    def end(self) -> dict[str, int]:
        self.assembler.end()
        self.poll()
        assert self.assembler.waiting == 0
        return dict(self.assembler.skipped)

    def check(self) -> None:
        """Every frame is counted, and every reason is documented and has a text."""
        assembler = self.assembler
        assert assembler.received == self.expected
        assert assembler.delivered == len(self.frames)
        assert assembler.received == assembler.delivered + sum(assembler.skipped.values()) + assembler.waiting
        assert set(assembler.skipped) <= set(DROP_REASONS)
        assert all(assembler.details[reason] for reason in assembler.skipped)

    @property
    def stamps(self) -> list[int]:
        return [frame.stamp for frame in self.frames]


class TestGoodStreams:
    def test_a_frame_has_everything_that_came_in(self):
        camera = Camera()
        camera.shoot(S, x=3.0)
        (frame,) = camera.frames
        assert (frame.stamp, frame.frame_id, frame.intrinsics) == (S, "optical", INTRINSICS)
        assert frame.depth is not None
        assert frame.color[0, 0].tolist() == [100, 100, 100]
        np.testing.assert_array_equal(frame.depth, np.full((H, W), 2, np.float32))
        np.testing.assert_allclose(frame.T_world_camera, pose(3.5))
        assert camera.end() == {}

    def test_a_camera_without_depth_gives_every_colour_image_at_once(self):
        camera = Camera()
        camera.assembler = StreamAssembler(StreamSettings(), with_depth=False)
        camera.assembler.add_transform("base", "optical", 0, pose(0.5), static=True)
        for i in range(5):
            camera.shoot(S + i * STEP, depth=None if i % 2 else False)  # what depth there is, is passed over
        assert camera.stamps == [S + i * STEP for i in range(5)]
        assert all(frame.depth is None for frame in camera.frames)
        assert camera.end() == {}

    def test_pose_is_interpolated_to_the_stamp_of_the_colour_image(self):
        camera = Camera()
        camera.assembler.add_transform("odom", "base", S, pose(0.0))
        camera.shoot(S + 25 * MS, x=None)
        assert camera.frames == []
        camera.assembler.add_transform("odom", "base", S + 100 * MS, pose(1.0))
        camera.poll()
        np.testing.assert_allclose(camera.frames[0].T_world_camera, pose(0.75))

    def test_slow_tracking_delays_frames_but_loses_none(self):
        camera = Camera(pose_wait=1.0)
        for i in range(10):
            camera.shoot(S + i * STEP, x=None)
        assert (camera.frames, camera.assembler.waiting) == ([], 10)
        for i in range(10):
            camera.assembler.add_transform("odom", "base", S + i * STEP, pose(i * 0.01))
        camera.poll()
        assert camera.stamps == [S + i * STEP for i in range(10)]
        assert camera.end() == {}

    def test_nothing_is_decoded_before_the_frame_is_complete(self):
        def decode() -> np.ndarray:
            raise AssertionError("decoded too early")

        camera = Camera(pose_wait=0.1)
        for i in range(8):
            camera.shoot(S + i * STEP, x=None, color=Picture(S + i * STEP, "optical", decode))
        assert camera.end() == {"no_pose": 8}

    def test_camera_info_and_depth_may_come_after_colour(self):
        camera = Camera()
        camera.shoot(S, info=None, depth=False)
        camera.assembler.add_depth(depth_at(S))
        camera.poll()
        assert camera.frames == []
        camera.assembler.add_camera_info(S, lambda: INTRINSICS)
        camera.poll()
        assert camera.stamps == [S]

    def test_depth_may_be_slower_than_colour(self):
        camera = Camera()
        for i in range(9):
            camera.shoot(S + i * STEP, depth=None if i % 3 == 0 else False)
        assert camera.end() == {"unmatched": 6}
        assert len(camera.frames) == 3

    def test_approximate_stamps_are_matched_within_the_slop(self):
        camera = Camera(sync_slop=0.010)
        for i in range(5):
            camera.shoot(S + i * STEP, depth=depth_at(S + i * STEP + 8 * MS))
        assert camera.end() == {}
        assert len(camera.frames) == 5

    def test_frames_keep_the_order_of_time(self):
        camera = Camera(sync_slop=0.0)
        order = [0, 2, 1, 3]
        for i in order:
            camera.assembler.add_transform("odom", "base", S + i * STEP, pose(0))
        camera.assembler.add_camera_info(S, lambda: INTRINSICS)
        for i in order:
            camera.assembler.add_color(color_at(S + i * STEP))
        for i in range(4):
            camera.assembler.add_depth(depth_at(S + i * STEP))
        camera.expected = 4
        camera.poll()
        assert camera.stamps == [S + i * STEP for i in range(4)]

    def test_a_calibration_that_waits_long_for_its_frame_is_not_forgotten(self):
        camera = Camera(pose_wait=5.0, sync_queue=10)
        other = Intrinsics(W, H, 9.0, 9.0, 4.5, 2.5)
        for i in range(30):
            camera.shoot(S + i * 100 * MS, x=None, info=INTRINSICS if i < 3 else other)
        for i in range(30):
            camera.assembler.add_transform("odom", "base", S + i * 100 * MS, pose(0))
        camera.poll()
        assert [frame.intrinsics.fx for frame in camera.frames] == [8.0] * 3 + [9.0] * 27


class TestBadInput:
    """One bad frame between two good ones: it is counted, the good ones come through."""

    @pytest.mark.parametrize(
        ("reason", "bad"),
        [
            ("depth_frame", {"depth": depth_at(S + STEP, frame="camera_depth_optical_frame")}),
            ("depth_size", {"depth": depth_at(S + STEP, shape=(H // 2, W // 2))}),
            ("depth_size", {"depth": depth_at(S + STEP, shape=(W, H))}),
            ("no_depth", {"depth": depth_at(S + STEP, value=0.0)}),
            (
                "depth_format",
                {"depth": Picture(S + STEP, "optical", lambda: decode_depth("8UC1", H, W, W, False, b""))},
            ),
            (
                "depth_format",
                {"depth": Picture(S + STEP, "optical", lambda: decode_depth("16UC1", H, W, 2 * W, False, bytes(99)))},
            ),
            (
                "color_format",
                {"color": Picture(S + STEP, "optical", lambda: decode_color("16UC1", H, W, W, False, b""))},
            ),
            (
                "color_format",
                {"color": Picture(S + STEP, "optical", lambda: decode_color("rgb8", H, W, 3 * W, False, bytes(99)))},
            ),
            ("no_pose", {"color": color_at(S + STEP, frame="other_camera"), "depth": depth_at(S + STEP, frame="")}),
        ],
    )
    def test_bad_frame_is_counted_and_the_next_one_is_fine(self, reason, bad):
        camera = Camera(pose_wait=0.1)
        camera.shoot(S)
        camera.shoot(S + STEP, **bad)
        for i in range(20, 25):  # long enough to give up waiting
            camera.shoot(S + i * STEP)
        assert camera.end() == {reason: 1}
        assert camera.stamps == [S] + [S + i * STEP for i in range(20, 25)]

    def test_messages_name_the_remedy(self):
        camera = Camera()
        camera.shoot(S, depth=depth_at(S, frame="camera_depth_optical_frame"))
        camera.shoot(S + STEP, depth=depth_at(S + STEP, shape=(3, 5)))
        assert camera.end() == {"depth_frame": 1, "depth_size": 1}
        for reason in ("depth_frame", "depth_size"):
            assert "align_depth.enable:=true" in camera.assembler.details[reason]
        assert "5x3" in camera.assembler.details["depth_size"]
        assert "camera_depth_optical_frame" in camera.assembler.details["depth_frame"]

    @pytest.mark.parametrize("fx", [0.0, np.nan])
    def test_zero_or_nan_intrinsics_drop_every_frame_that_needs_them(self, fx):
        camera = Camera()
        for i in range(3):
            stamp = S + i * STEP
            camera.assembler.add_camera_info(
                stamp, lambda: intrinsics_from_calibration(W, H, [fx, 0, 4.5, 0, 8.0, 2.5, 0, 0, 1], [])
            )
            camera.shoot(stamp, info=None)
        assert camera.end() == {"intrinsics": 3}

    def test_camera_is_used_as_soon_as_its_calibration_is_sound(self):
        camera = Camera()
        camera.assembler.add_camera_info(S, lambda: intrinsics_from_calibration(W, H, [0.0] * 9, []))
        camera.shoot(S, info=None)
        camera.shoot(S + STEP)
        assert camera.end() == {"intrinsics": 1}
        assert camera.stamps == [S + STEP]

    def test_camera_info_of_another_stream_is_refused(self):
        camera = Camera()
        camera.shoot(S, info=INTRINSICS.scaled(2 * W, 2 * H))
        assert camera.end() == {"intrinsics_size": 1}

    def test_camera_info_that_never_comes(self):
        camera = Camera(pose_wait=0.1)
        for i in range(10):
            camera.shoot(S + i * STEP, info=None)
        assert camera.assembler.skipped["no_camera_info"] > 0
        assert camera.end() == {"no_camera_info": 10}

    def test_stale_camera_info(self):
        camera = Camera(camera_info_age=0.2, pose_wait=0.1)
        for i in range(20):
            camera.shoot(S + i * STEP, info=INTRINSICS if i == 0 else None)
        assert camera.end() == {"camera_info_stale": 13}
        assert camera.stamps[-1] == S + 6 * STEP  # 198 ms
        assert "camera_info_age" in camera.assembler.details["camera_info_stale"]

    def test_camera_info_that_is_published_once_serves_for_ever_when_allowed(self):
        camera = Camera(camera_info_age=0.0)
        for i in range(100):
            camera.shoot(S + i * STEP, info=INTRINSICS if i == 0 else None)
        assert camera.end() == {}

    def test_missing_tf_drops_frames_after_the_wait_not_before(self):
        camera = Camera(pose_wait=0.1)
        for i in range(4):
            camera.shoot(S + i * STEP, x=None)  # newest is 99 ms later
        assert camera.assembler.waiting == 4
        camera.shoot(S + 4 * STEP, x=None)
        assert camera.assembler.skipped["no_pose"] == 1
        assert camera.end() == {"no_pose": 5}
        assert "odom" in camera.assembler.details["no_pose"]

    def test_a_frame_from_before_the_transform_history_is_not_waited_for(self):
        camera = Camera()
        camera.assembler.add_transform("odom", "base", 2 * S, pose(0))
        camera.shoot(S, x=None)
        assert camera.assembler.waiting == 0
        assert camera.end() == {"no_pose": 1}
        assert "before its history" in camera.assembler.details["no_pose"]

    def test_broken_transforms_are_left_out(self):
        camera = Camera(pose_wait=0.1)
        camera.assembler.add_transform("odom", "base", S, np.full((4, 4), np.nan))
        camera.shoot(S, x=None)
        assert camera.end() == {"no_pose": 1}
        assert "odom -> base" in camera.assembler.details["pose"]

    def test_pose_source_that_gives_no_rigid_transform(self):
        assembler = fed([S], lambda color: np.diag([2.0, 2.0, 2.0, 1.0]))
        assert assembler.poll() is None
        assert assembler.skipped == {"pose": 1}

    def test_two_publishers_on_one_topic(self):
        camera = Camera()
        for i in range(4):
            camera.shoot(S + i * STEP)
            camera.shoot(S + i * STEP)
        camera.end()
        assert len(camera.frames) == 4

    def test_stamps_that_repeat_after_delivery_are_out_of_order(self):
        assembler = fed([S, S + STEP, S + STEP, S])
        assert [view.stamp for view in iter(assembler.poll, None)] == [S, S + STEP]
        assert assembler.skipped == {"out_of_order": 2}

    def test_waiting_frames_are_bounded(self):
        camera = Camera(pose_wait=60.0, sync_queue=3)
        for i in range(50):
            camera.shoot(S + i * STEP, x=None)
        assert camera.assembler.waiting == WAITING_QUEUES * 3
        assert camera.end() == {"no_pose": 50}

    def test_a_consumer_that_is_too_slow_gets_the_newest_and_the_rest_is_counted(self):
        assembler = fed([S + i * STEP for i in range(50)], sync_queue=3)
        assert (assembler.waiting, assembler.skipped) == (12, {"backlog": 38})
        assert [view.stamp for view in iter(assembler.poll, None)] == [S + i * STEP for i in range(38, 50)]

    def test_a_pair_that_comes_when_its_colour_was_given_up_is_counted_once(self):
        assembler = FrameAssembler(StreamSettings(sync_queue=2), lambda color: np.eye(4))
        for i in range(3):
            assembler.see_color(S + i * STEP)
        assembler.add_pair(color_at(S), depth_at(S))
        assert (assembler.received, assembler.waiting, assembler.skipped) == (3, 2, {"unmatched": 1})

    def test_errors_that_are_no_bad_frame_are_not_swallowed(self):
        def broken() -> np.ndarray:
            raise ZeroDivisionError

        camera = Camera()
        with pytest.raises(ZeroDivisionError):
            camera.shoot(S, depth=Picture(S, "optical", broken))
        camera.check()
        camera.shoot(S + STEP)  # and it does not block the frames behind it
        assert camera.stamps == [S + STEP]
        assert camera.end() == {"internal_error": 1}

    def test_an_error_of_the_pose_source_costs_one_frame(self):
        poses = iter([ZeroDivisionError, None])

        def pose_of(color: Picture) -> np.ndarray:
            if error := next(poses):
                raise error
            return np.eye(4)

        assembler = fed([S, S + STEP], pose_of)
        with pytest.raises(ZeroDivisionError):
            assembler.poll()
        assert [view.stamp for view in iter(assembler.poll, None)] == [S + STEP]
        assert assembler.skipped == {"internal_error": 1}


def fed(stamps: list[int], pose_of=lambda color: np.eye(4), **settings: object) -> FrameAssembler:
    """An assembler that has got these pairs, with their calibration."""
    assembler = FrameAssembler(StreamSettings(camera_info_age=0.0, **settings), pose_of)
    assembler.add_camera_info(S, lambda: INTRINSICS)
    for stamp in stamps:
        assembler.see_color(stamp)
        assembler.add_pair(color_at(stamp), depth_at(stamp))
    return assembler


class TestPoseFirst:
    """A view is delivered with its pose; its images are decoded when somebody asks."""

    def test_a_view_is_delivered_without_decoding(self):
        def decode() -> np.ndarray:
            raise AssertionError("decoded without being asked for")

        assembler = FrameAssembler(StreamSettings(), lambda color: pose(color.stamp / S))
        assembler.add_camera_info(3 * S, lambda: INTRINSICS)
        assembler.see_color(3 * S)
        assembler.add_pair(Picture(3 * S, "optical", decode), Picture(3 * S, "optical", decode))
        view = assembler.poll()
        assert (view.stamp, view.T_world_camera[0, 3]) == (3 * S, 3.0)
        assert (assembler.received, assembler.delivered, assembler.waiting) == (1, 1, 0)

    def test_damage_moves_a_delivered_view_to_the_dropped_ones_once(self):
        assembler = FrameAssembler(StreamSettings(), lambda color: np.eye(4))
        assembler.add_camera_info(S, lambda: INTRINSICS)
        assembler.see_color(S)
        assembler.add_pair(color_at(S), depth_at(S, value=0.0))
        view = assembler.poll()
        for _ in range(2):
            with pytest.raises(BadFrame, match="no pixel with depth"):
                view.decode()
        view.refuse(BadFrame("pose", "said again by somebody else"))
        assert (assembler.received, assembler.delivered, assembler.skipped) == (1, 0, {"no_depth": 1})

    def test_a_view_may_be_decoded_again(self):
        (view,) = iter(fed([S]).poll, None)
        assert isinstance(view, LazyView)
        assert np.array_equal(view.decode().color, view.decode().color)


class TestRest:
    """Some images stay with the middleware while the camera stands still."""

    def test_images_that_nobody_looked_at_are_counted(self):
        camera = Camera()
        camera.shoot(S)
        camera.assembler.see_color(S + 3 * STEP, left_out=2)
        camera.expected += 3
        camera.assembler.add_pair(color_at(S + 3 * STEP), depth_at(S + 3 * STEP))
        camera.assembler.add_transform("odom", "base", S + 3 * STEP, pose(0.0))
        camera.poll()
        assert camera.stamps == [S, S + 3 * STEP]
        assert camera.end() == {"at_rest": 2}

    def test_colour_whose_depth_was_left_out_does_not_wait_for_it(self):
        camera = Camera()
        early, pair, late = S, S + STEP, S + 2 * STEP
        for stamp in (early, pair, late):
            camera.expected += 1
            camera.assembler.see_color(stamp)
        camera.assembler.add_pair(color_at(pair), depth_at(pair), at_rest=True)
        assert camera.assembler.skipped == {"at_rest": 1}
        camera.assembler.add_pair(color_at(early), depth_at(early))  # it comes all the same: counted once
        assert camera.assembler.waiting == 2
        assert camera.end() == {"at_rest": 1, "unmatched": 1, "no_camera_info": 1}


class TestTimeGoingBack:
    @pytest.mark.parametrize("tf_history", [30.0, 1.0], ids=["jump within tf_history", "farther"])
    @pytest.mark.parametrize("lags", LAGS, ids=lambda lags: "-".join(lags))
    def test_a_looped_recording_goes_on_after_each_jump_whatever_comes_first(self, lags, tf_history):
        """Frames of the second around the jump may be lost; all others have the pose of their own lap."""
        laps = 3
        camera = Camera(tf_history=tf_history)
        sent = []
        for topic, stamp, lap in looped(lags, laps):
            camera.deliver(topic, stamp, float(lap))
            sent += [(stamp, lap)] if topic == "color" else []
            assert camera.assembler.waiting < 30
        counted = camera.end()
        got = [(frame.stamp, frame.T_world_camera[0, 3] - 0.5) for frame in camera.frames]
        assert set(got) <= set(sent)
        lost = [(stamp, lap) for stamp, lap in sent if (stamp, lap) not in set(got)]
        assert all(around_a_jump(stamp) for stamp, _ in lost)
        assert sum(counted.values()) == len(lost) <= (laps - 1) * 30
        assert counted["time_jump"] >= (laps - 1) * 15  # half a second

    def test_nothing_grows_with_the_number_of_jumps(self):
        camera = Camera()
        sizes = []
        for lap in range(6):
            for topic, stamp, _ in looped(LAGS[0], 1):
                camera.deliver(topic, stamp, float(lap))
            edges = camera.assembler._transforms._edges
            sizes.append((len(camera.assembler._infos), {name: len(edge.stamps) for name, edge in edges.items()}))
        assert sizes[1:] == sizes[1:2] * 5

    @pytest.mark.parametrize(
        ("topic", "wrong", "most"),
        [
            *[(topic, wrong, 2) for topic in ("tf", "info", "depth") for wrong in (0, 105 * S)],
            ("color", 0, 3),
            ("color", 105 * S, 17),  # half a second, as after any jump back
        ],
    )
    @pytest.mark.parametrize("info_once", [False, True])
    def test_one_wrong_stamp_costs_a_few_frames(self, topic, wrong, most, info_once):
        camera = Camera(camera_info_age=0.0 if info_once else 1.0)
        stamps = [100 * S + i * STEP for i in range(91)]
        for i, stamp in enumerate(stamps):
            for name in ("tf", "info", "color", "depth"):
                if name == "info" and info_once and i:
                    continue
                camera.deliver(name, wrong if (name, i) == (topic, 45) else stamp, 7.0)
        camera.end()
        assert len(set(stamps) - set(camera.stamps)) <= most
        assert camera.stamps[-28:] == stamps[-28:]

    def test_frames_that_wait_when_time_goes_back_are_dropped_as_such(self):
        camera = Camera(pose_wait=60.0)
        for i in range(5):
            camera.shoot(10 * S + i * STEP, x=None)
        camera.shoot(S)
        assert camera.assembler.skipped == {"time_jump": 6}
        camera.shoot(2 * S)
        assert camera.stamps == [2 * S]

    def test_a_second_back_is_late_not_a_jump(self):
        camera = Camera()
        camera.shoot(5 * S)
        camera.shoot(4 * S + 500 * MS)
        assert camera.end() == {"out_of_order": 1}

    def test_without_depth_time_may_go_back_as_well(self):
        camera = Camera()
        camera.assembler = StreamAssembler(StreamSettings(), with_depth=False)
        camera.assembler.add_transform("base", "optical", 0, pose(0.5), static=True)
        for stamp in (100 * S, S, 2 * S):
            camera.shoot(stamp, depth=False)
        assert camera.stamps == [100 * S, 2 * S]
        assert camera.end() == {"time_jump": 1}

    def test_a_calibration_that_came_once_still_holds(self):
        camera = Camera(camera_info_age=0.0)
        for stamp in (START, S, 2 * S):
            camera.shoot(stamp, info=INTRINSICS if stamp == START else None)
        assert camera.stamps == [START, 2 * S]


class TestReasons:
    def test_every_reason_in_the_sources_is_documented(self):
        """`BadFrame("x", ...)` with a key that no status, diagnostics or page of the docs would explain."""
        root = Path(s4net_core.__file__).parent
        used = set()
        for name in (
            "frames.py",
            "io/images/codec.py",
            "io/images/pixels.py",
            "io/bags/messages.py",
            "streams/assembler.py",
            "geometry/poses.py",
        ):
            used |= set(re.findall(r'(?:BadFrame|_Wait|kind|_drop)\(\s*"(\w+)"', (root / name).read_text()))
        used |= {"color_format", "depth_format"}  # passed on by a variable
        assert len(used) > 12
        assert used - {"label_format"} <= set(DROP_REASONS)  # live frames have no label

    def test_every_remedy_is_one_line(self):
        assert all("\n" not in remedy and len(remedy) > 20 for remedy in DROP_REASONS.values())

    def test_bad_frames_carry_their_reason(self):
        assert BadFrame("no_pose", "text").reason == "no_pose"
