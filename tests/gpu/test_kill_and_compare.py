"""A training that is killed on a GPU ends like one that is not."""

import pytest
import torch

from tests.support.bucket import ends_of, run_in
from tests.support.gpu_training import (
    COMMITTED,
    NUM_OPTIMIZER_STEPS,
    kill_and_resume,
    num_optimizer_steps,
    words_of,
)

FULL = pytest.mark.full

CASES = [
    pytest.param("A", 640, 0, marks=pytest.mark.anywhere),  # so that what all of them stand on is run by `make test`
    *(("A", 2048, 4), ("B", 640, 4), ("B", 2048, 0), ("C", 640, 0), ("C", 2048, 4)),
    *(
        pytest.param(*case, marks=FULL)
        for case in (("A", 640, 4), ("A", 2048, 0), ("B", 640, 0), ("B", 2048, 4), ("C", 640, 4), ("C", 2048, 0))
    ),
]
"""Recipe, size in pixels, loader processes."""


def assert_equal_and_exact(bucket, straight):
    """Assert that a run was resumed amid accumulated gradients, took all optimizer steps, ends like another one, and
    that both say so.
    """
    runs = [run_in(each) for each in (bucket, straight)]
    assert runs[0].attempt(2).start.receipt.position == COMMITTED
    assert {*num_optimizer_steps(runs[0])} == {NUM_OPTIMIZER_STEPS}
    assert [run.final().bits.exact for run in runs] == [True, True], [run.final().bits for run in runs]
    assert ends_of(bucket) == ends_of(straight)


@pytest.mark.parametrize(("recipe", "size", "workers"), CASES)
def test_a_killed_training_ends_like_one_that_is_not(bucket, straight, device, px, on_cpu, recipe, size, workers):
    """Killed while gradients wait for the optimizer, in mixed precision, it ends with the same bits of weights, EMA and
    optimizer, whatever the number of loader processes.
    """
    expected = straight(recipe, size)
    code, said = kill_and_resume(bucket, words_of(bucket, recipe, px(size), device, workers))
    assert code == 0, said
    assert run_in(bucket).record().facts.amp is not on_cpu
    assert_equal_and_exact(bucket, expected)


def test_two_processes_that_are_killed_end_like_two_that_are_not(bucket, straight, px, on_cpu):
    """Two GPUs that train together over NCCL resume with the bits that they would have had."""
    if not on_cpu and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    devices = "cpu,cpu" if on_cpu else "0,1"
    expected = straight("A", 640, devices)
    code, said = kill_and_resume(bucket, words_of(bucket, "A", px(640), devices, workers=2))
    assert code == 0, said
    assert_equal_and_exact(bucket, expected)
