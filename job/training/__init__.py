"""Training, interruptible at any step and exactly resumable, validation, detection and the export of a model.

The only room that imports torch and Ultralytics. Knows nothing of stores, runs or attempts: it takes folders and files,
and returns snapshots, metrics and detections.
"""
