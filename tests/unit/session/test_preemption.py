"""Preemption notices: their sources, what they interrupt, and the deadline."""

import math
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from job.cloud import gce_metadata
from job.cloud.gce_metadata import MetadataError, MetadataServer
from job.errors import PauseError, PreemptionError
from job.session import preemption
from job.session.preemption import PreemptionWatcher
from tests.support.cli_process import SOON_S, start_python
from tests.support.fake_metadata_server import running_metadata_server

REASONS = [(signal.SIGTERM, "preempted"), (signal.SIGINT, "interrupted"), (signal.SIGHUP, "interrupted")]


@pytest.fixture
def server(monkeypatch):
    """A metadata server that this process takes for its machine's."""
    with running_metadata_server() as fake:
        monkeypatch.setenv("GCE_METADATA_HOST", fake.url)
        yield fake


@contextmanager
def preempted(server, termination_wait_s):
    """Yield a watcher that has just raised the server's notice, which is raised again afterwards."""
    with pytest.raises(PreemptionError), PreemptionWatcher(termination_wait_s=termination_wait_s) as watcher:
        watcher.watch()
        try:
            server.preempt()
            threading.Event().wait(60)
        except PreemptionError:
            yield watcher
            raise


@pytest.mark.parametrize(("number", "reason"), REASONS)
def test_a_signal_interrupts(number, reason):
    """A signal raises in any phase; the error has whether a person sent it."""
    with pytest.raises(PreemptionError) as raised, PreemptionWatcher():
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert (raised.value.reason, raised.value.from_server) == (reason, False)


def test_an_uninterruptible_part_looks_for_notices_itself():
    """Inside, a signal only shows as pending; a part that is interruptible again is ended at its beginning."""
    with PreemptionWatcher() as watcher, watcher.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert watcher.pending is not None
        entered = False
        with pytest.raises(PreemptionError), watcher.interruptible():
            entered = True
        assert not entered


def test_a_notice_is_no_exception_to_catch():
    """Code that catches every `Exception` does not catch a notice."""
    with pytest.raises(PreemptionError), PreemptionWatcher():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception as error:
            raise AssertionError("swallowed") from error


def test_the_metadata_server_interrupts(server):
    """A change on the metadata server ends a wait in the main thread."""
    with pytest.raises(PreemptionError) as raised, PreemptionWatcher() as watcher:
        watcher.watch()
        assert server.waiting.wait(30)
        server.preempt()
        threading.Event().wait(60)
    assert raised.value.from_server


def test_a_server_that_fails_for_a_while_is_asked_again(server):
    """An answer that is none, such as 503, does not end the watching: the notice that comes later is seen."""
    with pytest.raises(PreemptionError) as raised, PreemptionWatcher() as watcher:
        watcher.watch()
        assert server.waiting.wait(30)
        server.fail(3)
        threading.Event().wait(60)
    assert (raised.value.from_server, server.num_failures) == (True, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_answer_to_a_notice_is_not_interrupted(server, number):
    """The machine's shutdown, which sends SIGTERM after the server's notice, and a signal that is sent twice, leave
    what is done about the first one alone.
    """
    done = []
    with pytest.raises(PreemptionError) as raised, PreemptionWatcher() as watcher:
        watcher.watch()
        with watcher.deferred():
            server.preempt()
            while (found := watcher.agree_on_notice(lambda level: level)) is None:
                time.sleep(0.01)
        try:
            raise found
        finally:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            done.append(True)
    assert (done, raised.value.from_server) == ([True], True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_sent_twice_is_one(number):
    """A service manager, make, timeout and a shell that hangs up send theirs to the process and to its group."""
    with PreemptionWatcher() as watcher, watcher.deferred():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert str(watcher.pending) == f"{signal.Signals(number).name}: asked to stop"


def test_one_press_of_ctrl_c_may_come_twice(monkeypatch):
    """Ctrl-C that comes once more within a second is the same."""
    monkeypatch.setattr(preemption, "ONE_PRESS_S", 3600)
    with PreemptionWatcher() as watcher, watcher.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert watcher.pending.reason == "interrupted"


def test_hanging_up_is_ignored_where_it_was_before():
    """Under nohup a closed terminal is no notice."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with PreemptionWatcher() as watcher:
            os.kill(os.getpid(), signal.SIGHUP)
            assert watcher.pending is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_deadlines_are_those_of_the_senders():
    """All work after a notice fits into the 30 s of torchrun, docker and systemd, and into the 120 s that a machine
    lives after the server's notice; a process among several has the launcher's time after Ctrl-C too.
    """
    assert preemption.LIMITS_S == {signal.SIGTERM: 25, signal.SIGHUP: 25, signal.SIGINT: 60}
    assert set(preemption.RANK_LIMITS_S.values()) == {25}
    assert preemption.SERVER_LIMIT_S == 100
    assert preemption.TERMINATION_WAIT_S == 150
    assert all(limit_s < preemption.PARENT_LIMITS_S[number] for number, limit_s in preemption.LIMITS_S.items())
    assert preemption.PARENT_LIMITS_S[signal.SIGTERM] < 30


WAITS = """
import os, signal, sys, threading
from job.errors import PreemptionError
from job.log import set_up_logging
from job.session.preemption import PreemptionWatcher
set_up_logging()
limits_s = {signal.SIGTERM: 0.2, signal.SIGHUP: 0.2, signal.SIGINT: 3600}
with PreemptionWatcher(limits_s=limits_s, server_limit_s=0.2) as watcher:
    watcher.describe_uncommitted = lambda: "epoch 3 was trained, and committed is epoch 2"
    watcher.on_deadline = lambda notice: print("recorded", notice.reason, notice.not_committed, flush=True)
    try:
        watcher.watch()
        print("ready", flush=True)
        threading.Event().wait(60)
    except PreemptionError:
        lock = threading.Lock()
        lock.acquire()
        print("noticed", flush=True)
        lock.acquire()  # the bucket is away
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None])
def test_what_is_not_done_by_the_deadline_is_reported(server, number):
    """A process that cannot come to its end after a notice leaves with 75 at the deadline, and says what is lost."""
    with start_python(WAITS, server.env) as process:
        if number is None:
            server.preempt()
        else:
            process.send_signal(number)
        said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75
    assert "epoch 3 was trained, and committed is epoch 2; the same command resumes" in said


