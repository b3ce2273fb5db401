"""Training, interruptible at any step and exactly resumable: the only room that imports torch and Ultralytics.

Knows nothing of stores, runs or attempts: it takes folders and files, and returns snapshots.
"""
