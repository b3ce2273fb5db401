"""Read-only over finished records: metrics, learning curves, comparisons, advice, estimates."""
