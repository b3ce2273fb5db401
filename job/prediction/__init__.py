"""Prediction: a run's model put to use on pictures, durably."""
