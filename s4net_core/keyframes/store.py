"""Keyframes on disk: one .npz file each, written once, and an index of the valid files. Nothing is unpickled."""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s4net_core.errors import KeyframeError
from s4net_core.files import open_regular, read_json, remove_temporaries, write_atomically
from s4net_core.frames import Frame, Intrinsics
from s4net_core.keyframes.gate import Measured, Overlaps, Verdict
from s4net_core.keyframes.view import Keyframe

INDEX = "index.json"
VERSION = 1
MAX_BYTES = 1 << 28
"""Largest content of a keyframe's file; the largest images of `model.width` and `model.height` have a third of it."""
DAMAGE = (
    *(OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, OverflowError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError),
)
"""Exceptions that reading a damaged .npz may raise."""


@dataclass(frozen=True)
class Saved:
    """Content of a folder.

    Args:
        next_id: of the next new keyframe.
        evicted: keyframes forgotten so far.
        keyframes: in the order of their ids, each with the overlaps that were measured when it came in.
        predicted: whether their depth was predicted; False = from a depth camera.
        segment: the newest.
        joined: segments that were shown to fit, see `Segments.joined`.
    """

    next_id: int
    evicted: int
    keyframes: list[tuple[Keyframe, Overlaps]]
    predicted: bool
    segment: int = 0
    joined: list[tuple[int, int]] = field(default_factory=list)


def write(folder: Path, saved: Saved) -> None:
    """Bring `folder` up to date: new keyframes first, then the index, then old files are deleted.

    Raises:
        KeyframeError: the folder cannot be written.
    """
    try:
        remove_temporaries(folder)
        names = {}
        for keyframe, overlaps in saved.keyframes:
            names[keyframe.id] = _file_name(keyframe, overlaps)
            if not (folder / names[keyframe.id]).exists():
                write_atomically(folder / names[keyframe.id], _packed(keyframe, overlaps))
        index = {
            "version": VERSION,
            "next_id": saved.next_id,
            "evicted": saved.evicted,
            "predicted_depth": saved.predicted,
            "segment": saved.segment,
            "joined": saved.joined,
            "files": list(names.values()),
        }
        write_atomically(folder / INDEX, json.dumps(index, indent=1))
        for path in folder.glob("keyframe_*.npz"):
            if path.name not in names.values():
                path.unlink()
    except OSError as error:
        raise KeyframeError(f"keyframes cannot be saved in {folder}: {error}") from error


def read(folder: Path) -> tuple[Saved, list[str]]:
    """What `folder` holds, and what is wrong with each file that had to be left out.

    Raises:
        KeyframeError: there is no index, or it is damaged or of an unknown version.
    """
    index = _read_index(folder / INDEX)
    found: dict[int, tuple[Keyframe, Overlaps]] = {}
    problems = []
    for name in index["files"]:
        try:
            keyframe, overlaps = _read_keyframe(folder / Path(name).name)
        except DAMAGE as error:
            problems.append(f"keyframe file {folder / name} is damaged or missing and is left out: {error}")
            continue
        if keyframe.id in found:
            problems.append(
                f"keyframe file {folder / name} is left out: another file holds a keyframe {keyframe.id} as well; "
                "delete the one that is wrong"
            )
            continue
        found[keyframe.id] = keyframe, overlaps
    next_id = max([index["next_id"], *(id + 1 for id in found)])
    keyframes = [found[id] for id in sorted(found)]
    segment = max([index.get("segment", 0), *(keyframe.segment for keyframe, _ in keyframes)])
    joined = [(first, second) for first, second in index.get("joined", [])]
    return Saved(next_id, index["evicted"], keyframes, index["predicted_depth"], segment, joined), problems


