"""Weights & Biases: one unbroken curve for a run, each epoch once, over all of its attempts.

Guarantees that only committed rows are logged, that a superseded machine adds none, and that no failure of W&B reaches
the training. The server decides which rows it lacks; the records in the bucket have them. Knows nothing of training.
"""
