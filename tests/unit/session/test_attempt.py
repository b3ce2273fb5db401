"""The end of an attempt: reason and exit code."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from job.errors import (
    BackgroundError,
    DataError,
    DefectError,
    HangError,
    HardwareError,
    JobError,
    MachineError,
    NotCommittedError,
    OutOfMemoryError,
    PauseError,
    PeerError,
    PreemptionError,
    StoreError,
    SupersededError,
    TrainingError,
    TransientStoreError,
)
from job.goodput import PhaseTimer
from job.runs.resume import PreviousAttempts
from job.runs.run import Claim, Run
from job.session import attempt
from job.session.attempt import StartedAttempt, finish
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher
from job.storage.local import FolderStore
from job.training.distributed import ProcessGroup
from tests.support.bucket_records import recorded
from tests.support.cli_process import SOON_S
from tests.support.faulty_store import FaultyStore
from tests.support.run_records import metrics, record_run


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def context(store, group=ProcessGroup()):  # noqa: B008 -- it is frozen
    """Return the parts of an attempt that nothing interrupts."""
    return SessionContext(store=store, request=None, preemption=PreemptionWatcher(), group=group)


def ended_by(error, store):
    """Return the end record of an attempt that an error ended."""
    run = Run(store, "zebra")
    run.claim({})
    with (
        pytest.raises(JobError if isinstance(error, Exception) else type(error)) as raised,
        attempt.attempt_recorded(Claim(run, 1), context(store), lambda: {"position": {"epoch": 2, "batch": 3}}),
    ):
        raise error
    assert (raised.value is error) is not isinstance(raised.value, DefectError)
    return run.attempt(1).end


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (PreemptionError("SIGTERM", "preempted"), "preempted", 75),
        (PreemptionError("Ctrl-C", "interrupted"), "interrupted", 75),
        (PauseError("asked"), "paused", 0),
        (SupersededError("a later attempt"), "superseded", 75),
        (TransientStoreError("away"), "transient", 75),
        (PeerError("gone"), "transient", 75),
        (BackgroundError("a thread"), "failed", 75),
        (NotCommittedError("its end"), "failed", 75),
        (HangError("no step"), "failed", 75),
        (TrainingError("not a number"), "failed", 70),
        (StoreError("no permission"), "failed", 74),
        (DataError("broken"), "failed", 65),
        (MachineError("full"), "failed", 78),
        (ZeroDivisionError("a defect"), "failed", 1),
        (KeyboardInterrupt(), "failed", 1),
    ],
    ids=repr,
)
def test_an_end_has_its_reason_and_exit_code(store, error, reason, exit_code):
    """The end has one reason (preempted, interrupted, paused, superseded, transient or failed) and the position."""
    end = ended_by(error, store)
    assert (end.reason, end.exit_code) == (reason, exit_code)
    assert end.position._asdict() == {"epoch": 2, "batch": 3}


def test_a_defect_is_recorded_with_its_traceback_and_raised_as_one_message(store):
    """An unexpected exception is no raw traceback: the record has its name and where it came from, and the
    person reads which run failed, of what, where to look, and that the same command resumes.
    """
    run = Run(store, "zebra")
    run.claim({})
    with (
        pytest.raises(DefectError) as raised,
        attempt.attempt_recorded(Claim(run, 1), context(store), dict),
    ):
        {}["a key"]
    end = run.attempt(1).end
    assert (end.reason, end.exit_code, end.error) == ("failed", 1, "KeyError")
    assert end.traceback.startswith("Traceback (most recent call last)")
    assert '{}["a key"]' in end.traceback
    assert end.message == str(raised.value)
    assert str(raised.value).startswith("run zebra: failed by KeyError: 'a key' (test_attempt.py:")
    assert "the same command resumes from the last committed checkpoint" in str(raised.value)


def test_what_a_notice_leaves_uncommitted_is_recorded(store):
    """A preemption whose last commit failed is one that lost work, and says what and why."""
    notice = PreemptionError("SIGTERM: asked to stop", "preempted")
    notice.not_committed = "epoch 3 is not committed, StoreError: bucket: no permission"
    end = ended_by(notice, store)
    assert (end.reason, end.not_committed) == ("preempted", notice.not_committed)
    assert end.message == f"SIGTERM: asked to stop; {notice.not_committed}"


class Meeting:
    """The store of a process group."""

    def __init__(self):
        self.values = {}

    def compare_set(self, key, _expected, value):
        self.values.setdefault(key, value)

    def check(self, keys):
        return all(key in self.values for key in keys)

    def get(self, key):
        return self.values[key]


def failed_elsewhere(store, error, notice):
    """Return the end of an attempt whose second process failed by an error, and whose first then got a notice."""
    run, meeting = Run(store, "zebra"), Meeting()
    claim = run.claim({})
    with pytest.raises(type(error)), ProcessGroup(1, 2, store=meeting).failure_told():
        raise error
    with (
        pytest.raises((JobError, PreemptionError)) as raised,
        attempt.attempt_recorded(claim, context(store, ProcessGroup(0, 2, store=meeting)), dict),
    ):
        raise notice
    end = run.attempt(claim.attempt).end
    assert (raised.value.exit_code, raised.value.reason) == (end.exit_code, end.reason)
    return end


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OutOfMemoryError("out of memory", try_again=True), ("failed", 75, "OutOfMemoryError")),
        (OutOfMemoryError("out of memory", try_again=False), ("failed", 70, "OutOfMemoryError")),
        (MachineError("full"), ("failed", 78, "MachineError")),
        (TransientStoreError("away"), ("transient", 75, "TransientStoreError")),
        (ZeroDivisionError("a defect"), ("failed", 1, "ZeroDivisionError")),
        (PeerError("gone"), ("preempted", 75, "PreemptionError")),
    ],
    ids=repr,
)
def test_a_failure_of_another_process_is_that_of_the_attempt(store, error, found):
    """The launcher ends the first process by SIGTERM once another one has failed: the attempt ends as that did, by
    which the next one knows of a lack of memory, unless that one had only lost a process itself.
    """
    end = failed_elsewhere(store, error, PreemptionError("SIGTERM", "preempted"))
    assert (end.reason, end.exit_code, end.error) == found
    again = Run(store, "zebra").claim({})
    assert PreviousAttempts.of(again).ran_out_of_memory is (found[2] == "OutOfMemoryError")
    if found[0] == "failed":
        assert end.message.startswith("process 2 of 2: ")


def test_a_failure_of_another_process_is_recorded_with_its_details(store):
    """The problems of its data, and the traceback of its defect, are in the record as those of a single process."""
    notice = PreemptionError("SIGTERM", "preempted")
    broken = failed_elsewhere(store, DataError("data: 2 problems", ["1.txt: is empty", "2.txt: is empty"]), notice)
    assert broken.message == "process 2 of 2: data: 2 problems - 1.txt: is empty - 2.txt: is empty"
    assert broken.traceback is None
    defect = failed_elsewhere(store, ZeroDivisionError("a defect"), notice)
    assert defect.traceback.startswith("Traceback (most recent call last)")
    assert "ZeroDivisionError: a defect" in defect.traceback


def test_a_notice_that_all_processes_obey_is_no_failure_of_one(store):
    """What a process raises while all of them leave at the same step does not hide the preemption."""
    notice = PreemptionError("SIGTERM", "preempted")
    notice.on_all_ranks = True
    assert failed_elsewhere(store, HardwareError("a loader was killed"), notice).reason == "preempted"


def test_the_first_failure_counts():
    """What fails after it, and because of it, does not take its place."""
    meeting = Meeting()
    for rank, error in ((2, OutOfMemoryError("out of memory", try_again=False)), (1, HardwareError("NCCL"))):
        with pytest.raises(JobError), ProcessGroup(rank, 3, store=meeting).failure_told():
            raise error
    lost = ProcessGroup(0, 3, store=meeting).lost()
    assert (str(lost), lost.exit_code) == ("process 3 of 3: out of memory", 70)


LEAVES = """
import signal, sys, threading
from job.session import attempt
from job.errors import PreemptionError
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher
from job.runs.run import Run
from job.storage.local import FolderStore
run = Run(FolderStore.create(sys.argv[1]), "zebra")
claim = run.claim({})
with PreemptionWatcher(limits_s={signal.SIGTERM: 0.2, signal.SIGHUP: 0.2, signal.SIGINT: 0.2}) as preemption:
    preemption.describe_uncommitted = lambda: sys.argv[2]
    about = lambda: {"position": {"epoch": 3, "batch": 0}}
    context = SessionContext(store=run.store, request=None, preemption=preemption)
    with attempt.attempt_recorded(claim, context, about):
        try:
            print("ready", flush=True)
            threading.Event().wait()
        except PreemptionError:
            threading.Event().wait()  # a commit that does not come to its end
