"""Training that can be cut anywhere and continued exactly: the only place that imports torch and Ultralytics.

Knows nothing of stores, runs or attempts: it takes folders and files, and hands out snapshots.
"""