STUCK = """
import ctypes, signal
from job.log import set_up_logging
from job.session.preemption import PreemptionWatcher
set_up_logging()
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_lock(mutex)
limits_s = dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), 0.2)
with PreemptionWatcher(limits_s=limits_s) as watcher:
    watcher.on_deadline = lambda notice: print("recorded", notice.reason, flush=True)
    print("ready", flush=True)
    library.pthread_mutex_lock(mutex)  # which no signal ends, as the wait of a GPU, of peers or of a download
"""


@pytest.mark.parametrize(("number", "reason"), REASONS)
def test_the_deadline_holds_while_the_main_thread_is_in_a_library_s_call(number, reason):
    """Python calls its handlers between two of its own steps: a notice during a call that does not return has its
    deadline all the same, and is recorded.
    """
    with start_python(STUCK) as process:
        try:
            time.sleep(0.5)  # until it is in that call, or this would prove nothing
            process.send_signal(number)
            recorded, said = process.communicate(timeout=SOON_S)
        finally:
            process.kill()
    assert (process.returncode, recorded) == (75, f"recorded {reason}\n")
    assert "asked to stop; did not finish within" in said


def press_until_it_ends(process):
    """Press Ctrl-C now and then, each time too late for it to be the same press."""
    while process.poll() is None:
        time.sleep(1.5 * preemption.ONE_PRESS_S)
        process.send_signal(signal.SIGINT)


def test_a_second_press_of_ctrl_c_leaves_a_library_s_call():
    """It does not wait for the deadline, of which that call hears as little."""
    with start_python(STUCK.replace("0.2", "3600")) as process:
        try:
            press_until_it_ends(process)
            recorded, said = process.communicate(timeout=SOON_S)
        finally:
            process.kill()
    assert (process.returncode, recorded) == (75, "recorded interrupted\n")
    assert "Ctrl-C again: leaving at once" in said


def test_a_second_press_of_ctrl_c_leaves_at_once():
    """Ctrl-C after another notice does not wait for the deadline, and the first one is recorded."""
    with start_python(WAITS) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "noticed\n"
        press_until_it_ends(process)
        recorded, said = process.communicate(timeout=SOON_S)
    assert (process.returncode, "Ctrl-C again: leaving at once" in said) == (75, True)
    assert recorded == "recorded interrupted epoch 3 was trained, and committed is epoch 2\n"


def test_a_request_that_is_held_open_does_not_run_into_its_limit(monkeypatch):
    """The client waits for longer than the server is asked to hold the request."""
    limits_s = []

    class Connection:
        def __init__(self, _host, timeout):
            limits_s.append(timeout)

        def request(self, *_args, **_options):
            raise ConnectionRefusedError

        def close(self):
            pass

    monkeypatch.setattr("http.client.HTTPConnection", Connection)
    with pytest.raises(MetadataError):
        MetadataServer("metadata").wait("0")
    assert limits_s[0] > gce_metadata.POLL_S


