"""What the bucket holds of a run: records, checkpoints, heartbeat, lineage, cost."""
