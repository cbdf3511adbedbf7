"""Benchmarks: figures of one run on one machine, as ratios to baselines that ran in the same minutes."""
