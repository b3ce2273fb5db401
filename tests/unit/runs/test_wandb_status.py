"""The status of a run at W&B."""

import json

import pytest

from job.runs.listing import RunListing
from job.runs.run import Claim, Run
from job.runs.wandb_status import WandbStatus, describe, write_status
from job.storage.open_store import open_store
from tests.support.tracking_status import read_status

URL = "https://wandb.example/zebra"

SYNC = "`job wandb sync zebra` sends what the server lacks"


@pytest.fixture
def run(tmp_path):
    """A run of two attempts."""
    (tmp_path / "bucket").mkdir()
    run = Run(open_store(str(tmp_path / "bucket")), "zebra")
    for _ in range(2):
        run.claim({})
    return run


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (WandbStatus(url=URL, sent=True), f"all of it is at {URL}"),
        (WandbStatus(url=URL), f"{URL}; {SYNC}"),
        (WandbStatus(mode="offline", why="there is no key"), f"not sent, because there is no key; {SYNC}"),
    ],
)
def test_the_newest_status_counts(run, status, expected):
    """A status is read back unchanged, and the newest is described."""
    assert describe(RunListing(run)) == "not used"
    write_status(Claim(run, 1), WandbStatus(mode="offline", why="of old"))
    write_status(Claim(run, 2), status)
    assert read_status(run, 2) == status
    assert describe(RunListing(run)) == expected


def test_a_status_of_an_older_version_is_read(run):
    """Older versions left out what they had not decided yet; a sync of theirs knew no mode."""
    run.store.put(run.key("wandb/0001.json"), b'{"mode": "offline", "why": "there is no key", "url": null}')
    assert describe(RunListing(run)) == f"not sent, because there is no key; {SYNC}"
    run.store.put(run.key("wandb/0002.json"), json.dumps({"sent": True, "url": URL}).encode())
    assert describe(RunListing(run)) == f"all of it is at {URL}"