def _read_index(path: Path) -> dict[str, Any]:
    remedy = "delete the folder to start with no keyframes"
    try:
        index = read_json(path)
    except OSError as error:
        raise KeyframeError(f"no saved keyframes at {path}: {error}") from error
    except ValueError as error:
        raise KeyframeError(f"keyframe index {path} is damaged ({error}): {remedy}") from error
    version = index.get("version") if isinstance(index, dict) else None
    if version != VERSION:
        raise KeyframeError(f"keyframe index {path} has version {version}, known is {VERSION}: {remedy}")
    whole = all(isinstance(index.get(key), int) for key in ("next_id", "evicted"))
    whole = whole and isinstance(index.get("predicted_depth"), bool) and isinstance(index.get("files"), list)
    if not whole or not all(isinstance(file, str) for file in index["files"]):
        raise KeyframeError(f"keyframe index {path} lacks next_id, evicted, predicted_depth or files: {remedy}")
    if not isinstance(index.get("segment", 0), int) or not _are_pairs(index.get("joined", [])):
        raise KeyframeError(f"keyframe index {path} has a segment or joined segments that are no numbers: {remedy}")
    return dict(index)


def _are_pairs(value: Any) -> bool:
    """Whether a value from JSON is a list of pairs of integers."""
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(isinstance(number, int) for pair in value for number in pair)


def _file_name(keyframe: Keyframe, overlaps: Overlaps) -> str:
    """Named by content too, so that another buffer's keyframe, or one before it moved, is not taken for this one."""
    measured = hashlib.blake2b(repr(sorted(overlaps.items())).encode(), digest_size=4).hexdigest()
    return f"keyframe_{keyframe.id:06d}_{keyframe.digest}_{measured}.npz"


def _packed(keyframe: Keyframe, overlaps: Overlaps) -> bytes:
    """Content of a keyframe's file."""
    lens = keyframe.intrinsics
    file = io.BytesIO()
    np.savez(
        file,
        id=keyframe.id,
        stamp=keyframe.stamp,
        color=keyframe.color,
        depth_mm=keyframe.depth_mm,
        lens=np.array([lens.fx, lens.fy, lens.cx, lens.cy]),
        distortion=np.array(lens.distortion, dtype=np.float64),
        T_world_camera=keyframe.T_world_camera,
        frame_id=np.array(keyframe.frame_id),
        segment=keyframe.segment,
        revision=keyframe.revision,
        others=np.array(list(overlaps), dtype=np.int64),
        shares=np.array([pair[:2] for pair in overlaps.values()], dtype=np.float64).reshape(-1, 2),
        verdicts=np.array([pair.verdict for pair in overlaps.values()], dtype=np.int64),
    )
    return file.getvalue()


def _read_keyframe(path: Path) -> tuple[Keyframe, Overlaps]:
    with open_regular(path) as file, np.load(file, allow_pickle=False) as data:
        if not isinstance(data, np.lib.npyio.NpzFile) or data.zip is None:
            raise ValueError("it is no .npz file")
        size: int = sum(entry.file_size for entry in data.zip.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes")
        color, depth_mm = data["color"], data["depth_mm"]
        if depth_mm.dtype != np.uint16 or depth_mm.shape != color.shape[:2]:
            raise ValueError(f"depth is {depth_mm.shape} {depth_mm.dtype}, colour {color.shape} {color.dtype}")
        fx, fy, cx, cy = data["lens"].tolist()
        height, width = depth_mm.shape
        lens = Intrinsics(width, height, fx, fy, cx, cy, tuple(data["distortion"].tolist()))
        T_world_camera = data["T_world_camera"]
        frame_id, stamp = str(data["frame_id"]), int(data["stamp"])
        Frame(stamp, color, None, T_world_camera, lens, frame_id)  # its checks refuse damaged values
        place = [int(data[name]) if name in data else 0 for name in ("segment", "revision")]  # none in older files
        keyframe = Keyframe(int(data["id"]), stamp, color, depth_mm, lens, T_world_camera, frame_id, *place)
        others, shares = data["others"].tolist(), data["shares"].tolist()
        verdicts = data["verdicts"].tolist() if "verdicts" in data else [Verdict.FITS] * len(others)
        return keyframe, {
            other: Measured(float(share[0]), float(share[1]), Verdict(verdict))
            for other, share, verdict in zip(others, shares, verdicts, strict=True)
        }
