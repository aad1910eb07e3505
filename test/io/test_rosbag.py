"""rosbag2: what is written can be played by ROS, what anybody recorded can be read, also when it is damaged."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scenes import make_room_frames

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import FrameSequence
from s4net_core.geometry.poses import pose_matrix, quaternion_of
from s4net_core.io.bags.storage import Bag
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.rosbag import BagReader, find_topics

STORE = get_typestore(Stores.ROS2_JAZZY)
WIDTH, HEIGHT = 40, 24


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(6, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def large_frames():
    """Enough for more than one chunk of MCAP."""
    return make_room_frames(12, 320, 200)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(("color", "depth"), [("raw", "raw"), ("raw", "32FC1"), ("jpeg", "compressedDepth")])
def test_frames_come_back_as_they_were_written(tmp_path, frames, storage, color, depth):
    assert write_bag(tmp_path / "bag", frames, color=color, depth=depth, storage=storage, quality=95) == 6
    reader = BagReader(tmp_path / "bag")
    assert isinstance(reader, FrameSequence)
    assert (reader.name, len(reader)) == ("bag", 6)
    for read, written in zip(reader, frames, strict=True):
        assert (read.stamp, read.frame_id) == (written.stamp, "camera_color_optical_frame")
        assert read.intrinsics == written.intrinsics
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-12)
        np.testing.assert_allclose(read.depth, written.depth, atol=0 if depth == "32FC1" else 0.5001e-3)
        error = np.abs(read.color.astype(int) - written.color).mean()
        assert error == 0 if color == "raw" else error < 6
        assert read.label is None
    assert reader.skipped == {}
    assert len(list(reader)) == 6


def test_a_hole_in_the_depth_is_nan_in_metres(tmp_path, frames):
    depth = frames[0].depth.copy()
    depth[3, 5] = 0
    write_bag(tmp_path / "bag", [replace(frames[0], depth=depth)], depth="32FC1")
    with Bag(tmp_path / "bag") as bag:
        ((connection, _, data),) = bag.messages({"/camera/camera/aligned_depth_to_color/image_raw"})
        message = bag.deserialize(connection, data)
    written = np.frombuffer(message.data, "<f4").reshape(HEIGHT, WIDTH)
    assert (message.encoding, np.argwhere(np.isnan(written)).tolist()) == ("32FC1", [[3, 5]])
    (read,) = BagReader(tmp_path / "bag")
    np.testing.assert_array_equal(read.depth, depth)


def test_metadata_says_what_ros2_bag_play_needs(tmp_path, frames):
    write_bag(tmp_path / "bag", frames, color="jpeg", depth="compressedDepth", storage="sqlite3")
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["storage_identifier"] == "sqlite3"
    assert (tmp_path / "bag" / info["relative_file_paths"][0]).is_file()
    topics = {t["topic_metadata"]["name"]: t for t in info["topics_with_message_count"]}
    assert {name: (t["topic_metadata"]["type"], t["message_count"]) for name, t in topics.items()} == {
        "/tf": ("tf2_msgs/msg/TFMessage", 6),
        "/tf_static": ("tf2_msgs/msg/TFMessage", 1),
        "/camera/camera/color/image_raw/compressed": ("sensor_msgs/msg/CompressedImage", 6),
        "/camera/camera/color/camera_info": ("sensor_msgs/msg/CameraInfo", 6),
        "/camera/camera/aligned_depth_to_color/image_raw/compressedDepth": ("sensor_msgs/msg/CompressedImage", 6),
        "/camera/camera/aligned_depth_to_color/camera_info": ("sensor_msgs/msg/CameraInfo", 6),
    }
    qos = {name: yaml.safe_load(t["topic_metadata"]["offered_qos_profiles"])[0] for name, t in topics.items()}
    transient_local, volatile, reliable = 1, 2, 1
    assert {name: profile["durability"] for name, profile in qos.items()} == dict.fromkeys(topics, volatile) | {
        "/tf_static": transient_local
    }
    assert {profile["reliability"] for profile in qos.values()} == {reliable}


def test_the_camera_link_is_a_body_frame(tmp_path, frames):
    """REP 103: x of the body is where the lens looks, z of the body is up in the image."""
    write_bag(tmp_path / "bag", frames[:1], fixed_frame="world")
    with Bag(tmp_path / "bag") as bag:
        messages = [bag.deserialize(connection, data) for connection, _, data in bag.messages({"/tf"})]
    transform = messages[0].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "camera_link")
    q = transform.transform.rotation
    R_world_body = pose_matrix((0, 0, 0), (q.x, q.y, q.z, q.w))[:3, :3]
    R_world_camera = frames[0].T_world_camera[:3, :3]
    np.testing.assert_allclose(R_world_body[:, 0], R_world_camera[:, 2], atol=1e-12)
    np.testing.assert_allclose(R_world_body[:, 2], -R_world_camera[:, 1], atol=1e-12)


def test_log_times_rise_so_that_a_player_keeps_the_order(tmp_path, frames):
    write_bag(tmp_path / "bag", frames)
    with Bag(tmp_path / "bag") as bag:
        log = [(c.topic, stamp) for c, stamp, _ in bag.messages(bag.topics)]
    assert np.all(np.diff([stamp for _, stamp in log]) > 0)
    assert [topic for topic, _ in log[:2]] == ["/tf_static", "/tf"]


def test_a_bag_without_depth_can_be_written_but_frames_need_depth(tmp_path, frames):
    write_bag(tmp_path / "bag", [replace(frame, depth=None) for frame in frames])
    remedies = r"no depth image.*align_depth.*geometry\.depth to predicted.*/camera/camera/color/image_raw"
    with pytest.raises(CaptureError, match=remedies):
        BagReader(tmp_path / "bag")


@pytest.mark.parametrize("has_depth", [False, True])
def test_a_bag_is_read_without_depth_where_none_is_wanted(tmp_path, frames, has_depth):
    write_bag(tmp_path / "bag", frames if has_depth else [replace(frame, depth=None) for frame in frames])
    reader = open_capture(tmp_path / "bag", with_depth=False)
    read = list(reader)
    assert [frame.stamp for frame in read] == [frame.stamp for frame in frames]
    assert all(frame.depth is None for frame in read)
    assert reader.skipped == {}


def test_nothing_is_overwritten_and_no_half_bag_is_left(tmp_path, frames):
    write_bag(tmp_path / "bag", frames)
    with pytest.raises(CaptureError, match="exists already"):
        write_bag(tmp_path / "bag", frames)
    with pytest.raises(CaptureError, match="no frame to write"):
        write_bag(tmp_path / "empty", [])
    with pytest.raises(CaptureError, match="frame 3 has stamp"):
        write_bag(tmp_path / "back", [*frames[:2], frames[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_storage_file_and_a_folder_without_metadata_are_read_too(tmp_path, frames, storage):
    write_bag(tmp_path / "bag", frames, storage=storage)
    file = next(path for path in (tmp_path / "bag").iterdir() if path.suffix != ".yaml")
    assert len(list(BagReader(file))) == 6
    (tmp_path / "bag/metadata.yaml").unlink()
    assert len(list(BagReader(tmp_path / "bag"))) == 6


def test_a_bag_without_type_definitions_is_read(tmp_path, frames):
    """As Humble and older record sqlite3."""
    write_bag(tmp_path / "bag", frames, storage="sqlite3")
    with sqlite3.connect(tmp_path / "bag/bag.db3") as database:
        database.execute("UPDATE schema SET schema_version = 3")
        database.execute("DROP TABLE message_definitions")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    assert len(list(BagReader(tmp_path / "bag"))) == 6


def truncate(folder: Path, share: float) -> None:
    file = next(path for path in folder.iterdir() if path.suffix != ".yaml")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_truncated_bag_gives_the_frames_before_its_damage(tmp_path, large_frames, caplog, storage, metadata):
    frames = large_frames
    write_bag(tmp_path / "bag", frames, storage=storage)
    truncate(tmp_path / "bag", 0.7)
    if not metadata:
        (tmp_path / "bag/metadata.yaml").unlink()
    reader = BagReader(tmp_path / "bag")
    read = list(reader)
    assert 4 <= len(read) <= 9
    assert [frame.stamp for frame in read] == [frame.stamp for frame in frames[: len(read)]]
    assert np.array_equal(read[-1].color, frames[len(read) - 1].color)
    assert reader.damage
    assert f"{len(read)} frames lie before that" in caplog.text


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_bag_of_which_nothing_is_left_is_an_error(tmp_path, frames, storage, share):
    write_bag(tmp_path / "bag", frames, storage=storage)
    truncate(tmp_path / "bag", share)
    with pytest.raises(CaptureError, match="bag"):
        list(BagReader(tmp_path / "bag"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_broken_metadata_beside_a_sound_recording_is_what_is_blamed(tmp_path, frames, storage):
    write_bag(tmp_path / "bag", frames, storage=storage)
    (tmp_path / "bag/metadata.yaml").write_text("rosbag2_bagfile_information: [")
    reader = BagReader(tmp_path / "bag")
    assert len(list(reader)) == len(frames)
    assert "metadata.yaml" in reader.damage


@pytest.mark.parametrize("place", ["{}/other/other.mcap", "../other/other.mcap", "..", "/"])
def test_metadata_cannot_lead_out_of_the_folder(tmp_path, frames, place):
    write_bag(tmp_path / "bag", frames[:3])
    write_bag(tmp_path / "other", frames)
    path = tmp_path / "bag/metadata.yaml"
    path.write_text(path.read_text().replace("bag.mcap", place.format(tmp_path)))
    reader = BagReader(tmp_path / "bag")
    assert len(list(reader)) == 3
    assert reader.damage


@pytest.mark.parametrize("name", ["metadata.yaml", "bag.mcap"])
def test_a_pipe_in_a_recording_is_named_and_not_waited_for(tmp_path, frames, name):
    write_bag(tmp_path / "bag", frames)
    (tmp_path / "bag" / name).unlink()
    os.mkfifo(tmp_path / "bag" / name)
    with pytest.raises(CaptureError, match=f"{name} cannot be read.*no regular file"):
        BagReader(tmp_path / "bag")


def test_a_description_that_is_too_large_is_named(tmp_path, frames):
    write_bag(tmp_path / "bag", frames)
    with (tmp_path / "bag/metadata.yaml").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(CaptureError, match=r"metadata\.yaml cannot be read.*at most 16777216 are read"):
        BagReader(tmp_path / "bag")


@pytest.mark.parametrize("metadata", [True, False])
def test_one_flipped_bit_of_an_image_is_noticed(tmp_path, large_frames, metadata):
    """Without a checksum the frame would come back with another colour."""
    write_bag(tmp_path / "bag", large_frames)
    file = tmp_path / "bag/bag.mcap"
    content = bytearray(file.read_bytes())
    content[content.index(large_frames[9].color.tobytes()) + 1000] ^= 1
    file.write_bytes(content)
    if not metadata:
        (tmp_path / "bag/metadata.yaml").unlink()
    reader = BagReader(tmp_path / "bag")
    read = list(reader)
    assert 4 <= len(read) <= 9
    assert "checksum" in reader.damage
    assert all(np.array_equal(a.color, b.color) for a, b in zip(read, large_frames, strict=False))


@pytest.mark.parametrize(
    ("storage", "form"),
    [
        ("mcap", {}),  # raw images fill several chunks: one with a wrong checksum is lost whole
        ("sqlite3", {"color": "jpeg", "depth": "compressedDepth"}),
    ],
)
def test_damage_in_the_middle_costs_frames_but_no_crash(tmp_path, large_frames, storage, form):
    frames = large_frames
    write_bag(tmp_path / "bag", frames, storage=storage, **form)
    file = next(path for path in (tmp_path / "bag").iterdir() if path.suffix != ".yaml")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    file.write_bytes(content)
    read = list(BagReader(tmp_path / "bag"))
    assert [frame.stamp for frame in read[:3]] == [frame.stamp for frame in frames[:3]]
    assert {frame.stamp for frame in read} <= {frame.stamp for frame in frames}


def test_what_is_no_bag_is_refused(tmp_path):
    (tmp_path / "text.mcap").write_text("not a bag at all")
    with pytest.raises(CaptureError, match="cannot be read"):
        BagReader(tmp_path / "text.mcap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match="no rosbag2 recording"):
        BagReader(tmp_path / "empty")


# Bags that others recorded: any names, encodings, rates


def message(kind: str, **fields):
    package, _, name = kind.partition("/")
    return STORE.types[f"{package}/msg/{name}"](**fields)


def header(stamp: int, frame_id: str):
    time = message("builtin_interfaces/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return message("std_msgs/Header", stamp=time, frame_id=frame_id)


def image(stamp, array, encoding, frame_id="lens"):
    return message(
        "sensor_msgs/Image",
        header=header(stamp, frame_id),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=array.strides[0],
        data=array.view(np.uint8).ravel(),
    )


def camera_info(stamp, lens):
    return message(
        "sensor_msgs/CameraInfo",
        header=header(stamp, "lens"),
        height=lens.height,
        width=lens.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=lens.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=message("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def transform(stamp, parent, child, T):
    x, y, z = T[:3, 3]
    qx, qy, qz, qw = quaternion_of(T)
    translation = message("geometry_msgs/Vector3", x=x, y=y, z=z)
    rotation = message("geometry_msgs/Quaternion", x=qx, y=qy, z=qz, w=qw)
    stamped = message(
        "geometry_msgs/TransformStamped",
        header=header(stamp, parent),
        child_frame_id=child,
        transform=message("geometry_msgs/Transform", translation=translation, rotation=rotation),
    )
    return message("tf2_msgs/TFMessage", transforms=[stamped])


def record(path, messages):
    """Write (topic, log time, message) as a bag."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, stamp, content in messages:
            kind = content.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], stamp, STORE.serialize_cdr(content, kind))


