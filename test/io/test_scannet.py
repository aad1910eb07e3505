"""ScanNet as published (.sens, zip of labels, table of classes) and as its exporter writes it."""

import io
import os
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import make_room_frames

from s4net_core.errors import BadFrame, CaptureError, LabelTableError
from s4net_core.frames import FrameSequence
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scannet import COLOR_SIZE, PAPER_SCENES, ExportedScan, SensScan, paper_scan
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.captures.trajectory import UNKNOWN_POSES

COLOR, DEPTH = (72, 50), (40, 36)
TABLE = "scannetv2-labels.combined.tsv"
RAW_OF = {1: 1, 2: 3, 3: 1163, 4: 11, 7: 1300, 11: 20, 22: 41, 29: 39}
"""Ids of ScanNet's kind for the classes of the test room; two of them need 16 bits."""


@pytest.fixture(scope="module")
def views():
    """(colour with its label, depth) of the same room and path, through two lenses."""
    return list(zip(make_room_frames(4, *COLOR), make_room_frames(4, *DEPTH), strict=True))


def matrix(lens):
    K = np.eye(4)
    K[:3, :3] = lens.matrix
    return K


def write_sens(path, views, color="jpeg", depth="zlib", poses=None, extrinsic_depth=None, units=1000.0, claimed=None):
    """The published format, version 4, little-endian."""
    name = b"StructureSensor"
    eye = np.eye(4)
    matrices = (matrix(views[0][0].intrinsics), eye, matrix(views[0][1].intrinsics), extrinsic_depth)
    out = io.BytesIO()
    out.write(struct.pack("<IQ", 4, len(name)) + name)
    for values in matrices:
        out.write(struct.pack("<16f", *(eye if values is None else values).ravel()))
    kinds = {"raw": 0, "png": 1, "jpeg": 2}[color], {"raw": 0, "zlib": 1}[depth]
    out.write(struct.pack("<iiIIIIfQ", *kinds, *COLOR, *DEPTH, units, claimed or len(views)))
    for i, (colored, measured) in enumerate(views):
        T = colored.T_world_camera if poses is None else poses[i]
        image = colored.color.tobytes() if color == "raw" else encoded(colored.color, "." + color.replace("e", ""))
        values = np.rint(measured.depth * units).astype("<u2").tobytes()
        values = zlib.compress(values) if depth == "zlib" else values
        out.write(struct.pack("<16fQQQQ", *T.ravel(), 0, 0, len(image), len(values)) + image + values)
    out.write(struct.pack("<Q", 0))  # no IMU samples
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())


