"""A short storm of every kind of disturbance; `make kill-storm N=200` is the long one."""

import pytest

from tests.support.learned_weights import learn
from tests.training.kill_storm import ENDINGS, TRIALS, Storm, emulated_ground, make_ground, storm

NUM = 8

pytestmark = pytest.mark.timeout(900)  # four attempts and their end; whatever hangs is ended by the storm itself


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that find something, so that metrics can differ."""
    return learn(tmp_path_factory.mktemp("learned"))


def test_runs_in_a_folder_survive_a_storm(weights, tmp_path):
    """Runs that are killed, signalled, paused, and given another time and an unreliable bucket end with the tensors and
    metrics of one that is left alone.
    """
    found = Storm()
    storm(found, make_ground(str(tmp_path / "bucket"), tmp_path, weights), NUM, seed=3)
    assert found.failures == []
    assert found.ways == {*ENDINGS, *TRIALS}


def test_runs_in_a_bucket_survive_a_storm(weights, emulator, tmp_path):
    """The same on Google Cloud Storage, as far as its emulator goes."""
    found = Storm()
    with emulated_ground(emulator, tmp_path, weights) as ground:
        storm(found, ground, NUM, seed=4)
    assert found.failures == []
    assert found.ways == {*ENDINGS, *TRIALS}