def foreign_messages(frames):
    """bgr8 and 32FC1 with holes as NaN, poses half-way between the images, other names, another tree."""
    first = frames[0].stamp - 50_000_000
    for stamp in range(first, frames[-1].stamp + 100_000_000, 100_000_000):
        T = np.eye(4)
        T[0, 3] = (stamp - first) / 1e9
        yield "/tf", stamp, transform(stamp, "map", "lens", T)
    for frame in frames:
        depth = frame.depth.copy()
        depth[:2] = np.nan
        yield "/rgb/camera_info", frame.stamp, camera_info(frame.stamp, frame.intrinsics)
        yield "/rgb/image", frame.stamp, image(frame.stamp, frame.color[..., ::-1].copy(), "bgr8")
        yield "/depth_to_rgb/image", frame.stamp, image(frame.stamp, depth, "32FC1")
        yield "/depth/image", frame.stamp, image(frame.stamp, depth[:5].copy(), "32FC1")
        yield "/infra1/image", frame.stamp, image(frame.stamp, frame.color[..., 0].copy(), "mono8")


def sorted_messages(frames, *without):
    return sorted((m for m in foreign_messages(frames) if m[0] not in without), key=lambda m: m[1])


def test_other_topic_names_encodings_and_trees_are_read(tmp_path, frames):
    record(tmp_path / "bag", sorted_messages(frames))
    reader = BagReader(tmp_path / "bag", StreamSettings(fixed_frame="map"))
    assert (reader.topics.color, reader.topics.depth) == ("/rgb/image", "/depth_to_rgb/image")
    read = list(reader)
    assert len(read) == 6
    for frame, original in zip(read, frames, strict=True):
        assert np.array_equal(frame.color, original.color)
        assert not frame.depth[:2].any()
        np.testing.assert_array_equal(frame.depth[2:], original.depth[2:])
        x = (original.stamp - frames[0].stamp + 50_000_000) / 1e9  # interpolated between the two poses
        np.testing.assert_allclose(frame.T_world_camera[:3, 3], [x, 0, 0], atol=1e-9)


