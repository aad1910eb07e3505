"""At which sizes the teacher looks at an image: those at which its network is surest."""

from collections.abc import Callable
from functools import cache

SMALLER = [2.0 ** (n / 2) for n in range(-4, 1)]
"""Scales of the working size that can be the smaller of the two: from a quarter up to the working size itself."""
MIN_SIDE = 32
"""Pixels: deep encoders halve images five times."""


def scales_of_looks(certainty: Callable[[float], float], ratio: float, side: int) -> list[float]:
    """Scales of the working size at which the teacher looks at an image, the working size itself first.

    A network knows things by their size in pixels, which follows from the images of its training. At other sizes it
    errs more, and it is less sure. So the two sizes of this ratio are looked at where it is surest. Small sizes are
    tried first, and larger ones only as long as it gets surer, because their looks cost most. None is larger than
    `ratio` times the working size.

    Args:
        certainty: mean probability of the most probable class, at a scale.
        ratio: of the two sizes, at least 1; 1 = there is only the working size.
        side: shorter side of the working size, pixels.
    """
    if ratio == 1:
        return [1.0]
    known = cache(certainty)
    smaller, best = 1.0, 0.0
    for scale in SMALLER:
        if scale < 1 and scale * side < MIN_SIDE:
            continue
        sure = known(scale) + known(scale * ratio)
        if sure < best:
            break
        smaller, best = scale, sure
    return [1.0, *(scale for scale in (smaller, smaller * ratio) if scale != 1)]
