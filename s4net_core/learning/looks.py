"""At which sizes the teacher looks at an image: those at which its network is surest."""

from collections.abc import Callable
from dataclasses import dataclass

SMALLER = [2.0 ** (n / 2) for n in range(-4, 1)]
"""Scales of the working size that can be the smaller of the two: from a quarter up to the working size itself."""
MIN_SIDE = 32
"""Pixels: deep encoders halve images five times."""
MIN_SURER = 0.005
"""Gain in certainty that makes another working size worth a word; images of one place differ by about half of it."""


@dataclass(frozen=True)
class Looks:
    """Scales of the working size.

    Args:
        scales: those at which the teacher looks at an image, the working size itself first.
        surest: where the network is surest of all that were tried; 1 = nowhere clearly surer than at the working size.
    """

    scales: list[float]
    surest: float = 1.0


def surest_looks(certainty: Callable[[float], float], ratio: float, side: int) -> Looks:
    """How the teacher looks at images.

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
        return Looks([1.0])
    known: dict[float, float] = {}

    def sure(scale: float) -> float:
        if scale not in known:
            known[scale] = certainty(scale)
        return known[scale]

    smaller, best = 1.0, 0.0
    for scale in SMALLER:
        if scale < 1 and scale * side < MIN_SIDE:
            continue
        both = sure(scale) + sure(scale * ratio)
        if both < best:
            break
        smaller, best = scale, both
    surest = max(known, key=sure)
    scales = [1.0, *(scale for scale in (smaller, smaller * ratio) if scale != 1)]
    return Looks(scales, surest if sure(surest) > sure(1.0) + MIN_SURER else 1.0)
