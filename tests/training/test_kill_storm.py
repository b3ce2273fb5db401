"""A short storm of kills; `make kill-storm N=200` is the long one."""

from tests.training.kill_storm import Storm, make_tiny_bucket, storm


def test_runs_in_a_folder_survive_a_storm(tmp_path):
    """Runs that are killed at named points and at any instant end with the tensors of one that is not killed."""
    found = Storm()
    storm(found, make_tiny_bucket(str(tmp_path / "bucket")), 6, seed=3)
    assert (found.num_kills, found.failures) == (6, [])


def test_runs_in_a_bucket_survive_a_storm(emulator, monkeypatch):
    """The same on Google Cloud Storage, as far as its emulator goes."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    found = Storm()
    storm(found, make_tiny_bucket(emulator.make_bucket()), 6, seed=4)
    assert (found.num_kills, found.failures) == (6, [])
