"""The drill, as it runs on one machine."""

import pytest

from tests.cloud.drill import Drill


@pytest.mark.full
def test_the_drill_passes():
    """Submitted, preempted three times with and without notice, and resumed, a run ends with the same tensors."""
    Drill("A", 3, seed=1).run()
