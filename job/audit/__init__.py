"""Audit: labels that a run's model contradicts."""
