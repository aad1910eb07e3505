"""Atomic writing: the old content or the new one, nothing else, nothing left behind."""

import math
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from s4net_core import files
from s4net_core.config import ModelSettings
from s4net_core.errors import ExportError, S4NetError
from s4net_core.files import (
    FolderLock,
    check_writable,
    creation_time,
    nan_as_none,
    parse_json,
    read_file,
    remove_temporaries,
    share_file,
    write_atomically,
    write_result,
)
from s4net_core.models.base_model_file import base_model_file

ROOT = Path(__file__).resolve().parents[1]


def test_nan_has_a_place_in_json_however_deep_it_lies():
    found = nan_as_none({"a": [1.5, math.nan, ("b", {3: math.nan})], "c": True, "d": None, "e": "nan"})
    assert found == {"a": [1.5, None, ["b", {3: None}]], "c": True, "d": None, "e": "nan"}
    assert nan_as_none(math.nan) is None


def test_it_writes_bytes_and_text_and_makes_folders(tmp_path):
    write_atomically(tmp_path / "a" / "b.bin", b"\x00\x01")
    write_atomically(tmp_path / "a" / "c.txt", "λ")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "a" / "c.txt").read_text(encoding="utf-8") == "λ"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_says_who_may_read_a_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def pipe(path):
    os.mkfifo(path)


def link_to_a_device(path):
    path.symlink_to("/dev/null")


def folder(path):
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, link_to_a_device, folder])
def test_what_is_no_regular_file_is_neither_replaced_nor_read_nor_waited_for(tmp_path, make):
    path = tmp_path / "thing"
    make(path)
    before = path.lstat()
    with pytest.raises(S4NetError, match=r"thing.*it is (no regular file|a folder)"):
        write_result(path, b"new")
    with pytest.raises(OSError, match=r"it is (no regular file|a folder)"):
        read_file(path)
    assert path.lstat() == before
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_a_link_to_a_file_is_replaced_and_the_file_stays(tmp_path):
    (tmp_path / "precious").write_text("old")
    (tmp_path / "link").symlink_to("precious")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "precious").read_text() == "old"
    assert read_file(tmp_path / "link") == b"new"


def test_a_file_larger_than_asked_for_is_not_read(tmp_path):
    (tmp_path / "large").write_bytes(b"12345")
    assert read_file(tmp_path / "large", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, at most 4"):
        read_file(tmp_path / "large", 4)


@pytest.mark.parametrize("path", ["x" * 5000, "nul\0"])
def test_a_name_that_no_file_can_have_is_an_error_of_the_file_system(path):
    with pytest.raises(OSError):  # its text is the system's
        read_file(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1e400]", "[1", "\xff"])
def test_json_that_cannot_be_used_is_a_value_error(text):
    with pytest.raises(ValueError):  # the texts differ
        parse_json(text)


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".state.json.1a2b.tmp", "mine.tmp", ".lock"):
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.tmp", ".lock"}


def test_a_lock_is_not_held_once_its_folder_was_removed_or_made_anew(tmp_path):
    (tmp_path / "state").mkdir()
    first = FolderLock(tmp_path / "state", "end it")
    assert first.holds
    shutil.rmtree(tmp_path / "state")
    assert not first.holds
    with FolderLock.of_new(tmp_path / "state", "end it") as second:
        assert second.holds
        assert not first.holds
    first.release()


def test_a_failure_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_the_time_of_creation_can_be_given(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert creation_time() == "1970-01-02T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(S4NetError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        creation_time()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert abs(datetime.fromisoformat(creation_time()) - datetime.now(timezone.utc)) < timedelta(minutes=1)


def test_files_of_the_package_are_found_beside_the_code_else_where_it_was_installed(tmp_path, monkeypatch):
    assert share_file("config", "fastdds.xml") == ROOT / "config/fastdds.xml"
    monkeypatch.setattr(files, "__file__", str(tmp_path / "lib" / "s4net_core" / "files.py"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'underlay'}:{tmp_path}")
    installed = tmp_path / "share" / "s4net_ros" / "demo"
    with pytest.raises(S4NetError, match=rf"demo/weights/base.safetensors of s4net_ros is in none of .*{tmp_path}/sh"):
        base_model_file("demo", ModelSettings())
    shutil.copytree(ROOT / "demo" / "weights", installed / "weights")
    assert base_model_file("demo", ModelSettings()) == installed / "weights" / "base.safetensors"


def test_a_result_that_cannot_be_written_is_an_error_of_the_kind_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=rf"{tmp_path}/file/a\.onnx cannot be written .*rights"):
        write_result(tmp_path / "file" / "a.onnx", b"", ExportError)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "folder" / "a.npz", tmp_path / "file", None)
    assert not (tmp_path / "new").exists()
    with pytest.raises(S4NetError, match=rf"{tmp_path}/file/a\.npz cannot be written: {tmp_path}/file is no folder"):
        check_writable(None, tmp_path / "file" / "a.npz")
    for folder in (tmp_path, Path("/")):
        with pytest.raises(S4NetError, match="is a folder: name a file"):
            check_writable(folder)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, problem in (
        (Path("/dev/null"), "is no regular file"),
        (tmp_path / "link" / "a.npz", "link is no folder"),
    ):
        with pytest.raises(S4NetError, match=problem):
            check_writable(path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(S4NetError, match=f"{tmp_path} is no folder that may be written to"):
        check_writable(tmp_path / "a.npz")


def test_a_folder_belongs_to_one_until_it_is_released(tmp_path):
    first = FolderLock(tmp_path, "end it")
    with pytest.raises(S4NetError, match=f"{tmp_path} is in use by another process: end it"):
        FolderLock(tmp_path, "end it")
    first.release()
    FolderLock(tmp_path, "end it").release()


def test_a_folder_is_free_again_when_its_process_was_killed(tmp_path):
    code = f"from s4net_core.files import *; FolderLock(Path({str(tmp_path)!r}), ''); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    FolderLock(tmp_path, "").release()
