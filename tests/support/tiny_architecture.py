"""The detector that most tests train, as a model file in the folder in which a test and its fixtures run."""

import shutil
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture_of_fixtures(empty_folder):
    """Put the file where a module's fixtures train."""
    shutil.copy(FILE, ".")


@pytest.fixture(autouse=True)
def tiny_architecture(empty_home):
    """Put the file where a test trains."""
    shutil.copy(FILE, ".")
