"""Trainings of these tests are of a tiny detector."""

from tests.support.tiny_architecture import tiny_architecture, tiny_architecture_of_fixtures

__all__ = ["tiny_architecture", "tiny_architecture_of_fixtures"]  # fixtures
