"""Methods on scenes with seeds: running them, storing results with their provenance, and the tables."""
