"""Export: a run's model as a file for other programs, checked against its weights."""
