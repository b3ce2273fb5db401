"""The drill, as CI runs it."""

from tests.cloud.drill import Drill


def test_the_drill_passes(monkeypatch):
    """Submitted, preempted three times with and without notice, and resumed, a run ends with the same tensors."""
    for name in ("JOB_BUCKET", "BATCH_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "")  # the drill sets them; the next test must not see them
    Drill("A", 3, seed=1).run()
