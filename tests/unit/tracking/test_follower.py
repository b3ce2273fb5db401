"""The follower sends each committed row once, and none of a superseded machine."""

import pytest

from job.errors import SupersededError
from job.runs.run import Claim
from job.runs.wandb_status import WandbStatus
from job.tracking import events, follower
from job.tracking.events import CommittedRows
from job.tracking.tracker import COMMITTED, FINISHED, INTERRUPTED
from tests.support.run_records import record_run
from tests.support.tracking_status import read_status


class Server:
    """Stands for the W&B run on a server: keeps what it is sent."""

    url = "https://wandb.example/zebra"

    def __init__(self, epochs=()):
        self.epochs, self.marks = list(epochs), []

    @property
    def last_epoch(self):
        """The last epoch sent."""
        return self.epochs[-1] if self.epochs else -1

    def log(self, row):
        """Keep the epoch of a row."""
        self.epochs.append(row["epoch"])

    def mark_preempting(self):
        """Keep the mark."""
        self.marks.append("preempting")


@pytest.fixture
def run(tmp_path):
    """A run of two attempts, four of whose epochs are committed."""
    return record_run(tmp_path / "bucket", (0.5, 0.6, 0.7, 0.8), asked=8, finished=False)


def follow(run, monkeypatch, tmp_path, server, messages, attempt=2):
    """Follow an attempt with a server that takes everything."""
    monkeypatch.setattr(follower, "WandbRun", lambda _record, watched_pid: server)  # noqa: ARG005 -- as it is called
    monkeypatch.setattr(follower, "confine", lambda _folder: None)
    follower.follow(Claim(run, attempt), tmp_path / "folder", messages)


@pytest.mark.parametrize("known", [[], [0, 1], [0, 1, 2, 3, 4]])
def test_the_server_gets_what_it_lacks_once(run, monkeypatch, tmp_path, known):
    """Afterwards the server has each epoch once, in order, beside any that it had."""
    server = Server(known)
    follow(run, monkeypatch, tmp_path, server, [COMMITTED, COMMITTED, INTERRUPTED])
    assert server.epochs == [0, 1, 2, 3, 4]
    assert server.marks == ["preempting"]
    assert read_status(run, 2) == WandbStatus(url=server.url)


def test_a_finished_run_is_sent_whole(run, monkeypatch, tmp_path):
    """At the end the result is logged after the rows, and the status says that all is sent."""
    server, logged = Server(), []
    monkeypatch.setattr(follower, "log_result", lambda *arguments: logged.append(arguments[2].last_epoch))
    follow(run, monkeypatch, tmp_path, server, iter([FINISHED]))
    assert logged == [4]
    assert read_status(run, 2) == WandbStatus(url=server.url, sent=True)


def test_a_superseded_machine_does_not_open_the_run(run, monkeypatch, tmp_path):
    """The follower of an attempt that was superseded before it begins asks nothing of the server."""
    monkeypatch.setattr(follower, "WandbRun", None)
    with pytest.raises(SupersededError):
        follower.follow(Claim(run, 1), tmp_path / "folder", [COMMITTED])
    assert read_status(run, 1) is None


def test_a_machine_that_is_superseded_while_it_reads_adds_nothing(run, monkeypatch, tmp_path):
    """Rows that were read are not sent if another machine has claimed the run in the meantime."""
    server = Server()
    after = CommittedRows.after

    def claimed_meanwhile(self, epoch):
        rows = after(self, epoch)
        run.claim({"machine": "another", "host": "elsewhere"})
        return rows

    monkeypatch.setattr(events.CommittedRows, "after", claimed_meanwhile)
    with pytest.raises(SupersededError):
        follow(run, monkeypatch, tmp_path, server, [COMMITTED])
    assert server.epochs == []


def test_each_row_names_the_attempt_that_trained_it(run):
    """An epoch belongs to the last attempt that resumed before it; row 0 to the one that started from no checkpoint."""
    assert [(row["epoch"], row["attempt"]) for row in CommittedRows(run).after(-1)] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
    ]
