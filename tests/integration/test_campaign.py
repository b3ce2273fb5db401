"""A campaign, killed between and within its runs; both decisions after A."""

import json
import shutil

import pytest

from job.analysis.campaign import Campaign
from job.cli.app import main
from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import TIMEOUT_S, job, kill, start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

SCALE = (
    *("--profile", "demo", "--epochs", "1", "--imgsz", "64", "--batch", "4", "--nbs", "8", "--plots", "false"),
    *("--workers", "0", "--checkpoint-every", "0"),
)
CAMPAIGN = ("campaign", "--name", "zoo", "--max-runs", "2", *SCALE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder bucket with a tiny dataset and a baseline, which A starts from."""
    folder = tmp_path_factory.mktemp("prepared")
    data = make_tiny_dataset(folder / "tiny", num_train=14, num_val=4)
    (folder / "bucket").mkdir()
    assert main(["data", "push", str(data), "--dataset", "tiny", "--bucket", str(folder / "bucket")]) == 0
    base = job("train", "--recipe", "base", *SCALE, "--bucket", folder / "bucket", "--workdir", folder / "work")
    assert base.returncode == 0, base.stderr
    return folder / "bucket"


@pytest.fixture
def bucket(prepared, tmp_path):
    """A copy of that bucket."""
    shutil.copytree(prepared, tmp_path / "bucket")
    return str(tmp_path / "bucket")


def run_in(bucket, name):
    """Return a run."""
    return Run(open_store(bucket), name)


def steps_of(bucket):
    """Return the recipes and rules of the campaign's steps."""
    return [(step.recipe, step.rule) for step in Campaign(open_store(bucket), "zoo").steps()]


def test_b_follows_an_a_that_was_not_enough_over_every_kill(bucket):
    """Killed within its first run, between its runs, and between a decision and its run, a campaign is resumed by
    the same command, trains A and B once each, and ends with its page; given again, the command changes nothing.
    """
    within = start_job(*CAMPAIGN, "--bucket", bucket)
    wait_until(lambda: checkpoint.committed(run_in(bucket, "zoo-1-A")), within)
    kill(within)
    assert run_in(bucket, "zoo-1-A").final() is None
    between = start_job(*CAMPAIGN, "--bucket", bucket, at="decision:1:kill")
    between.communicate(timeout=TIMEOUT_S)
    assert run_in(bucket, "zoo-1-A").final() is not None
    assert steps_of(bucket) == [("A", "first")]
    before_the_run = start_job(*CAMPAIGN, "--bucket", bucket, at="next run:1:kill")
    before_the_run.communicate(timeout=TIMEOUT_S)
    assert steps_of(bucket) == [("A", "first"), ("B", "A not enough")]
    assert run_in(bucket, "zoo-2-B").record() is None
    done = job(*CAMPAIGN, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert "zoo: budget spent" in done.stdout
    assert run_in(bucket, "zoo-1-A").record().start.point.run == "yolov11_tiny"
    assert run_in(bucket, "zoo-2-B").record().start.point.kind == "scratch"
    store = open_store(bucket)
    assert b"A not enough" in store.read("campaigns/zoo/campaign.html")
    before = [stored for stored in store.list() if not stored.key.endswith(".html")]
    assert job(*CAMPAIGN, "--bucket", bucket).returncode == 0
    assert [stored for stored in store.list() if not stored.key.endswith(".html")] == before


@pytest.mark.full
def test_c_follows_an_a_that_was_good_enough(bucket):
    """After an A that is recorded with F1 70 %, C is trained from its weights."""
    process = start_job(*CAMPAIGN, "--bucket", bucket, at="decision:2:kill")
    process.communicate(timeout=TIMEOUT_S)
    run, store = run_in(bucket, "zoo-1-A"), open_store(bucket)
    final = json.loads(store.read(run.key("final.json")))
    final["comparison"]["after"] |= {"f1": 0.70, "precision": 0.72, "recall": 0.68}
    store.put(run.key("final.json"), json.dumps(final).encode(), overwrite=True)
    done = job(*CAMPAIGN, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert steps_of(bucket) == [("A", "first"), ("C", "good enough for C")]
    assert run_in(bucket, "zoo-2-C").record().start.point.run == "zoo-1-A"
    assert Campaign(store, "zoo").result().best == "zoo-1-A"
    assert "runs/zoo-1-A/weights/best.pt" in done.stdout


def test_a_campaign_passes_sigterm_on(bucket):
    """SIGTERM to the campaign alone lets its run commit and exit, and the campaign ends with 75."""
    process = start_job(*CAMPAIGN, "--bucket", bucket)
    wait_until(lambda: checkpoint.committed(run_in(bucket, "zoo-1-A")), process)
    process.terminate()
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 75, said
    assert run_in(bucket, "zoo-1-A").attempt(1).end.reason in {"preempted", "finished"}