def encoded(color, suffix):
    return cv2.imencode(suffix, color[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def raw_ids(label):
    return np.vectorize(RAW_OF.get)(label).astype(np.uint16)


def write_labels(scan, views):
    with zipfile.ZipFile(scan / f"{scan.name}_2d-label-filt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, (colored, _) in enumerate(views):
            archive.writestr(f"label-filt/{i}.png", cv2.imencode(".png", raw_ids(colored.label))[1].tobytes())


def write_table(path):
    rows = [f"{raw}\tname {raw}\t{nyu40}" for nyu40, raw in RAW_OF.items()]
    path.write_text("\n".join(["id\traw_category\tnyu40id", *rows]) + "\n")


def write_scan(root, views, **options):
    scan = root / "scans/scene0000_00"
    write_sens(scan / "scene0000_00.sens", views, **options)
    write_labels(scan, views)
    write_table(root / TABLE)
    return scan


def write_export(folder, views):
    for kind in ("color", "depth", "pose", "intrinsic", "label-filt"):
        (folder / kind).mkdir(parents=True)
    for i, (colored, measured) in enumerate(views):
        (folder / f"color/{i}.jpg").write_bytes(encoded(colored.color, ".jpg"))
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.rint(measured.depth * 1000).astype(np.uint16))
        np.savetxt(folder / f"pose/{i}.txt", colored.T_world_camera, fmt="%f")
        cv2.imwrite(str(folder / f"label-filt/{i}.png"), raw_ids(colored.label))
    for name, frame in (("color", views[0][0]), ("depth", views[0][1])):
        np.savetxt(folder / f"intrinsic/intrinsic_{name}.txt", matrix(frame.intrinsics), fmt="%f")
        np.savetxt(folder / f"intrinsic/extrinsic_{name}.txt", np.eye(4), fmt="%f")


def depth_error(frame, colored):
    """Median difference, metres, to what was rendered for the colour camera, looked up pixel by pixel."""
    errors = []
    for y in range(frame.intrinsics.height):
        for x in range(frame.intrinsics.width):
            if frame.depth[y, x] > 0:
                u = ((x - frame.intrinsics.cx) / frame.intrinsics.fx) * colored.intrinsics.fx + colored.intrinsics.cx
                v = ((y - frame.intrinsics.cy) / frame.intrinsics.fy) * colored.intrinsics.fy + colored.intrinsics.cy
                errors.append(abs(frame.depth[y, x] - colored.depth[round(v), round(u)]))
    return np.median(errors)


def test_the_scenes_of_the_paper_have_two_scans_each():
    assert len(PAPER_SCENES) == 6
    assert paper_scan(Path("scans"), "scene0011", 1) == Path("scans/scene0011_00")
    assert paper_scan(Path("scans"), "scene0011", 2) == Path("scans/scene0011_01")


class TestSens:
    @pytest.mark.parametrize(
        ("color", "depth", "units"), [("jpeg", "zlib", 1000.0), ("png", "raw", 1000.0), ("raw", "zlib", 4000.0)]
    )
    def test_frames_are_read_at_the_size_of_depth(self, tmp_path, views, color, depth, units):
        scan = write_scan(tmp_path, views, color=color, depth=depth, units=units)
        capture = open_capture(scan)
        assert isinstance(capture, SensScan)
        assert isinstance(capture, FrameSequence)
        read = list(capture)
        assert (len(capture), len(read), capture.skipped, capture.damage) == (4, 4, {}, "")
        assert np.all(np.diff([frame.stamp for frame in read]) == 33_333_333)
        for frame, (colored, _) in zip(read, views, strict=True):
            assert frame.color.shape == (36, 40, 3)
            expected = colored.intrinsics.scaled(*DEPTH)
            np.testing.assert_allclose(frame.intrinsics.matrix, expected.matrix, rtol=1e-6)
            expected = cv2.resize(colored.color, DEPTH, interpolation=cv2.INTER_AREA).astype(int)
            assert np.abs(frame.color - expected).mean() < (6 if color == "jpeg" else 1e-9)
            np.testing.assert_allclose(frame.T_world_camera, colored.T_world_camera, atol=1e-6)

    def test_depth_is_registered_to_colour(self, tmp_path, views):
        """The lenses differ by 30 % in height: depth that was only resized would be off."""
        for frame, (colored, measured) in zip(open_capture(write_scan(tmp_path, views)), views, strict=True):
            assert np.count_nonzero(frame.depth) > 0.95 * frame.depth.size
            assert depth_error(frame, colored) < 0.015
            assert depth_error(replace(frame, depth=measured.depth), colored) > 0.03

    def test_extrinsics_between_the_cameras_are_honoured(self, tmp_path, views):
        """A depth camera 4 cm to the right of colour, both looking at a wall 2 m away with a step in it."""
        (colored, measured), *_ = views
        depth = np.full(measured.depth.shape, 2.0, np.float32)
        depth[:, 20:] = 1.0
        T_color_depth = np.eye(4)
        T_color_depth[0, 3] = 0.04
        write_sens(tmp_path / "a.sens", [(colored, replace(measured, depth=depth))], extrinsic_depth=T_color_depth)
        (frame,) = open_capture(tmp_path / "a.sens")
        lens, old = frame.intrinsics, measured.intrinsics
        edge = lens.fx * ((19.5 - old.cx) / old.fx + 0.04) + lens.cx  # of the nearer half, at 1 m
        row = frame.depth[15]
        assert set(np.unique(row)) == {0.0, 1.0, 2.0}
        assert np.flatnonzero(row == 1.0)[0] == np.ceil(edge)

    def test_frames_of_a_lost_tracker_are_left_out_and_counted(self, tmp_path, views):
        poses = [colored.T_world_camera for colored, _ in views]
        poses[1] = np.full((4, 4), -np.inf)
        capture = open_capture(write_scan(tmp_path, views, poses=poses))
        stamps = [frame.stamp for frame in capture]
        assert np.diff(stamps).tolist() == [66_666_666, 33_333_333]
        assert capture.skipped == {"pose": 1}

    def test_labels_lead_through_the_table_without_unpacking(self, tmp_path, views):
        for frame, (colored, _) in zip(open_capture(write_scan(tmp_path, views)), views, strict=True):
            for y, x in ((3, 5), (20, 33), (35, 0)):
                v, u = int((y + 0.5) * 50 / 36), int((x + 0.5) * 72 / 40)
                assert frame.label[y, x] == colored.label[v, u]
            assert frame.label.dtype == np.uint8
        assert not list(tmp_path.rglob("*.png"))

    def test_without_the_table_there_are_no_labels_and_a_warning_says_so(self, tmp_path, views, caplog):
        scan = write_scan(tmp_path, views)
        (tmp_path / TABLE).unlink()
        assert all(frame.label is None for frame in open_capture(scan))
        assert f"labels of {scan} are not read: {TABLE} is neither" in caplog.text
        (scan / TABLE).write_text("nothing")
        with pytest.raises(LabelTableError, match=TABLE):
            open_capture(scan)

    def test_the_published_table_serves(self, tmp_path, views, shared_data):
        scan = write_scan(tmp_path, views[:1])
        (tmp_path / TABLE).write_bytes((shared_data / "labels" / TABLE).read_bytes())
        with zipfile.ZipFile(scan / "scene0000_00_2d-label-filt.zip", "w") as archive:
            ids = np.full((50, 72), 2, np.uint16)  # chair
            ids[:, 36:] = 1163  # object, which is NYU40's otherprop
            archive.writestr("label-filt/0.png", cv2.imencode(".png", ids)[1].tobytes())
        (frame,) = open_capture(scan)
        assert np.array_equal(np.unique(frame.label[:, :20]), [5])
        assert not frame.label[:, 20:].any()

    def test_a_frame_without_label_is_none_and_a_damaged_zip_is_named(self, tmp_path, views):
        scan = write_scan(tmp_path, views)
        write_labels(scan, views[:2])
        assert [frame.label is None for frame in open_capture(scan)] == [False, False, True, True]
        archive = scan / "scene0000_00_2d-label-filt.zip"
        content = archive.read_bytes()
        archive.write_bytes(content[: len(content) // 2])
        with pytest.raises(CaptureError, match=r"label-filt.zip is no whole zip file"):
            open_capture(scan)

    def test_a_label_that_unpacks_to_more_than_is_read_is_left_out(self, tmp_path, views, monkeypatch):
        scan = write_scan(tmp_path, views)
        monkeypatch.setattr("s4net_core.io.captures.scannet.MAX_BYTES", 100_000)
        with zipfile.ZipFile(scan / "scene0000_00_2d-label-filt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("label-filt/0.png", bytes(100_001))
        with pytest.raises(BadFrame, match=r"label-filt/0\.png unpacks to 100001 bytes, at most 100000 are read"):
            next(iter(open_capture(scan).views())).decode()

    def test_a_stride_reads_only_what_it_takes(self, tmp_path, views):
        """The frames between are damaged, which nobody notices."""
        scan = write_scan(tmp_path, views, color="raw", depth="raw")
        content = (scan / "scene0000_00.sens").read_bytes()
        image = views[1][0].color.tobytes()
        assert content.count(image) == 1
        (scan / "scene0000_00.sens").write_bytes(content.replace(image, bytes(len(image))))
        capture = open_capture(scan, stride=2)
        assert (len(capture), len(list(capture))) == (2, 2)
        assert np.array_equal(next(iter(capture)).color, next(iter(open_capture(scan))).color)

    @pytest.mark.parametrize("share", [0.45, 0.7])
    def test_a_truncated_file_gives_the_frames_before_its_damage(self, tmp_path, views, share, caplog):
        scan = write_scan(tmp_path, views)
        path = scan / "scene0000_00.sens"
        whole = [frame.color for frame in open_capture(scan)]
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        capture = open_capture(scan)
        read = [frame.color for frame in capture]
        assert 1 <= len(read) < 4
        assert np.array_equal(read[-1], whole[len(read) - 1])
        assert capture.skipped == {"unreadable": 4 - len(read)}
        assert f"the file ends in frame {len(read)} of 4" in capture.damage
        assert capture.damage in caplog.text

    def test_damage_inside_a_frame_costs_that_frame(self, tmp_path, views):
        scan = write_scan(tmp_path, views)
        path = scan / "scene0000_00.sens"
        depth = zlib.compress(np.rint(views[2][1].depth * 1000).astype("<u2").tobytes())
        path.write_bytes(path.read_bytes().replace(depth[8:40], bytes(32)))
        capture = open_capture(scan)
        assert len(list(capture)) == 3
        assert capture.skipped == {"depth_format": 1}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda b: b[:100], "no whole .sens file"),
            (lambda b: b"", "no whole .sens file"),
            (lambda b: b[:4] + struct.pack("<Q", 10**6) + b[12:], "sensor's name has 1000000 bytes"),
            (lambda b: struct.pack("<I", 5) + b[4:], r"no .sens file of version 4 \(it says 5\)"),
            (lambda b: b[:283] + struct.pack("<ii", 2, 2) + b[291:], "compression 2 of colour and 2 of depth"),
            (lambda b: b[:307] + struct.pack("<f", 0.0) + b[311:], "depth shift of 0.0"),
        ],
    )
    def test_what_is_no_sens_file_is_refused(self, tmp_path, views, change, message):
        scan = write_scan(tmp_path, views)
        path = scan / "scene0000_00.sens"
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(CaptureError, match=message):
            open_capture(scan)

    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.sens")
        with pytest.raises(CaptureError, match="no regular file"):
            open_capture(tmp_path)

    def test_a_wild_number_of_frames_is_bounded_by_the_size_of_the_file(self, tmp_path, views):
        write_sens(tmp_path / "a.sens", views, claimed=2**60)
        assert 4 <= len(open_capture(tmp_path / "a.sens")) < 1000
        assert len(list(open_capture(tmp_path / "a.sens"))) == 4

    def test_two_sens_files_in_one_folder_are_not_guessed_between(self, tmp_path, views):
        scan = write_scan(tmp_path, views)
        write_sens(scan / "other.sens", views[:1])
        with pytest.raises(CaptureError, match=r"2 .sens files .*give one of them"):
            open_capture(scan)
        assert len(open_capture(scan / "other.sens")) == 1

    def test_poses_may_come_from_elsewhere_and_need_not_be_known(self, tmp_path, views):
        scan = write_scan(tmp_path, views, poses=[np.full((4, 4), -np.inf)] * 4)
        assert len(list(open_capture(scan, poses=UNKNOWN_POSES))) == 4
        (scan / "slam.log").write_text("2 2 3\n1 0 0 7\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
        capture = open_capture(scan, poses="slam.log")
        assert [frame.T_world_camera[0, 3] for frame in capture] == [7]
        assert capture.skipped == {"no_pose": 3}
        (scan / "slam.txt").write_text("0.9 0 0 0 0 0 0 1\n1.1 0 0 0 0 0 0 1\n")
        with pytest.raises(CaptureError, match=r"slam\.txt has poses by time, and .* does not say when its images"):
            open_capture(scan, poses="slam.txt")


class TestExport:
    def test_both_forms_give_the_same_frames(self, tmp_path, views):
        write_export(tmp_path / "exported/scene0000_00", views)
        write_table(tmp_path / "exported" / TABLE)
        capture = open_capture(tmp_path / "exported/scene0000_00")
        assert isinstance(capture, ExportedScan)
        published = open_capture(write_scan(tmp_path, views))
        for frame, other in zip(capture, published, strict=True):
            assert frame.stamp == other.stamp
            assert np.array_equal(frame.color, other.color)
            assert np.array_equal(frame.depth, other.depth)
            assert np.array_equal(frame.label, other.label)
            np.testing.assert_allclose(frame.T_world_camera, other.T_world_camera, atol=1e-5)
            assert frame.intrinsics.fx == pytest.approx(other.intrinsics.fx, abs=1e-5)

    def test_numbers_sort_as_numbers_and_a_stride_counts_images(self, tmp_path, views):
        write_export(tmp_path / "scan", [views[i % 4] for i in range(11)])
        stamps = [frame.stamp for frame in open_capture(tmp_path / "scan", stride=5)]
        assert np.diff(stamps).tolist() == [5 * 33_333_333] * 2

    def test_matrices_of_the_published_size_serve_smaller_images(self, tmp_path, views):
        write_export(tmp_path / "scan", views)
        lens = views[0][0].intrinsics
        np.savetxt(tmp_path / "scan/intrinsic/intrinsic_color.txt", matrix(lens.scaled(*COLOR_SIZE)))
        read = next(iter(open_capture(tmp_path / "scan"))).intrinsics
        expected = lens.scaled(*DEPTH)
        assert (read.fx, read.cy) == (pytest.approx(expected.fx), pytest.approx(expected.cy))

    def test_labels_of_nyu40_need_no_table_and_others_can_be_mapped(self, tmp_path, views):
        write_export(tmp_path / "scan", views)
        (tmp_path / "scan/label-filt").rename(tmp_path / "scan/label")
        for i, (colored, _) in enumerate(views):
            label = colored.label.copy()
            label[:, 60:] = 39
            cv2.imwrite(str(tmp_path / f"scan/label/{i}.png"), label)
        frame = next(iter(open_capture(tmp_path / "scan")))
        assert frame.label[:, :32].all()
        assert not frame.label[:, 34:].any()
        mapped = next(iter(open_capture(tmp_path / "scan", map_labels=lambda raw: (raw == 39).astype(np.uint8))))
        assert mapped.label[:, 34:].all()
        assert not mapped.label[:, :32].any()

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("intrinsic/intrinsic_depth.txt", None, r"has no intrinsic/intrinsic_depth.txt"),
            ("intrinsic/intrinsic_color.txt", "1 2 3", "holds no camera matrix"),
        ],
    )
    def test_missing_and_damaged_matrices_are_named(self, tmp_path, views, file, content, message):
        write_export(tmp_path / "scan", views)
        (tmp_path / "scan" / file).unlink()
        if content:
            (tmp_path / "scan" / file).write_text(content)
        with pytest.raises(CaptureError, match=message):
            open_capture(tmp_path / "scan")

    def test_frames_that_cannot_be_used_are_left_out_and_counted(self, tmp_path, views):
        write_export(tmp_path / "scan", views)
        np.savetxt(tmp_path / "scan/pose/0.txt", np.full((4, 4), -np.inf))
        (tmp_path / "scan/depth/1.png").unlink()
        (tmp_path / "scan/pose/2.txt").unlink()
        capture = open_capture(tmp_path / "scan")
        assert len(list(capture)) == 1
        assert capture.skipped == {"pose": 2, "unreadable": 1}


def test_a_scan_becomes_a_scene_folder_with_its_labels(tmp_path, views):
    capture = open_capture(write_scan(tmp_path, views), stride=2)
    assert write_scene_folder(tmp_path / "room", capture, quality=100) == 2
    for frame, other in zip(SceneFolder(tmp_path / "room"), capture, strict=True):
        assert np.array_equal(frame.label, other.label)
        assert np.array_equal(frame.color, other.color)


def test_a_frame_behind_the_end_is_refused(tmp_path, views):
    write_sens(tmp_path / "a.sens", views[:1], claimed=3)
    with pytest.raises(BadFrame, match=r"frame 2 of .* is missing: the file ends in frame 1 of 3"):
        open_capture(tmp_path / "a.sens")[2]
