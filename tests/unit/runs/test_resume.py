"""Resumption: the proof that the saved state was loaded, the lost work, and the previous ends."""

import pytest

from job.errors import CorruptObjectError
from job.runs.records import CheckpointMetadata, Manifest, StopRequest
from job.runs.resume import PreviousAttempts, receipt
from job.runs.run import Claim, Run
from job.storage.local import FolderStore
from job.training.position import BEGINNING
from tests.support.attempt_records import attempt_record
from tests.support.run_records import at

DIGESTS = {"model": "a" * 64, "ema": "b" * 64, "optimizer": "c" * 64}


def manifest(epoch, batch, committed_s):
    """Return the manifest of a checkpoint of the first attempt."""
    return Manifest(
        run="zebra",
        epoch=epoch,
        batch=batch,
        attempt=1,
        committed_at=at(committed_s),
        about=CheckpointMetadata(digests=DIGESTS),
        files=(),
    )


def attempt(number=1, *, claimed_s=0, end=None, pulse=None, stop=None, cloud_job=None):
    """Return an attempt's records: `end` is a reason, a time and a position, `pulse` a time and a position."""
    return attempt_record(
        {"attempt": number, "claimed_at": at(claimed_s), "cloud_job": cloud_job},
        stop=stop,
        end=end and {"reason": end[0], "ended_at": at(end[1]), "position": end[2]},
        pulse=pulse and {"at": at(pulse[0]), "position": pulse[1]},
    )


def place(epoch, batch):
    """Return a position as records have it."""
    return {"epoch": epoch, "batch": batch}


@pytest.mark.parametrize("group", DIGESTS)
def test_a_state_that_loaded_with_other_digests_is_refused(group):
    """One digest that differs, of any group, ends the resumption and names the group."""
    with pytest.raises(CorruptObjectError) as raised:
        receipt(PreviousAttempts(()), manifest(2, 3, 60), DIGESTS | {group: "f" * 64}, 10)
    assert raised.value.problems == (f"{group}: saved {DIGESTS[group][:12]}, loaded {'f' * 12}",)


def test_a_receipt_has_what_was_saved_and_what_was_loaded():
    """The digests of both, the checkpoint and the place are in it."""
    made = receipt(PreviousAttempts(()), manifest(2, 3, 60), dict(DIGESTS), 10)
    assert (made.saved, made.loaded) == (DIGESTS, DIGESTS)
    assert (made.run, str(made.checkpoint), made.position._asdict()) == ("zebra", "0002-000003.a0001", place(2, 3))


@pytest.mark.parametrize(
    ("last", "steps", "seconds"),
    [
        (attempt(pulse=(100, place(3, 1))), 8, 40.0),
        (attempt(pulse=(100, place(2, 3))), 0, 40.0),
        (attempt(pulse=(50, place(2, 1))), 0, 0.0),
        (attempt(end=("failed", 90, place(2, 9))), 6, 30.0),
        (attempt(claimed_s=70, pulse=(100, place(2, 5))), 2, 30.0),
        (attempt(claimed_s=70), 0, 0.0),
    ],
)
def test_the_work_after_the_checkpoint_is_lost(last, steps, seconds):
    """Steps from the checkpoint's place to the last that is known, across epochs, and the seconds since it; never
    fewer than none.
    """
    made = receipt(PreviousAttempts((last,)), manifest(2, 3, 60), DIGESTS, 10)
    assert (made.steps_lost, made.seconds_lost) == (steps, seconds)


def test_all_steps_are_lost_if_nothing_was_committed():
    """A training that begins again trains every step of the attempt before again; a first one trains none again."""
    last = attempt(pulse=(100, place(1, 3)))
    assert PreviousAttempts((last,)).steps_after(BEGINNING, 10) == 13
    assert PreviousAttempts(()).steps_after(BEGINNING, 10) == 0


