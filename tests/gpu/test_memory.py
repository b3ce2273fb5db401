"""A GPU whose memory is too small, or nearly: an error, or the same bits, or a record that says why not."""

import pytest

from tests.support.bucket import ends_of, make_bucket, run_in
from tests.support.gpu_memory_cli import LIMIT, PEAK
from tests.support.gpu_training import kill_and_resume, train, words_of

PROGRAM = "tests.support.gpu_memory_cli"

TOO_LITTLE_BYTES = 300_000_000


@pytest.fixture(scope="module", autouse=True)
def _gpu(on_cpu):
    """A GPU, whose memory torch limits."""
    if on_cpu:
        pytest.skip("a CPU has no such limit")


def test_a_training_too_large_for_its_gpu_ends_with_advice(bucket, device):
    """Out of memory in the first epoch exits 70, names batch and size, and halves nothing."""
    words = words_of(bucket, "A", 2048, device, workers=0)
    code, said = train(words, PROGRAM, **{LIMIT: TOO_LITTLE_BYTES})
    assert (code, "out of memory with batch 4 at 2048 px" in said) == (70, True), said
    assert "--batch or --imgsz" in said
    assert run_in(bucket).attempt(1).end.error == "OutOfMemoryError"


@pytest.fixture(scope="module")
def peak_bytes(gpu_data, device, tmp_path_factory):
    """The memory that a training takes where there is enough."""
    folder = tmp_path_factory.mktemp("enough")
    words = words_of(make_bucket(gpu_data, folder / "bucket"), "A", 2048, device, workers=0)
    code, said = train(words, PROGRAM, **{PEAK: folder / "peak"})
    assert code == 0, said
    return int((folder / "peak").read_text())


@pytest.mark.full
@pytest.mark.parametrize("share", [0.97, 0.9, 0.8])
def test_a_memory_that_is_nearly_full_changes_nothing_in_silence(bucket, gpu_data, peak_bytes, device, tmp_path, share):
    """With less memory than a training would take it runs out with a message, or ends with the same bits after a kill,
    or its record says that they are not exact, and that the memory was too short.
    """
    straight, limit = make_bucket(gpu_data, tmp_path / "straight"), {LIMIT: int(peak_bytes * share)}
    code, said = train(words_of(straight, "A", 2048, device, workers=0), PROGRAM, **limit)
    if code == 0:
        code, said = kill_and_resume(bucket, words_of(bucket, "A", 2048, device, workers=0), PROGRAM, **limit)
    if code != 0:
        assert "out of memory" in said
    elif ends_of(bucket) != ends_of(straight):
        because = [reason for each in (bucket, straight) for reason in run_in(each).final().bits.because]
        assert any("GPU memory: was too short" in reason for reason in because)
