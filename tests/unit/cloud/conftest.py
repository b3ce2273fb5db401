"""The settings of a cloud project."""

from tests.cloud.conftest import settings

__all__ = ["settings"]
