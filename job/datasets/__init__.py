"""Datasets in YOLO format: checked, pinned by digest, brought to and from a bucket. Knows nothing of training."""
