"""Measurements through the public API, as ratios within one run."""
