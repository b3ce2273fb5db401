"""A cloud project on this machine: an emulated bucket, settings, and a fake Batch service."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from job.cli.app import main
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import wait_until
from tests.support.fake_batch import FakeBatch, running_batch
from tests.support.fake_google_project import FakeProject, running_project

SETTINGS = {
    "project": "demo-project",
    "region": "us-central1",
    "image": f"us-central1-docker.pkg.dev/demo-project/yolo/trainer@sha256:{'0' * 64}",
    "service_account": "trainer@demo-project.iam.gserviceaccount.com",
    "network": "projects/demo-project/global/networks/yolo",
    "subnetwork": "projects/demo-project/regions/us-central1/subnetworks/yolo",
    "wandb_secret": "wandb-api-key",
}

OTHER_REGION = {"us-east1": "projects/demo-project/regions/us-east1/subnetworks/yolo"}


class Cloud:
    """The project as a person sees it, and what stands behind it."""

    def __init__(self, bucket: str, batch: FakeBatch, project: FakeProject) -> None:
        self.bucket, self.batch, self.project = bucket, batch, project

    def script(self, *attempts: list[str]) -> None:
        """Say what each attempt of the pretended training does."""
        self.batch.environment["PRETEND"] = json.dumps(attempts)

    def submit(self, *words: str) -> int:
        """Submit a run."""
        return main(["submit", "--model", "yolo11n.yaml", "--run", "zebra", *words])

    def supervise(self, *words: str) -> int:
        """Keep it going."""
        return main(["supervise", "zebra", "--poll", "0.02", *words])

    @property
    def run(self) -> Run:
        """The run in the bucket."""
        return Run(open_store(self.bucket), "zebra")

    def job(self, submission: int) -> str:
        """The full name of a submission's job, which is there."""
        suffix = f"-{submission:03d}"
        wait_until(lambda: any(name.endswith(suffix) for name in self.batch.jobs))
        return next(name for name in self.batch.jobs if name.endswith(suffix))

    def preempt_at(self, attempt: int, position: str, **how) -> None:
        """Take the machine away once an attempt has committed a checkpoint."""
        checkpoints = self.run.key(f"checkpoints/{position}.a{attempt:04d}/manifest.json")
        wait_until(lambda: any(stored.key == checkpoints for stored in self.run.store.list(checkpoints)))
        name = next(name for name, fake in self.batch.jobs.items() if fake.machine is not None)
        assert self.batch.preempt(name, **how)


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    """Write the settings of a project where the commands look for them, and return them."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump(SETTINGS))
    return SETTINGS


@pytest.fixture
def bucket(emulator, monkeypatch) -> str:
    """Make a bucket with a dataset."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    location = emulator.make_bucket()
    open_store(location).put("datasets/tiny/data.yaml", b"names: [animal]\n")
    monkeypatch.setenv("JOB_BUCKET", location)
    return location


@pytest.fixture
def cloud(settings, bucket, emulator, tmp_path, monkeypatch):
    """Start a Batch service whose machines pretend to train."""
    folder = tmp_path / "machines"
    folder.mkdir()
    program = [sys.executable, "-m", "tests.support.fake_trainer"]
    with running_project() as project, running_batch(FakeBatch(folder, program, dict(emulator.env))) as batch:
        monkeypatch.setenv("BATCH_EMULATOR_HOST", batch.host)
        monkeypatch.setenv(*next(iter(project.env.items())))
        yield Cloud(bucket, batch, project)