def test_topics_can_be_named(tmp_path, frames):
    record(tmp_path / "bag", sorted_messages(frames))
    reader = BagReader(tmp_path / "bag", StreamSettings(fixed_frame="map"), depth_topic="/depth/image")
    with pytest.raises(CaptureError, match=r"6 x depth_size.*align_depth"):
        list(reader)
    with pytest.raises(CaptureError, match=r"no depth image /nowhere.*Topics found: .*/rgb/image"):
        BagReader(tmp_path / "bag", depth_topic="/nowhere")


def test_a_fixed_frame_that_the_bag_lacks_is_an_error_that_names_those_it_has(tmp_path, frames):
    record(tmp_path / "bag", sorted_messages(frames))
    with pytest.raises(CaptureError, match=r"6 x no_pose: .*odom.*\['lens', 'map'\]"):
        list(BagReader(tmp_path / "bag"))


@pytest.mark.parametrize(
    ("without", "complaint"),
    [
        (("/tf",), "no poses"),
        (("/rgb/image", "/infra1/image"), "no colour image"),
        (("/depth/image", "/depth_to_rgb/image"), "no depth image"),
        (("/rgb/camera_info",), r"no camera_info of its colour camera \(/rgb/camera_info\)"),
    ],
)
def test_what_a_bag_lacks_is_named_together_with_what_it_has(tmp_path, frames, without, complaint):
    messages = sorted_messages(frames, *without)
    record(tmp_path / "bag", messages)
    with pytest.raises(CaptureError, match=complaint) as caught:
        BagReader(tmp_path / "bag")
    assert all(topic in str(caught.value) for topic, _, _ in messages)


