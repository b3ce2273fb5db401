"""Recipes and training arguments; no torch."""
