"""Names of the files that a training writes, in a checkpoint and at its end."""

STATE, BEST, LAST, RESULTS = "state.pt", "best.pt", "last.pt", "results.csv"

EVALUATION_BEFORE, EVALUATION = "evaluation-before.json", "evaluation.json"
"""Evaluations of the start weights and of the best weights."""
