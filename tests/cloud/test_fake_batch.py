"""The fake Batch service behaves as the real one where tests and the drill rely on it."""

import json
import stat

import pytest
from google.api_core.exceptions import AlreadyExists, InvalidArgument, NotFound
from google.cloud import batch_v1

from job.cloud.batch import Batch
from job.cloud.job_spec import render
from tests.support.cli_process import wait_until
from tests.support.fake_batch import FakeBatch, running_batch
from tests.unit.cloud.test_job_spec import make_submission

ENGINE = """#!/bin/sh
# Stands for docker: `run` notes its words and stays, `kill` ends it.
case "$1" in
run) echo "$@" >>{notes}; echo $$ >{notes}.pid; exec sleep 1000 ;;
kill) echo "$@" >>{notes}; exec kill -9 "$(cat {notes}.pid)" ;;
esac
"""


def request_of(submission, **changes):
    """Return the request that makes a submission's job."""
    parent, _, job_id = submission.job_name.rpartition("/jobs/")
    job = batch_v1.Job.from_json(json.dumps(render(submission)))
    values = {"parent": parent, "job_id": job_id, "job": job, "request_id": submission.request_id}
    return batch_v1.CreateJobRequest(**(values | changes))


def test_a_repeated_request_is_the_same_job(cloud):
    """The same request id gives the same job; another one under the same name is refused."""
    cloud.script(["hold"])
    client, request = Batch.connect()._client, request_of(make_submission("A", "g2-standard-8"))
    assert client.create_job(request).uid == client.create_job(request).uid
    request.request_id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    with pytest.raises(AlreadyExists):
        client.create_job(request)


@pytest.mark.parametrize("job_id", ["Upper", "1first", "last-", "under_score", "x" * 64])
def test_a_name_that_is_none_is_refused(cloud, job_id):
    """Names are as strict as the real service's."""
    with pytest.raises(InvalidArgument):
        Batch.connect()._client.create_job(request_of(make_submission("A", "g2-standard-8"), job_id=job_id))


def test_what_the_service_does_not_take_is_refused(cloud):
    """Eleven retries and a location in another region are refused."""
    request = request_of(make_submission("A", "g2-standard-8"))
    request.job.task_groups[0].task_spec.max_retry_count = 11
    with pytest.raises(InvalidArgument, match="max_retry_count"):
        Batch.connect()._client.create_job(request)
    request = request_of(make_submission("A", "g2-standard-8"))
    request.job.allocation_policy.location.allowed_locations = ["regions/us-east1"]
    with pytest.raises(InvalidArgument, match="are not in us-central1"):
        Batch.connect()._client.create_job(request)


def test_a_job_that_is_not_there_is_not_found(cloud):
    """Looking for an unknown job is an error of the service, and nothing to us."""
    name = "projects/demo-project/locations/us-central1/jobs/none"
    with pytest.raises(NotFound):
        Batch.connect()._client.get_job(name=name)
    assert Batch.connect().look(name) is None


def test_what_batch_says_over_and_over_is_no_change(cloud):
    """A job waits since its state changed last, however often the service says why; the newest reason is its words."""
    cloud.batch.without_capacity = {"us-central1"}
    cloud.script(["hold"])
    assert cloud.submit() == 0
    wait_until(lambda: Batch.connect().look(cloud.job(1)).state == "SCHEDULED")
    before = Batch.connect().look(cloud.job(1))
    for minute in range(3):
        cloud.batch._say(cloud.batch.jobs[cloud.job(1)], f"Quota  exceeded,\nasked {minute}")
    after = Batch.connect().look(cloud.job(1))
    assert after.waiting_since == before.waiting_since
    assert (before.last_event.partition(" for job")[0], after.last_event) == (
        "Job state is set from QUEUED to SCHEDULED", "Quota exceeded, asked 2"
    )  # fmt: skip


def test_a_container_engine_runs_and_kills_the_image(settings, tmp_path, monkeypatch):
    """With an engine the job's image is run with the job's options, words and variables, and killed by its name."""
    notes, engine, machines = tmp_path / "notes", tmp_path / "engine", tmp_path / "machines"
    engine.write_text(ENGINE.format(notes=notes))
    engine.chmod(engine.stat().st_mode | stat.S_IXUSR)
    machines.mkdir()
    submission = make_submission("A", "g2-standard-8", max_retries=0)
    with running_batch(FakeBatch(machines, engine=str(engine))) as batch:
        monkeypatch.setenv("BATCH_EMULATOR_HOST", batch.host)
        Batch.connect().make(submission.job_name, render(submission), submission.request_id)
        fake = batch.jobs[submission.job_name]
        while not (notes.with_name("notes.pid").exists() and fake.machine):
            assert not fake.ended.is_set()
        assert batch.preempt(submission.job_name)
        fake.ended.wait()
        assert Batch.connect().look(submission.job_name).exit_codes == (50001,)
    run, kill = notes.read_text().splitlines()
    assert run.startswith("run --rm --name job-")
    assert f"{submission.settings.image} train --recipe=A" in run
    assert "--shm-size=12g" in run
    assert f"--env JOB_CLOUD_JOB={submission.job_id}" in run
    assert kill.startswith("kill --signal KILL job-")
