"""At which sizes the teacher looks at an image: those at which its network is surest."""

import math
from collections.abc import Callable
from functools import cache

SMALLER = [2.0 ** (n / 2) for n in range(-4, 1)]
"""Scales of the working size that can be the smaller of the two: from a quarter up to the working size itself."""
MIN_SIDE = 32
"""Pixels: deep encoders halve images five times."""
SAME_SCALE = 0.01
"""Two scales that differ by less are one look."""


def scales_of_looks(certainty: Callable[[float], float], ratio: float, side: int) -> list[float]:
    """Scales of the working size at which the teacher looks at an image, the working size itself first.

    A network knows things by their size in pixels, which follows from the images of its training. At other sizes it
    errs more, and it is less sure. So the two sizes of this ratio are looked at where it is surest. The larger is at
    most `ratio` times the working size: a larger look would cost more than the rest of learning.

    Args:
        certainty: mean probability of the most probable class, at a scale.
        ratio: of the two sizes, at least 1; 1 = there is only the working size.
        side: shorter side of the working size, pixels.
    """
    if ratio == 1:
        return [1.0]
    known = cache(certainty)
    small = [scale for scale in SMALLER if scale == 1 or scale * side >= MIN_SIDE]
    smaller = max(small, key=lambda scale: known(scale) + known(scale * ratio))
    return [1.0, *(scale for scale in (smaller, smaller * ratio) if not math.isclose(scale, 1, rel_tol=SAME_SCALE))]
