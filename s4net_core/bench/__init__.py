"""What each part costs, as ratios measured in one run."""
