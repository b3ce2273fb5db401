"""Conclusions from records of runs: metrics, learning curves, comparisons, advice, estimates, campaigns."""
