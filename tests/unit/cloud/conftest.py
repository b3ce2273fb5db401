"""The settings of a project, as the tests of the cloud have them."""

from tests.cloud.conftest import settings

__all__ = ["settings"]
