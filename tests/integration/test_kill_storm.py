"""Short storms of every kind of disturbance; `make kill-storm N=200` is the long one."""

import pytest

from tests.integration.kill_storm import Storm, emulated_ground, make_ground, storm
from tests.support.learned_weights import learn

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that find something, so that metrics can differ."""
    return learn(tmp_path_factory.mktemp("learned"))


def test_runs_in_a_folder_survive_a_storm(weights, tmp_path):
    """Runs on tiles that are interrupted and hung up, paused and set ahead in time end with the tensors and metrics of
    an undisturbed one.
    """
    found, ground = Storm(), make_ground(str(tmp_path / "bucket"), tmp_path, weights)
    ways = {"endings": ("INT", "HUP"), "trials": ("long pause", "ahead")}
    storm(found, ground, 4, seed=3, **ways, kinds=["tiles"])
    assert found.failures == []
    assert found.ways == {*ways["endings"], *ways["trials"]}


def test_runs_in_a_bucket_survive_a_storm(weights, emulator, tmp_path):
    """On Google Cloud Storage, as far as its emulator goes, runs that are killed and terminated, set back in time and
    cut off from their bucket end with the tensors and metrics of an undisturbed one.
    """
    found, ways = Storm(), {"endings": ("kill", "TERM"), "trials": ("back", "faults")}
    with emulated_ground(emulator, tmp_path, weights) as ground:
        storm(found, ground, 4, seed=4, **ways, kinds=["pictures"])
    assert found.failures == []
    assert found.ways == {*ways["endings"], *ways["trials"]}
