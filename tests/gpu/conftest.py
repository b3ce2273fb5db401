"""Tests on an NVIDIA GPU; elsewhere they are skipped by name, or rehearsed on the CPU at small sizes by --on-cpu."""

import warnings
from pathlib import Path

import pytest

from tests.support.bucket import make_bucket
from tests.support.cli_process import job
from tests.support.gpu_training import words_of
from tests.support.tiny_dataset import make_tiny_dataset

CPU_PX = {640: 64, 2048: 96}
"""Sizes of pictures in a rehearsal."""


def has_gpu():
    """Whether torch can use a GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old, and for developers
        import torch  # noqa: PLC0415 -- seconds that only these tests need

        return torch.cuda.is_available()


def pytest_collection_modifyitems(config, items):
    """Skip the tests of this folder where they cannot run, and let other versions of libraries warn."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    skipped = bool(ours) and not config.getoption("--on-cpu") and not has_gpu()
    for item in ours:
        item.add_marker(pytest.mark.filterwarnings("default"))
        if skipped and not item.get_closest_marker("anywhere"):
            # They are whole: they prove a GPU's own kernels and memory, for which nothing here can stand in. An
            # earlier version has run on one (docs/exactness.md), `make gpu-test ARGS=--on-cpu` rehearses them, and
            # `make test` one of them. Deselected tests would not be named at the end.
            item.add_marker(pytest.mark.skip("needs an NVIDIA GPU; `make gpu-test` runs it on one"))


@pytest.fixture(scope="session")
def on_cpu(pytestconfig):
    """Whether the CPU takes the place of the GPU."""
    return pytestconfig.getoption("--on-cpu") or not has_gpu()


@pytest.fixture(scope="session")
def device(on_cpu):
    """The device to train on."""
    return "cpu" if on_cpu else "0"


@pytest.fixture(scope="session")
def px(on_cpu):
    """A function that gives the size to train at in place of a GPU's."""
    return lambda size: CPU_PX[size] if on_cpu else size


@pytest.fixture(scope="session")
def gpu_data(tmp_path_factory):
    """A tiny dataset on disk: 22 images to train on, which are six batches, and 4 to validate on."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=22, num_val=4, px=256)


@pytest.fixture
def bucket(gpu_data, tmp_path):
    """A bucket, which is a folder, with the tiny dataset."""
    return make_bucket(gpu_data, tmp_path / "bucket")


@pytest.fixture(scope="session")
def straight(gpu_data, device, px, tmp_path_factory):
    """A function that trains a recipe at a size without a kill, once, and returns the bucket."""
    buckets = {}

    def train(recipe, size, devices=device):
        key = recipe, size, devices
        if key not in buckets:
            buckets[key] = make_bucket(gpu_data, tmp_path_factory.mktemp("straight") / "bucket")
            done = job(*words_of(buckets[key], recipe, px(size), devices, workers=4))
            assert done.returncode == 0, done.stderr
        return buckets[key]

    return train
