"""How streams become frames: matching by stamp, transforms, calibration, and the one rule for time."""