def test_bytes_that_do_not_fit_the_type_are_an_error(tmp_path, frames):
    record(tmp_path / "bag", sorted_messages(frames))
    with Bag(tmp_path / "bag") as bag:
        connection = next(c for c in bag.connections if c.topic == "/rgb/image")
        with pytest.raises(CaptureError, match=r"a message of /rgb/image is no sensor_msgs/msg/Image"):
            bag.deserialize(connection, b"\x00\x01\x00\x00abc")


@pytest.mark.parametrize(("good", "count"), [(3, 3), (0, None)])
def test_a_message_that_cannot_be_deserialised_ends_the_frames(tmp_path, frames, good, count):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, stamp, content in sorted_messages(frames):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, content.__msgtype__, typestore=STORE)
            data = STORE.serialize_cdr(content, content.__msgtype__)
            broken = topic == "/depth_to_rgb/image" and stamp >= frames[good].stamp
            writer.write(connections[topic], stamp, data[:20] if broken else data)
    reader = BagReader(tmp_path / "bag", StreamSettings(fixed_frame="map"))
    if count is None:
        with pytest.raises(CaptureError, match=r"no frame that can be used .*a message of /depth_to_rgb/image"):
            list(reader)
    else:
        assert 1 <= len(list(reader)) <= count
        assert "/depth_to_rgb/image" in reader.damage


