"""Adaptation: the learner, its teacher, the guard, and the loops around them."""