def test_an_extension_lost_nothing():
    """Without an attempt before, nothing is lost."""
    made = receipt(PreviousAttempts(()), manifest(2, 3, 60), DIGESTS, 10)
    assert (made.steps_lost, made.seconds_lost) == (0, 0.0)


def test_only_a_machine_that_was_taken_is_a_preemption():
    """A notice and a machine that vanished count for the best interval; a person's Ctrl-C, a pause, a failure and
    another machine that took over do not.
    """
    reasons = ("preempted", "interrupted", "paused", "failed", "superseded", "finished", "transient")
    ended = [attempt(number, end=(reason, 10 * number, place(0, number)))
             for number, reason in enumerate(reasons, start=1)]  # fmt: skip
    vanished = attempt(8, pulse=(80, place(0, 8)))
    assert PreviousAttempts((*ended, vanished)).preempted_after_s == [10.0, 80.0]


def test_the_furthest_place_is_that_of_any_attempt():
    """An earlier attempt may have come further than the newest; without one nothing was reached."""
    past = PreviousAttempts((attempt(pulse=(50, place(3, 1))), attempt(2, end=("failed", 90, place(2, 9))), attempt(3)))
    assert (past.furthest_position, PreviousAttempts(()).furthest_position) == ((3, 1), (0, 0))


def test_a_request_to_stop_holds_for_the_same_job_until_an_attempt_has_paused_by_it():
    """A job's next attempt ends by a request that none before it has obeyed, also after one that saw nothing of it."""
    asked = StopRequest(asked_at=at(50), host="here")
    vanished = attempt(stop=asked, cloud_job="job-1")
    cut_off = attempt(stop=asked, cloud_job="job-1", end=("preempted", 60, place(1, 0)))
    paused = attempt(2, cloud_job="job-1", end=("paused", 80, place(1, 0)))
    for first in (vanished, cut_off):
        assert PreviousAttempts((first,)).stop_request("job-1") == asked
        assert PreviousAttempts((first, attempt(2, cloud_job="job-1"))).stop_request("job-1") == asked
        assert PreviousAttempts((first, paused)).stop_request("job-1") is None
    again = attempt(3, cloud_job="job-1", stop=asked)
    assert PreviousAttempts((vanished, paused, again)).stop_request("job-1") == asked
    assert PreviousAttempts((attempt(cloud_job="job-1"),)).stop_request("job-1") is None


def test_a_request_to_stop_binds_no_attempt_that_a_person_starts():
    """An attempt of no job, or of another one, trains, also after a stop request to an earlier one."""
    asked = StopRequest(asked_at=at(50), host="here")
    for job in (None, "job-1"):
        past = PreviousAttempts((attempt(stop=asked, cloud_job=job),))
        assert past.stop_request(None) is None
        assert past.stop_request("job-2") is None


@pytest.mark.parametrize("asked_s", [30, 50])
def test_a_request_to_stop_holds_whatever_the_clocks_say(asked_s):
    """A person asks on a machine whose clock may be wrong: whether the request seems to come before the end of the
    attempt or after it, the one that its Batch job starts next obeys.
    """
    asked = StopRequest(asked_at=at(asked_s), host="laptop")
    past = PreviousAttempts((attempt(cloud_job="job-1", end=("preempted", 40, place(1, 0)), stop=asked),))
    assert past.stop_request("job-1") == asked


def test_a_clock_that_was_set_back_loses_no_seconds():
    """Records that seem to come from the past make neither a negative loss nor a negative life."""
    past = PreviousAttempts((attempt(claimed_s=70, pulse=(50, place(2, 5))),))
    assert receipt(past, manifest(2, 3, 60), DIGESTS, 10).seconds_lost == 0.0
    assert past.preempted_after_s == [0.0]


def test_the_past_is_what_came_before(tmp_path):
    """An attempt's own records, and those of later ones, are no part of its past."""
    run = Run(FolderStore.create(str(tmp_path / "bucket")), "zebra")
    for _ in range(3):
        run.claim({})
    assert [entry.number for entry in PreviousAttempts.of(Claim(run, 2)).attempts] == [1]
