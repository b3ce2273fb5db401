"""Fixtures of a module that trains: a tiny dataset, a bucket with it, and the bucket of an undisturbed run."""

import pytest

from tests.support.bucket import make_bucket
from tests.support.cli_process import job
from tests.support.tiny_architecture import tiny_architecture, tiny_architecture_of_fixtures
from tests.support.tiny_dataset import make_tiny_dataset

__all__ = ["tiny_architecture", "tiny_architecture_of_fixtures"]  # fixtures


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk: 22 images to train on, 4 to validate on."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=22, num_val=4)


@pytest.fixture
def bucket(data, tmp_path):
    """A bucket, which is a folder, with the tiny dataset."""
    return make_bucket(data, tmp_path / "bucket")


@pytest.fixture(scope="module")
def undisturbed(request, data, tmp_path_factory):
    """The bucket of one undisturbed run of the module's `TRAIN`; tests compare with it and change nothing in it."""
    bucket = make_bucket(data, tmp_path_factory.mktemp("undisturbed") / "bucket")
    done = job(*request.module.TRAIN, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    return bucket