"""


@pytest.mark.parametrize("lost", ["", "epoch 3 was trained, and committed is epoch 2"])
@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "preempted"), (signal.SIGINT, "interrupted")])
def test_leaving_at_the_deadline_is_recorded(tmp_path, number, reason, lost):
    """An attempt that cannot come to its end after a notice records the notice, and what is not committed."""
    folder = str(tmp_path / "bucket")
    with subprocess.Popen([sys.executable, "-c", LEAVES, folder, lost], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(SOON_S) == 75
    end = Run(FolderStore.open(folder), "zebra").attempt(1).end
    assert (end.reason, end.exit_code, end.position._asdict()) == (reason, 75, {"epoch": 3, "batch": 0})
    assert end.not_committed == lost


def test_a_hang_is_recorded_from_outside(store):
    """The thread that hangs cannot record the end of its attempt, so the watchdog does, in the same way."""
    run = Run(store, "zebra")
    run.claim({})
    here = context(store)
    with attempt.attempt_recorded(Claim(run, 1), here, lambda: {"position": {"epoch": 2, "batch": 3}}):
        here.watchdog.on_hang(HangError("training: no step was done for 1800 s"))
    end = run.attempt(1).end
    assert (end.reason, end.exit_code, end.position._asdict()) == ("failed", 75, {"epoch": 2, "batch": 3})
    assert end.message == "training: no step was done for 1800 s"


def test_an_end_that_cannot_be_recorded_hides_nothing(store):
    """The error that ended the attempt is the one that is raised, though the bucket refuses its record."""
    Run(store, "zebra").claim({})
    refusing = Run(FaultyStore(store, survives=0, error=StoreError("no permission")), "zebra")
    with (
        pytest.raises(TrainingError, match="not a number"),
        attempt.attempt_recorded(Claim(refusing, 1), context(store), dict),
    ):
        raise TrainingError("the loss is not a number")


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """A function that ends a run after its second epoch, with a function that copies its files and with warnings."""
    weights = SimpleNamespace(digest_file=lambda _path: "d" * 64)
    monkeypatch.setitem(sys.modules, "job.training.weights", weights)  # seconds that no test here needs
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False)
    for name in ("best.pt", "last.pt"):
        (tmp_path / name).write_text(name)
    rows = [{"epoch": epoch, "time": 60.0 * epoch, **metrics(0.5)} for epoch in (1, 2)]

    def end(copy, *warnings):
        training = SimpleNamespace(
            progress=SimpleNamespace(rows=rows, stopped_early=False),
            before_and_after=(metrics(0.4), metrics(0.5)),
            best_epoch=2,
            record_fields={"evidence": {"warnings": list(warnings)}},
        )
        started = StartedAttempt(Claim(run, 2), run.record(), training)
        return finish(started, tmp_path, SimpleNamespace(copy=lambda _folder: copy(run)))

    return end


def test_the_final_record_is_written_after_the_files_that_it_names(ending):
    """A reader that finds the final record finds the weights."""
    found = []
    final = ending(lambda run: found.append(run.final()))
    assert (found, final.num_epochs) == ([None], 2)


def test_an_attempt_that_is_superseded_while_it_copies_does_not_finish_the_run(ending):
    """The later attempt alone writes the final record."""
    runs = []
    with pytest.raises(SupersededError):
        ending(lambda run: (runs.append(run), run.claim({})))
    assert runs[0].final() is None


def test_the_observations_of_the_last_attempt_count(ending):
    """Warnings that no heartbeat has recorded yet decide whether the run is exact, too."""
    kernel = "torch: index_put_ does not have a deterministic implementation"
    assert ending(lambda _run: None, kernel).bits.model_dump() == {
        "exact": False,
        "from_attempt": 2,
        "because": [kernel],
    }


def test_set_up_leaves_the_end_to_the_training(store):
    """An attempt that was set up goes on; only an error during its set-up ends it."""
    run = Run(store, "zebra")
    with attempt.attempt_recorded(run.claim({}), context(store), dict, finished=False):
        pass
    assert run.attempt(1).end is None


def test_a_claim_has_the_age_of_the_process_in_seconds(store):
    """The seconds before the claim are part of the attempt's cost."""
    timer = PhaseTimer(clock=lambda: 100.0, before_s=2.5)
    here = SessionContext(store=store, request=None, preemption=PreemptionWatcher(), timer=timer)
    claim = attempt.claim_run(Run(store, "zebra"), here)
    assert claim.run.attempt(1).claim.process_age_s == 2.5


