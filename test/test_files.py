"""Atomic writing: the old content or the new one, nothing else, nothing left behind."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from s4net_core.errors import ExportError, S4NetError
from s4net_core.files import FolderLock, creation_time, write_atomically, write_result


def test_it_writes_bytes_and_text_and_makes_folders(tmp_path):
    write_atomically(tmp_path / "a" / "b.bin", b"\x00\x01")
    write_atomically(tmp_path / "a" / "c.txt", "λ")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "a" / "c.txt").read_text(encoding="utf-8") == "λ"
    assert (tmp_path / "a" / "b.bin").stat().st_mode & 0o777 == 0o644


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


def test_a_result_that_cannot_be_written_is_an_error_of_the_kind_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=rf"{tmp_path}/file/a\.onnx cannot be written .*rights"):
        write_result(tmp_path / "file" / "a.onnx", b"", ExportError)


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