def test_a_machine_that_is_doomed_does_not_start(server):
    """A process that starts after the notice ends before it did anything."""
    server.preempt()
    with pytest.raises(PreemptionError, match="nothing was started"), PreemptionWatcher() as watcher:
        watcher.watch()


@pytest.mark.parametrize("host", ["127.0.0.1:1", "http://metadata", "a..b"])
def test_a_server_that_does_not_answer_costs_nothing(monkeypatch, caplog, host):
    """Without an answer, or with a name that no host can have, the process continues and warns that notices may not
    be seen.
    """
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    with PreemptionWatcher() as watcher:
        watcher.watch()
    assert "cannot be reached" in caplog.text


def test_it_stays_after_a_notice_of_the_server_and_leaves_after_a_signal(server):
    """After the server's notice the process waits to be killed, at longest the cap; a signal ends the wait."""
    with preempted(server, termination_wait_s=3600) as watcher:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        watcher.wait_for_termination()  # hangs if the signal does not end it
        assert watcher._number == signal.SIGTERM


def test_after_the_longest_wait_it_leaves(server):
    """A process whose machine is not terminated ends after the longest wait."""
    with preempted(server, termination_wait_s=0.01) as watcher:
        watcher.wait_for_termination()


def test_the_deadline_is_for_the_remaining_work(server):
    """A process that has done all of it after the server's notice waits for its machine beyond the deadline."""
    with preempted(server, termination_wait_s=0.01) as watcher:
        assert watcher._deadline < math.inf
        watcher.wait_for_termination()
        assert watcher._deadline == math.inf


def test_handlers_are_put_back():
    """Afterwards signals do what they did before."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    with PreemptionWatcher():
        assert signal.getsignal(signal.SIGTERM) != handlers[0]
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_a_pause_interrupts_nothing_and_is_obeyed_when_all_agree():
    """A pause waits until the processes that train together agree on it, and leads to exit 0."""
    with PreemptionWatcher() as watcher:
        watcher.pause(PauseError("asked"))
        with watcher.interruptible():
            time.sleep(0)
        assert watcher.pending is None
        preemption = watcher.agree_on_notice(lambda level: level)
    assert (preemption.reason, preemption.exit_code, preemption.on_all_ranks) == ("paused", 0, True)


def test_all_processes_pause_together():
    """A process that learns of the pause from another one ends as paused as well."""
    with PreemptionWatcher() as one, PreemptionWatcher() as other:
        one.pause(PauseError("asked"))
        levels = []
        one.agree_on_notice(lambda level: levels.append(level) or level)
        preemption = other.agree_on_notice(lambda level: max(level, *levels))
    assert (type(preemption), preemption.exit_code) == (PauseError, 0)


def test_a_machine_that_goes_is_more_urgent_than_a_pause():
    """An attempt that is preempted during a pause request ends as preempted: the next attempt answers the request."""
    with PreemptionWatcher() as watcher, watcher.deferred():
        watcher.pause(PauseError("asked"))
        os.kill(os.getpid(), signal.SIGTERM)
        preemption = watcher.agree_on_notice(lambda level: level)
    assert (preemption.reason, preemption.exit_code) == ("preempted", 75)


def test_all_processes_wait_for_their_machines_if_one_does():
    """All processes of a run wait until their VMs are terminated if one has the notice from the metadata server."""
    with PreemptionWatcher() as watcher, watcher.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert watcher.agree_on_notice(lambda level: max(level, preemption.FROM_SERVER)).from_server
    with PreemptionWatcher() as watcher, watcher.deferred():
        watcher.pending = PreemptionError("metadata server", "preempted", from_server=True)
        assert watcher.agree_on_notice(lambda level: max(level, preemption.STOP)).from_server


def test_a_stop_for_another_process_waits_for_no_machine(monkeypatch):
    """A process whose peer was asked to stop, and not by the metadata server, leaves as soon as it is done."""

    def fail(_s):
        raise AssertionError("it waits")

    with PreemptionWatcher() as watcher:
        assert watcher.agree_on_notice(lambda _level: preemption.STOP).reason == "preempted"
        monkeypatch.setattr(preemption.time, "sleep", fail)
        watcher.wait_for_termination()


@pytest.mark.parametrize(
    ("numbers", "limit_s"), [((signal.SIGTERM, signal.SIGINT), 25), ((signal.SIGINT, signal.SIGHUP), 25)]
)
def test_the_nearest_deadline_holds(numbers, limit_s):
    """A second notice that leaves more time changes nothing, and one that leaves less does."""
    with PreemptionWatcher() as watcher, watcher.deferred():
        for number in numbers:
            watcher._set_deadline(preemption.LIMITS_S[number])
    assert watcher._limit_s == limit_s
