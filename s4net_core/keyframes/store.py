"""Keyframes on disk. Nothing is unpickled.

Each has one .npz file, written once: a pose graph moves keyframes again and again, but not their images. The poses and
pairs of all are in one more .npz file, and an index names the valid files.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import KeyframeError
from s4net_core.files import open_regular, read_json, read_npz, remove_temporaries, write_atomically
from s4net_core.frames import Frame, Intrinsics, check_pose
from s4net_core.keyframes.gate import Measured, Overlaps, Verdict
from s4net_core.keyframes.view import Keyframe

INDEX = "index.json"
VERSION = 3
MAX_BYTES = 1 << 28
"""Largest content of a file; the largest images of `model.width` and `model.height` have a third of it."""
REMEDY = "delete the folder to start with no keyframes"
DAMAGE = (OSError, KeyError, TypeError, ValueError, OverflowError)
"""Exceptions that reading a damaged file may raise: `read_npz`, or what is made of its arrays."""


@dataclass(frozen=True)
class Saved:
    """Content of a folder.

    Args:
        next_id: of the next new keyframe.
        evicted: keyframes forgotten so far.
        keyframes: in the order of their ids, each with what was measured of it and older ones.
        predicted: whether their depth was predicted; False = from a depth camera.
        segment: the newest.
        joined: segments that were shown to fit, see `Segments.joined`.
        frame: as of `KeyframeBuffer`.
        correction: of the views to come, (4, 4), see `Trail`; None = there is none.
    """

    next_id: int
    evicted: int
    keyframes: list[tuple[Keyframe, Overlaps]]
    predicted: bool
    segment: int = 0
    joined: list[tuple[int, int]] = field(default_factory=list)
    frame: str = ""
    correction: NDArray[np.float64] | None = None


def write(folder: Path, saved: Saved) -> None:
    """Bring `folder` up to date: new files first, then the index, then old files are deleted.

    Raises:
        KeyframeError: the folder cannot be written.
    """
    try:
        remove_temporaries(folder)
        # Named by content too, so that another buffer's keyframe is not taken for this one.
        names = {f"keyframe_{keyframe.id:06d}_{keyframe.digest}.npz": keyframe for keyframe, _ in saved.keyframes}
        for name, keyframe in names.items():
            if not (folder / name).exists():
                write_atomically(folder / name, _packed(keyframe))
        places = _packed_places(saved.keyframes, saved.correction)
        places_name = f"places_{hashlib.blake2b(places, digest_size=8).hexdigest()}.npz"
        if not (folder / places_name).exists():
            write_atomically(folder / places_name, places)
        index = {
            "version": VERSION,
            "next_id": saved.next_id,
            "evicted": saved.evicted,
            "predicted_depth": saved.predicted,
            "segment": saved.segment,
            "joined": saved.joined,
            "frame": saved.frame,
            "places": places_name,
            "files": list(names),
        }
        write_atomically(folder / INDEX, json.dumps(index, indent=1))
        for path in (*folder.glob("keyframe_*.npz"), *folder.glob("places_*.npz")):
            if path.name not in (*names, places_name):
                path.unlink()
    except OSError as error:
        raise KeyframeError(f"keyframes cannot be saved in {folder}: {error}") from error


def read(folder: Path) -> tuple[Saved, list[str]]:
    """What `folder` holds, and what is wrong with each file that had to be left out.

    Raises:
        KeyframeError: there is no index, or it or the file of poses and pairs is damaged or of an unknown version.
    """
    index = _read_index(folder / INDEX)
    places, correction = _read_places(folder / Path(index["places"]).name)
    found: dict[int, tuple[Keyframe, Overlaps]] = {}
    problems = []
    for name in index["files"]:
        try:
            keyframe, overlaps = _read_keyframe(folder / Path(name).name, places)
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
    segment = max([index["segment"], *(keyframe.segment for keyframe, _ in keyframes)])
    joined = [(first, second) for first, second in index["joined"]]
    predicted, frame = index["predicted_depth"], index["frame"]
    return Saved(next_id, index["evicted"], keyframes, predicted, segment, joined, frame, correction), problems


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = read_json(path)
    except OSError as error:
        raise KeyframeError(f"no saved keyframes at {path}: {error}") from error
    except ValueError as error:
        raise KeyframeError(f"keyframe index {path} is damaged ({error}): {REMEDY}") from error
    version = index.get("version") if isinstance(index, dict) else None
    if version != VERSION:
        raise KeyframeError(f"keyframe index {path} has version {version}, known is {VERSION}: {REMEDY}")
    whole = all(isinstance(index.get(key), int) for key in ("next_id", "evicted"))
    whole = whole and isinstance(index.get("predicted_depth"), bool) and isinstance(index.get("files"), list)
    texts = (index.get("places"), index.get("frame"), *index["files"]) if whole else ()
    if not whole or not all(isinstance(text, str) for text in texts):
        raise KeyframeError(
            f"keyframe index {path} lacks next_id, evicted, predicted_depth, places, frame or files: {REMEDY}"
        )
    if not isinstance(index.get("segment"), int) or not _are_pairs(index.get("joined")):
        raise KeyframeError(f"keyframe index {path} has a segment or joined segments that are no numbers: {REMEDY}")
    return dict(index)


def _are_pairs(value: Any) -> bool:
    """Whether a value from JSON is a list of pairs of integers."""
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(isinstance(number, int) for pair in value for number in pair)


@dataclass(frozen=True)
class _Place:
    """What corrections change of a keyframe: pose, (4, 4), segment, revision, and the pairs with older ones."""

    T_world_camera: NDArray[np.float64]
    segment: int
    revision: int
    overlaps: Overlaps


def _packed_places(keyframes: list[tuple[Keyframe, Overlaps]], correction: NDArray[np.float64] | None) -> bytes:
    """Content of the file of poses and pairs."""
    pairs = [(keyframe.id, other, pair) for keyframe, overlaps in keyframes for other, pair in overlaps.items()]
    file = io.BytesIO()
    np.savez(
        file,
        id=np.array([keyframe.id for keyframe, _ in keyframes], dtype=np.int64),
        T_world_camera=np.array([keyframe.T_world_camera for keyframe, _ in keyframes]).reshape(-1, 4, 4),
        segment=np.array([keyframe.segment for keyframe, _ in keyframes], dtype=np.int64),
        revision=np.array([keyframe.revision for keyframe, _ in keyframes], dtype=np.int64),
        pairs=np.array([(id, other) for id, other, _ in pairs], dtype=np.int64).reshape(-1, 2),
        shares=np.array([pair[:2] for _, _, pair in pairs], dtype=np.float64).reshape(-1, 2),
        verdicts=np.array([pair.verdict for _, _, pair in pairs], dtype=np.int64),
        correction=np.array([] if correction is None else correction).reshape(-1, 4, 4),
    )
    return file.getvalue()


def _read_places(path: Path) -> tuple[dict[int, _Place], NDArray[np.float64] | None]:
    """By id of the keyframe, and the correction of views to come; raises KeyframeError."""
    try:
        data = _read_arrays(path)
        poses, numbers = data["T_world_camera"], (data[name].tolist() for name in ("id", "segment", "revision"))
        places = {
            int(id): _Place(T, int(segment), int(revision), {})
            for T, id, segment, revision in zip(poses, *numbers, strict=True)
        }
        measured = (data[name].tolist() for name in ("pairs", "shares", "verdicts"))
        for (id, other), (of_new, of_other), verdict in zip(*measured, strict=True):
            places[id].overlaps[other] = Measured(float(of_new), float(of_other), Verdict(verdict))
        corrections = list(data["correction"])
        for correction in corrections:
            check_pose(correction)
    except DAMAGE as error:
        raise KeyframeError(f"poses of the keyframes in {path} are damaged or missing ({error}): {REMEDY}") from error
    return places, corrections[0] if corrections else None


def _packed(keyframe: Keyframe) -> bytes:
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
        frame_id=np.array(keyframe.frame_id),
    )
    return file.getvalue()


def _read_keyframe(path: Path, places: dict[int, _Place]) -> tuple[Keyframe, Overlaps]:
    data = _read_arrays(path)
    color, depth_mm = data["color"], data["depth_mm"]
    if depth_mm.dtype != np.uint16 or depth_mm.shape != color.shape[:2]:
        raise ValueError(f"depth is {depth_mm.shape} {depth_mm.dtype}, colour {color.shape} {color.dtype}")
    fx, fy, cx, cy = data["lens"].tolist()
    height, width = depth_mm.shape
    lens = Intrinsics(width, height, fx, fy, cx, cy, tuple(data["distortion"].tolist()))
    id, stamp, frame_id = int(data["id"]), int(data["stamp"]), str(data["frame_id"])
    if id not in places:
        raise ValueError(f"keyframe {id} has no pose")
    place = places[id]
    Frame(stamp, color, None, place.T_world_camera, lens, frame_id)  # its checks refuse damaged values
    keyframe = Keyframe(id, stamp, color, depth_mm, lens, place.T_world_camera, frame_id, place.segment, place.revision)
    return keyframe, place.overlaps


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file; raises one of `DAMAGE`."""
    with open_regular(path) as file:
        return read_npz(file, MAX_BYTES, "keyframes need")
