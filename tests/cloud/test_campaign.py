"""A campaign on Batch: the fake service, the emulated bucket, real trainings and a real kill."""

import os
import sys

import pytest
import yaml

from job.analysis.campaign import Campaign
from job.cli.app import main
from job.cloud.submission import Submissions
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.cloud.conftest import SETTINGS
from tests.support.cli_process import job, kill, start_job, wait_until
from tests.support.fake_batch import FakeBatch, running_batch
from tests.support.fake_google_project import running_project
from tests.support.tiny_dataset import make_tiny_dataset

SCALE = (
    *("--profile", "demo", "--epochs", "1", "--imgsz", "64", "--batch", "4", "--nbs", "8", "--plots", "false"),
    *("--workers", "0", "--checkpoint-every", "0", "--device", "cpu"),
)
CAMPAIGN = ("campaign", "--name", "zoo", "--max-runs", "1", "--cloud", "l4", *SCALE)


@pytest.fixture
def batch(bucket, emulator, monkeypatch, tmp_path):
    """A Batch service whose machines train, in a project whose bucket has a dataset and a baseline."""
    (tmp_path / "machines").mkdir()
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump(SETTINGS | {"wandb_secret": None}))
    environment = {**emulator.env, "NO_GCE_CHECK": "true", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    service = FakeBatch(tmp_path / "machines", environment=environment, program=(sys.executable, "-m", "job"))
    open_store(bucket).delete("datasets/tiny/data.yaml")
    data = make_tiny_dataset(tmp_path / "tiny", num_train=14, num_val=4)
    assert main(["data", "push", str(data), "--dataset", "tiny"]) == 0
    assert job("train", "--recipe", "base", *SCALE).returncode == 0
    with running_batch(service), running_project() as project:
        monkeypatch.setenv("BATCH_EMULATOR_HOST", service.host)
        monkeypatch.setenv("GOOGLE_API_EMULATOR_HOST", project.host)
        yield service


def test_a_campaign_on_batch_is_resumed(batch, bucket):
    """Killed while its run trains in the cloud, the same command finds that run again, waits for it, and ends."""
    store = open_store(bucket)
    run = Run(store, "zoo-1-A")
    first = start_job(*CAMPAIGN)
    wait_until(lambda: Submissions(run).list() and Submissions(run).job_uid(1), first)
    kill(first)
    done = job(*CAMPAIGN)
    assert done.returncode == 0, done.stderr
    assert run.final() is not None
    assert run.attempt(1).claim.cloud_job == Submissions(run).list()[0].job_id
    assert len(batch.jobs) == 1
    result = Campaign(store, "zoo").result()
    assert (result.reason, result.best) in {("budget spent", "zoo-1-A"), ("target reached", "zoo-1-A")}
    assert "runs/zoo-1-A/weights/best.pt" in done.stdout
    assert os.environ["JOB_BUCKET"] in done.stdout
