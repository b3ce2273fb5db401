"""Weights & Biases: one curve for a run, however many attempts it took.

A process of its own follows what is committed and logs it, so that nothing that W&B does, or fails to do, reaches the
training. Guarantees that a row is logged once, by its place in the run; that only what is committed is logged; and that
a machine which has been superseded adds nothing. Knows nothing of how training works.
"""