def test_a_process_that_leaves_at_once_is_told_after_the_record(store):
    """The end by a hang or a deadline is recorded first, and then handed on with its error."""
    run, left = Run(store, "zebra"), []
    run.claim({})
    here = SessionContext(
        store=store,
        request=None,
        preemption=PreemptionWatcher(),
        on_leave=lambda error: left.append((error, run.attempt(1).end.reason)),
    )
    hang, notice = HangError("no step"), PreemptionError("SIGTERM", "preempted")
    with attempt.attempt_recorded(Claim(run, 1), here, dict, finished=False):
        here.watchdog.on_hang(hang)
        here.preemption.on_deadline(notice)
    assert left == [(hang, "failed"), (notice, "failed")]


@pytest.mark.parametrize(
    ("train", "said"),
    [({}, []), ({"deterministic": False}, ["run zebra: not bit-exact, for speed: deterministic: is off"])],
)
def test_an_attempt_that_trades_exactness_says_so_at_its_start(store, caplog, train, said):
    """The start of each attempt warns of arguments that trade exact bits for speed."""
    run = Run(store, "zebra")
    training = SimpleNamespace(environment={"cpu": "AVX2"}, trainer=SimpleNamespace(num_compressed_anew=0))
    attempt.record_start(run.claim({}), recorded(**train).record, training, None)
    found = [message for message in caplog.messages if "for speed" in message]
    assert [message[: len(start)] for message, start in zip(found, said, strict=True)] == said
