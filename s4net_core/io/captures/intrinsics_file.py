"""``intrinsics.json``: the lens of a scene folder, and of folders of other formats that have no file for theirs."""

import logging
import math
from dataclasses import replace
from pathlib import Path

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.files import read_json
from s4net_core.frames import Intrinsics
from s4net_core.io.images.codec import MILLIMETRES

log = logging.getLogger(__name__)

INTRINSICS_FILE = "intrinsics.json"
LENS_EXAMPLE = '{"width": 640, "height": 480, "fx": 615.0, "fy": 615.0, "cx": 319.5, "cy": 239.5}'


class IntrinsicsFile:
    """``intrinsics.json``, which may give every image its own focal length.

    Args:
        path: the file.
        units_per_metre: of depth images, where the file has no ``depth_scale``.

    Raises:
        CaptureError: it is missing or cannot be parsed.
    """

    def __init__(self, path: Path, units_per_metre: float = MILLIMETRES) -> None:
        self.path = path
        if not path.is_file():
            raise CaptureError(
                f"{path} is missing: a scene folder needs the lens of its camera, in pixels of the colour images, e.g. "
                f"{LENS_EXAMPLE}"
            )
        try:
            content = read_json(path)
            self._per_frame = [(float(lens["fx"]), float(lens["fy"])) for lens in content.get("per_frame", ())]
            fx, fy = self._per_frame[0] if self._per_frame else (content["fx"], content["fy"])
            self._shared = Intrinsics(
                width=int(content["width"]),
                height=int(content["height"]),
                fx=float(fx),
                fy=float(fy),
                cx=float(content["cx"]),
                cy=float(content["cy"]),
                distortion=tuple(float(k) for k in content.get("distortion", ())),
            )
            self.units_per_metre = 1.0 / float(content.get("depth_scale", 1.0 / units_per_metre))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise CaptureError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it must be JSON with width, height, fx, fy, "
                "cx, cy"
            ) from error

    def of(self, index: int) -> Intrinsics:
        """Lens of the image of that number.

        Raises:
            BadFrame: ``intrinsics`` when every image has its own, and this one none.
        """
        if not self._per_frame:
            return self._shared
        if index >= len(self._per_frame):
            raise BadFrame(
                "intrinsics", f"{self.path}: per_frame has {len(self._per_frame)} lenses, none for image {index}"
            )
        fx, fy = self._per_frame[index]
        return replace(self._shared, fx=fx, fy=fy)

    def of_all(self) -> Intrinsics:
        """The one lens of all images.

        Raises:
            CaptureError: every image has its own.
        """
        if self._per_frame:
            raise CaptureError(f"{self.path}: per_frame is read in a scene folder alone: give fx and fy for all images")
        return self._shared


def lens_beside(folder: Path, assumed: Intrinsics, units_per_metre: float) -> tuple[Intrinsics, float]:
    """Lens of a capture of another format, and its depth units per metre, from an ``intrinsics.json`` in its folder.

    Args:
        folder: of the capture.
        assumed: returned, with a warning, where there is no such file.
        units_per_metre: of depth images, where the file has no ``depth_scale``; another one is told by a warning.

    Raises:
        CaptureError: as `IntrinsicsFile`, or the file gives every image its own lens.
    """
    path = folder / INTRINSICS_FILE
    if path.is_file():
        file = IntrinsicsFile(path, units_per_metre)
        if not math.isclose(file.units_per_metre, units_per_metre):
            log.warning(
                "depth of %s has %g units a metre, as depth_scale in %s says, and not the %g of its format",
                *(folder, file.units_per_metre, path.name, units_per_metre),
            )
        return file.of_all(), file.units_per_metre
    log.warning(
        "%s does not say which lens its camera has: %dx%d with fx %g, fy %g, cx %g, cy %g is assumed. If that is "
        "wrong, write %s, e.g. %s",
        *(folder, assumed.width, assumed.height, assumed.fx, assumed.fy, assumed.cx, assumed.cy, path, LENS_EXAMPLE),
    )
    return assumed, units_per_metre