@pytest.mark.parametrize(
    ("topics", "color", "depth"),
    [
        (
            [
                "/camera/camera/color/image_raw",
                "/camera/camera/color/image_raw/compressed",
                "/camera/camera/depth/image_rect_raw",
                "/camera/camera/aligned_depth_to_color/image_raw/compressedDepth",
                "/camera/camera/aligned_depth_to_color/image_raw",
                "/camera/camera/infra1/image_rect_raw",
                "/segmentation/overlay",
            ],
            "/camera/camera/color/image_raw",
            "/camera/camera/aligned_depth_to_color/image_raw",
        ),
        (
            ["/zed/zed_node/rgb/image_rect_color/compressed", "/zed/zed_node/depth/depth_registered"],
            "/zed/zed_node/rgb/image_rect_color/compressed",
            "/zed/zed_node/depth/depth_registered",
        ),
        (
            ["/oak/rgb/image_raw", "/oak/stereo/depth", "/oak/left/image_raw"],
            "/oak/rgb/image_raw",
            "/oak/stereo/depth",
        ),
    ],
)
def test_the_likeliest_camera_is_chosen_among_the_topics_of_usual_drivers(topics, color, depth):
    class Listing:
        path = "bag"
        damage = ""

        def __init__(self):
            self.topics = dict.fromkeys(topics, "sensor_msgs/msg/Image") | {"/tf": "tf2_msgs/msg/TFMessage"}
            info = color.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
            self.topics[info] = "sensor_msgs/msg/CameraInfo"

    found = find_topics(Listing())
    assert (found.color, found.depth) == (color, depth)
