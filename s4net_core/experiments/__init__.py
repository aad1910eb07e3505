"""Methods on scenes with seeds: what is run, what came of it, where the numbers come from, and the tables."""
