"""Models that are made of published ones, without training."""
