"""A process that hangs shows where it stands, and leaves to be started again."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from job.runs.request import TrainRequest
from job.session import watchdog
from job.session.watchdog import NO_BYTE, NO_STEP, Watchdog
from tests.support.cli_process import SOON_S, start_python, surroundings


class Ended(BaseException):
    """The process has left."""


@pytest.fixture
def looked(monkeypatch):
    """A watchdog that is looked through by hand, and raises where it would end the process."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(watchdog.os, "_exit", end)
    return Watchdog(limit_s=100)


@pytest.fixture
def moved(monkeypatch):
    """The bytes that the process has moved, as a list with one number."""
    count = [0]
    monkeypatch.setattr(watchdog, "bytes_moved", lambda: count[0])
    return count


def test_the_default_limit_is_half_an_hour():
    """A step, or a batch of a validation, takes less than that on any machine."""
    assert TrainRequest.parse({}).hang_after_s == 1800


@pytest.mark.usefixtures("moved")
def test_nothing_done_for_the_limit_is_a_hang(looked, caplog):
    """Time without activity is a hang at the limit, and not before."""
    errors = []
    looked.on_hang = errors.append
    with looked.watching(NO_STEP):
        looked.look(99)
        with pytest.raises(Ended) as raised:
            looked.look(1)
    assert raised.value.args == (75,)
    assert [error.exit_code for error in errors] == [75]
    assert "no step and no batch of a validation was done for 100 s" in caplog.text
    assert "test_nothing_done_for_the_limit_is_a_hang" in caplog.text  # where this thread stands


@pytest.mark.usefixtures("moved")
def test_activity_resets_the_time(looked):
    """Activity within the limit is no hang, however long the whole takes."""
    with looked.watching(NO_STEP):
        for _ in range(10):
            looked.look(99)
            looked.beat()


def test_bytes_count_while_a_process_gets_ready(looked, moved):
    """A download that proceeds is no hang; one that stands still is; bytes that the watch itself reads do not count."""
    with looked.watching(NO_BYTE):
        for _ in range(10):
            looked.look(99)
            moved[0] += 1_000_000
        looked.look(1)
        looked.look(99)
        moved[0] += 1000
        with pytest.raises(Ended):
            looked.look(1)


def test_bytes_do_not_count_while_training(looked, moved):
    """Active loader processes and logs do not hide a training that stands still."""
    with looked.watching(NO_STEP):
        moved[0] += 10**9
        looked.look(99)
        moved[0] += 10**9
        with pytest.raises(Ended):
            looked.look(1)


@pytest.mark.usefixtures("moved")
def test_unwatched_parts_may_take_any_time(looked):
    """Before and after, and where waiting is meant, there is no limit; an inner watch ends with its part, and the
    outer one continues.
    """
    looked.look(1000)
    with looked.watching(NO_BYTE):
        with looked.watching(NO_STEP):
            looked.look(99)
        looked.look(99)  # counts anew
        with pytest.raises(Ended):
            looked.look(1)
    looked.look(1000)


def test_a_limit_of_0_watches_nothing():
    """A limit of 0 starts no watching thread."""
    with Watchdog(0), Watchdog(0).watching(NO_STEP):
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_process_that_is_paused_does_not_hang(moved):
    """Time counts by looks: a pause of any length counts as one of them."""
    now = iter([0.0, 5.0, 100_000.0, 100_005.0])
    seen = []
    dog = Watchdog(limit_s=100, clock=lambda: next(now))
    dog.look = seen.append
    waits = iter([False, False, False, True])
    dog.closed.wait = lambda _s: next(waits)
    dog._watch()
    assert seen == [5.0, 10.0, 5.0]


def test_files_that_are_read_and_written_are_bytes_moved(tmp_path):
    """Bytes that a download writes and a check reads count, and waiting adds only those of counting itself."""
    before = watchdog.bytes_moved()
    (tmp_path / "download").write_bytes(bytes(1_000_000))
    written = watchdog.bytes_moved()
    assert written - before >= 1_000_000
    (tmp_path / "download").read_bytes()
    read = watchdog.bytes_moved()
    assert read - written >= 1_000_000
    assert (watchdog.bytes_moved() - read) * watchdog.LOOKS < watchdog.NOISE_BYTES


HANGS = """
import sys, threading
from job.log import set_up_logging
from job.runs.request import TrainRequest
from job.session.watchdog import NO_STEP, Watchdog
set_up_logging()

def loop_for_ever():
    threading.Event().wait()

with Watchdog(0.3) as watchdog:
    watchdog.on_hang = lambda error: print(f"recorded {error.exit_code}", flush=True)
    with watchdog.watching(NO_STEP):
        loop_for_ever()
"""


def test_a_real_process_that_hangs_leaves_with_75():
    """The stacks of all threads are in the log, the end is recorded, and the process is gone."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        env=surroundings({"LOG": "json"}),
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (75, "recorded 75\n")
    (entry,) = map(json.loads, done.stderr.splitlines())
    assert entry["exit_code"] == 75
    assert all(words in entry["message"] for words in ("thread MainThread", "loop_for_ever", "thread watchdog"))


PAUSES = """
import time
from job.runs.request import TrainRequest
from job.session.watchdog import NO_STEP, Watchdog
with Watchdog(5) as watchdog, watchdog.watching(NO_STEP):
    print("ready", flush=True)
    input()
print("done", flush=True)
"""


def test_a_process_that_is_stopped_and_continued_is_not_ended():
    """SIGSTOP for longer than the limit, then SIGCONT, is no hang."""
    with start_python(PAUSES) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)  # longer than the limit; however long it is, it counts as one look
        process.send_signal(signal.SIGCONT)
        assert process.communicate("\n", timeout=SOON_S)[0] == "done\n"
    assert process.returncode == 0
