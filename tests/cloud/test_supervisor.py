"""The supervisor against a Batch service that starts and kills real processes."""

import dataclasses
import re
import threading
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import yaml

from job.cli.app import main
from job.cloud.allowance import load_allowance
from job.cloud.batch import Batch
from job.cloud.policy import decide
from job.cloud.status import read_history
from job.cloud.submission import Submissions
from job.cloud.supervisor import Supervisor
from job.errors import CloudError, RunFailedError, RunStoppedError, TransientCloudError, TransientStoreError
from job.runs.cost import read_cost
from job.runs.run import Run
from tests.cloud.conftest import OTHER_REGION, SETTINGS
from tests.support.attempt_records import final_content
from tests.support.cli_process import kill, start_job, wait_until
from tests.support.webhook_server import SECRET, running_webhook


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Let the next job follow at once where one came to nothing; how pauses grow is a test of the policy."""
    monkeypatch.setattr("job.cloud.policy.PAUSE_S", 0)


@pytest.fixture
def one_retry(monkeypatch):
    """Let Batch try a job again once instead of ten times, where the number does not matter."""
    monkeypatch.setattr("job.cloud.budget.MAX_RETRIES", 1)


def state(cloud, submission):
    """Return the state of a submission's job."""
    return cloud.batch.jobs[cloud.job(submission)].job.status.state.name


def supervisor(cloud, clock=lambda: datetime.now(UTC)):
    """Return a supervisor with a clock of the test's own."""
    return Supervisor(run=cloud.run, batch=Batch.connect(), allowance=load_allowance({}), poll_s=0.02, clock=clock)


def killing(cloud, *kills):
    """Start to take machines away: each at an attempt and a position, in some way."""

    def kill_all():
        for attempt, position, how in kills:
            cloud.preempt_at(attempt, position, **how)

    thread = threading.Thread(target=kill_all)
    thread.start()
    return thread


def test_a_preempted_run_is_tried_again_and_finishes(cloud, capsys):
    """After a preemption without notice Batch tries again, and the run finishes in one submission, which is success
    although the last exit code that Batch shows is that of the preemption.
    """
    cloud.script(["commit 2 0", "hold"], ["commit 4 0", "finish"])
    assert cloud.submit() == 0
    killer = killing(cloud, (1, "0002-000000", {}))
    assert cloud.supervise() == 0
    killer.join()
    said = capsys.readouterr().out
    assert "finish: finished after 10 epochs" in said
    assert "1 time by preemption, 0 by a crash" in said
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert Batch.connect().look(cloud.job(1)).exit_codes == (50001,)
    assert state(cloud, 1) == "SUCCEEDED"


def test_a_run_outlives_the_retries_of_batch(cloud):
    """Twelve preemptions are more than one job survives: the supervisor submits again, and the run ends."""
    cloud.script(*([f"commit {epoch} 0", "hold"] for epoch in range(1, 13)), ["finish"])
    assert cloud.submit() == 0
    killer = killing(cloud, *((number, f"{number:04d}-000000", {}) for number in range(1, 13)))
    assert cloud.supervise() == 0
    killer.join()
    assert (state(cloud, 1), len(cloud.batch.jobs), len(cloud.run.attempt_numbers())) == ("FAILED", 2, 13)
    assert [submission.reason for submission in Submissions(cloud.run).list()] == [
        "submitted",
        "the retries are used up by preemptions",
    ]


def test_a_machine_that_loses_the_race_is_tried_again(cloud):
    """A preemption that Batch reports as the container's own exit 137 is retried like any other."""
    cloud.script(["commit 1 0", "hold"], ["finish"])
    assert cloud.submit() == 0
    killer = killing(cloud, (1, "0001-000000", {"code": None}))
    assert cloud.supervise() == 0
    killer.join()
    assert Batch.connect().look(cloud.job(1)).exit_codes == (137,)


def test_a_crash_is_tried_again(cloud, capsys):
    """An error that is not one of ours is retried, and counted apart from preemptions."""
    cloud.script(["commit 1 0", "end failed 1 1 5 'RuntimeError: odd'"], ["finish"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 0
    assert "0 times by preemption, 1 by a crash" in capsys.readouterr().out


def test_a_crash_loop_is_stopped(cloud, capsys):
    """The same error at the same position twice ends the run while Batch still has retries, and says so."""
    cloud.script(
        ["commit 1 0", "end failed 1 1 5 'RuntimeError: odd'"], ["end failed 1 1 5 'RuntimeError: odd'"], ["hold"]
    )
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    said = capsys.readouterr().err
    assert "crash loop: attempts 1 and 2 ended at epoch 1, batch 5 with the same error, RuntimeError: odd" in said
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert state(cloud, 1) == "CANCELLED"


def test_different_errors_are_no_crash_loop(cloud):
    """Another error, or the same one at another position, is not taken for a loop."""
    cloud.script(
        ["commit 1 0", "end failed 1 1 5 odd"],
        ["end failed 1 1 5 even"],
        ["commit 2 0", "end failed 1 2 5 odd"],
        ["finish"],
    )
    assert cloud.submit() == 0
    assert cloud.supervise() == 0


def test_a_fatal_end_is_not_tried_again(cloud, capsys):
    """An exit code of ours that trying again does not change fails the job at once, and the run with its message."""
    cloud.script(["commit 1 0", "end failed 70 1 5 'loss: is not a number'"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "attempt 1 ended with exit 70, loss: is not a number" in capsys.readouterr().err
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert (state(cloud, 1), len(cloud.run.attempt_numbers())) == ("FAILED", 1)


def test_a_fatal_end_before_the_claim_is_no_preemption(cloud, capsys):
    """A request that cannot be carried out ends the run, also before it is claimed."""
    cloud.script(["exit 65"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "exit 65 before anything was recorded" in capsys.readouterr().err


def test_an_unfit_machine_is_replaced(cloud):
    """Exit 78 fails the job at once, without Batch's retries, and the run resumes elsewhere and finishes."""
    cloud.script(["end failed 78 0 0 'GPU: no device'"], ["finish"])
    assert cloud.submit("--machine", "l4,t4") == 0
    assert cloud.supervise() == 0
    assert [submission.placement.machine for submission in Submissions(cloud.run).list()] == [
        "g2-standard-8",
        "n1-standard-8",
    ]
    assert [fake.num_attempts for fake in cloud.batch.jobs.values()] == [1, 1]


def test_unfit_machines_everywhere_end_the_run(cloud, capsys):
    """After three moves in a row the run is given up, with the message of the last machine."""
    cloud.script(["end failed 78 0 0 'GPU: no device'"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "4 machines in a row were unfit, the last with exit 78, GPU: no device" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 4


def test_jobs_that_never_get_a_machine_end_the_run_with_the_words_of_batch(cloud, capsys):
    """Three jobs in a row that fail before their first machine end the run; the message is that of Batch, not of the
    change of state after it.
    """
    cloud.batch.broken = "Batch Error: code - CODE_GCE_INVALID_FIELD_VALUE, description - No zone supports all of them"
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    said = capsys.readouterr().err
    assert f"3 jobs in a row failed without an attempt; Batch says of the last: {cloud.batch.broken}" in said
    assert len(cloud.batch.jobs) == 3


def test_flex_start_is_queued_for_again_when_its_queue_gave_nothing(cloud):
    """Four jobs that Batch gives up in its queue are followed by a fifth, which trains; none of them costs hours."""
    cloud.script(["finish"])
    cloud.batch.num_to_expire = 4
    assert cloud.submit("--machine", "a100", "--flex-start") == 0
    assert cloud.supervise() == 0
    assert len(cloud.batch.jobs) == 5
    assert {submission.placement.provisioning for submission in Submissions(cloud.run).list()} == {"flex_start"}
    history = supervisor(cloud).history()
    assert [seen.worst_s(history.now, going_on=True) for seen in history.submissions[:4]] == [0, 0, 0, 0]


def test_a_job_that_never_starts_its_container_is_not_made_for_ever(cloud, capsys):
    """A container that the engine cannot run (125) in one job after another is no preemption."""
    cloud.script(["exit 125"])
    cloud.batch.most_retries = 0
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "3 jobs in a row failed without an attempt and exit 125" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 3


def test_success_is_judged_by_the_bucket(cloud, capsys):
    """A job that succeeded without a final record in the bucket is a failure, not a success."""
    cloud.script(["commit 1 0", "success"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "the bucket has no final.json" in capsys.readouterr().err


def test_one_look_that_misses_the_final_record_gives_no_run_up(cloud, monkeypatch):
    """A bucket that once answers that there is no final record, after a success, is asked again."""
    cloud.script(["finish"])
    assert cloud.submit() == 0
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    final, looks = Run.final, []

    def missed_once(run):
        looks.append(run)
        return final(run) if len(looks) > 1 else None

    monkeypatch.setattr(Run, "final", missed_once)
    assert cloud.supervise() == 0
    assert len(looks) > 1


def test_attempts_that_get_nowhere_are_stopped(cloud, capsys):
    """Five attempts that die by themselves without a checkpoint are a loop, even if nothing was recorded."""
    cloud.script(["commit 1 0", "exit 139"], *([["claim", "exit 139"]] * 9), ["hold"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "ended early, and not by preemption" in capsys.readouterr().err
    assert main(["status", "zebra"]) == 0
    assert re.search(r"ended +0 times by preemption, [5-9] by a crash", capsys.readouterr().out)


def test_a_container_that_does_not_start_is_stopped(cloud, capsys):
    """An image that ends before it claims the run is tried five times, not for ever."""
    cloud.script(["exit 1"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "and not by preemption, the last with exit 1; see its log" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 1


def test_a_hang_is_not_repeated(cloud, capsys, monkeypatch):
    """An attempt that reaches its time limit without a checkpoint ends the run."""
    monkeypatch.setattr("job.cloud.budget.MAX_RUN_S", 1)
    cloud.script(["hold"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert "it hangs" in capsys.readouterr().err
    assert Batch.connect().look(cloud.job(1)).exit_codes == (50005,)


def test_a_long_run_is_resumed_after_its_time_limit(cloud, monkeypatch):
    """An attempt that reaches its time limit and has committed is resumed by the next submission."""
    monkeypatch.setattr("job.cloud.budget.MAX_RUN_S", 1)
    cloud.script(["commit 1 0", "hold"], ["finish"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 0
    assert len(cloud.batch.jobs) == 2


def test_a_run_that_another_machine_claimed_is_left_to_it(cloud, capsys):
    """When a machine outside of Batch claims the run, the supervisor cancels its own job and stops."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    cloud.run.claim({"host": "laptop", "cloud_job": None})
    assert cloud.supervise() == 75
    assert "attempt 2 on laptop has claimed the run" in capsys.readouterr().err
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert state(cloud, 1) == "CANCELLED"


def test_a_finished_run_is_not_submitted_again(cloud, capsys):
    """Supervising and submitting a finished run does nothing, and says that it is finished."""
    cloud.script(["commit 1 0", "finish"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 0
    assert cloud.supervise() == 0
    assert cloud.supervise("--resume") == 0
    assert len(cloud.batch.jobs) == 1
    assert len(Submissions(cloud.run).list()) == 1


def test_a_run_whose_job_lives_is_not_submitted_again(cloud):
    """Resuming by hand records no submission beside a job that still runs."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    supervisor(cloud).resume()
    assert len(Submissions(cloud.run).list()) == 1


def test_a_job_is_made_again_while_the_service_refuses_for_a_moment(cloud):
    """Making a job outlives answers of the service that a moment later would be others."""
    cloud.script(["finish"])
    cloud.batch.refusals = [grpc.StatusCode.UNAVAILABLE] * 2
    assert cloud.submit() == 0
    assert len(cloud.batch.jobs) == 1


def test_a_run_that_was_cancelled_stays_so_until_it_is_resumed(cloud, capsys):
    """`job cancel` ends the job for good; only `--resume` submits another submission, which finishes."""
    cloud.script(["commit 1 0", "hold"], ["finish"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    assert main(["cancel", "zebra"]) == 0
    assert cloud.supervise() == 75
    assert "cancelled or deleted by hand" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 1
    assert cloud.supervise("--resume") == 0
    assert [submission.by for submission in Submissions(cloud.run).list()] == ["hand", "hand"]


def test_a_job_that_was_deleted_is_not_made_again(cloud, capsys):
    """A job that was deleted in the console stops the run, as cancelling does."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    Batch.connect()._client.delete_job(name=cloud.job(1))
    assert cloud.supervise() == 75
    assert cloud.batch.jobs == {}


def test_resuming_a_crash_loop_gives_it_another_two_tries(cloud, capsys):
    """Failures before a person resumed the run do not count."""
    same = ["end failed 1 1 5 odd"]
    cloud.script(["commit 1 0", *same], same, same, ["finish"])
    assert cloud.submit() == 0
    assert cloud.supervise() == 70
    assert cloud.supervise("--resume") == 0


def test_the_next_region_is_asked_when_one_gives_no_machine(cloud, tmp_path):
    """After 20 minutes without a machine the job is cancelled and the next submission goes to another region that is
    near the data.
    """
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "other_regions": OTHER_REGION}))
    cloud.batch.without_capacity = {"us-central1"}
    cloud.script(["finish"])
    assert cloud.submit() == 0
    later = lambda: datetime.now(UTC) + timedelta(minutes=21 if len(cloud.batch.jobs) == 1 else 0)  # noqa: E731
    supervisor(cloud, later).watch()
    assert state(cloud, 1) == "CANCELLED"
    assert "/locations/us-east1/jobs/" in cloud.job(2)
    policy = cloud.batch.jobs[cloud.job(2)].job.allocation_policy
    assert list(policy.location.allowed_locations) == ["regions/us-east1"]
    assert "us-east1" in policy.network.network_interfaces[0].subnetwork


def test_the_next_machine_is_asked_when_one_is_not_to_be_had(cloud, one_retry):
    """Of several machines the next is tried when the first is preempted until Batch gives up."""
    cloud.script(*([f"commit {epoch} 0", "hold"] for epoch in range(1, 3)), ["finish"])
    assert cloud.submit("--machine", "l4,a100") == 0
    killer = killing(cloud, *((number, f"{number:04d}-000000", {}) for number in range(1, 3)))
    assert cloud.supervise() == 0
    killer.join()
    assert [submission.placement.machine for submission in Submissions(cloud.run).list()] == [
        "g2-standard-8",
        "a2-highgpu-1g",
    ]


def test_a_deadline_that_spot_would_miss_is_kept_on_demand(cloud):
    """When little more than the remaining work is left until the deadline, the job moves to an on-demand machine."""
    cloud.script(["commit 5 0", "hold"], ["finish"])
    assert cloud.submit("--deadline", "10h") == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    later = lambda: datetime.now(UTC) + timedelta(hours=9.5)  # noqa: E731
    supervisor(cloud, later).watch()
    first, second = Submissions(cloud.run).list()
    assert (first.placement.provisioning, second.placement.provisioning) == ("spot", "on_demand")
    assert second.deadline == first.deadline
    model = cloud.batch.jobs[cloud.job(2)].job.allocation_policy.instances[0].policy.provisioning_model
    assert model.name == "STANDARD"


def test_a_far_deadline_changes_nothing(cloud):
    """A run that keeps its deadline on Spot stays there."""
    cloud.script(["commit 5 0", "finish"])
    assert cloud.submit("--deadline", "10h") == 0
    assert cloud.supervise() == 0
    assert len(cloud.batch.jobs) == 1


def test_the_dollar_limit_ends_a_job_that_would_pass_it(cloud):
    """When the machine time so far reaches the limit, the job is cancelled and the run stopped."""
    cloud.script(["commit 5 0", "hold"])
    assert cloud.submit("--max-usd", "1") == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    later = lambda: datetime.now(UTC) + timedelta(hours=3)  # noqa: E731
    with pytest.raises(RunStoppedError, match=r"the job could take the cost to 1\.\d\d of 1\.00 USD"):
        supervisor(cloud, later).watch()
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert state(cloud, 1) == "CANCELLED"


def test_a_run_has_a_limit_by_default(cloud):
    """Without a limit of its own the run stops at that of the settings, 50 USD, though its job may still run."""
    cloud.script(["commit 5 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    later = lambda: datetime.now(UTC) + timedelta(hours=144)  # noqa: E731
    with pytest.raises(RunStoppedError, match=r"could take the cost to 50\.\d\d of 50\.00 USD"):
        supervisor(cloud, later).watch()


def test_no_submission_is_submitted_that_the_limit_does_not_pay_for(cloud, capsys, one_retry):
    """With too little left for one attempt the supervisor stops instead of submitting."""
    cloud.script(*([f"commit {epoch} 0", "hold"] for epoch in range(1, 3)), ["finish"])
    assert cloud.submit() == 0
    killer = killing(cloud, *((number, f"{number:04d}-000000", {}) for number in range(1, 3)))
    assert cloud.supervise("--max-usd", "0.1") == 75
    killer.join()
    assert "one attempt of 30 minutes on this machine may cost 0.26" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 1
    assert cloud.supervise("--resume", "--max-usd", "5") == 0
    assert Submissions(cloud.run).list()[-1].max_usd == 5


def test_a_job_of_a_limited_run_cannot_pass_the_limit_unwatched(cloud):
    """The job's own retries and time limits bound its cost, should the supervisor be gone."""
    cloud.script(["hold"])
    assert cloud.submit("--max-usd", "1") == 0
    task = cloud.batch.jobs[cloud.job(1)].job.task_groups[0].task_spec
    attempts, hours = task.max_retry_count + 1, task.max_run_duration.total_seconds() / 3600
    assert attempts * (hours + 0.25) * 0.35 <= 1  # 0.25 h to boot; 0.35 USD is the high end for Spot


def test_a_supervisor_that_was_killed_is_replaced(cloud, one_retry):
    """A supervisor is killed, the job runs out of retries, and another supervisor submits the next submission."""
    cloud.script(*([f"commit {epoch} 0", "hold"] for epoch in range(1, 3)), ["finish"])
    assert cloud.submit() == 0
    first = start_job("supervise", "zebra", "--poll", "0.1")
    wait_until(cloud.run.attempt_numbers, first)
    kill(first)
    killing(cloud, *((number, f"{number:04d}-000000", {}) for number in range(1, 3))).join()
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert cloud.supervise() == 0
    assert len(cloud.batch.jobs) == 2


def test_a_submission_that_was_only_recorded_is_made(cloud, capsys):
    """After the death of a supervisor between the record and the job, the next one cancels the job before, and then
    makes the recorded one.
    """
    cloud.script(["commit 1 0", "hold"], ["finish"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    dead = supervisor(cloud)
    history = dead.history()
    dead.add_submission(history, history.newest.submission.placement, "of a test", "supervisor")
    assert len(cloud.batch.jobs) == 1
    assert cloud.supervise() == 0
    cloud.batch.jobs[cloud.job(2)].ended.wait()
    assert (state(cloud, 1), state(cloud, 2)) == ("CANCELLED", "SUCCEEDED")
    assert "0 times by preemption, 0 by a crash" in capsys.readouterr().out


def test_two_supervisors_do_no_harm(cloud, one_retry):
    """Two supervisors at once submit each submission once, and both see the end."""
    cloud.script(*([f"commit {epoch} 0", "hold"] for epoch in range(1, 3)), ["finish"])
    assert cloud.submit() == 0
    ends = []
    watchers = [threading.Thread(target=lambda: ends.append(supervisor(cloud).watch().final)) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    killing(cloud, *((number, f"{number:04d}-000000", {}) for number in range(1, 3))).join()
    for watcher in watchers:
        watcher.join()
    assert len(ends) == 2
    assert len(cloud.batch.jobs) == 2


def test_a_service_that_does_not_answer_is_asked_again(cloud):
    """While Batch is unavailable the supervisor waits instead of giving the run up."""
    cloud.script(["commit 1 0", "finish"])
    assert cloud.submit() == 0
    cloud.batch.refusals = [grpc.StatusCode.INTERNAL] * 3
    assert cloud.supervise() == 0


def test_a_bucket_that_does_not_answer_is_asked_again(cloud, monkeypatch):
    """An outage of the bucket between two looks neither ends the supervisor nor costs a submission."""
    cloud.script(["commit 1 0", "finish"])
    assert cloud.submit() == 0
    outages, read = [TransientStoreError("bucket: kept failing; try again")] * 3, Run.final

    def final(run):
        if outages:
            raise outages.pop()
        return read(run)

    monkeypatch.setattr(Run, "final", final)
    assert cloud.supervise() == 0
    assert outages == []
    assert len(Submissions(cloud.run).list()) == 1


def test_a_run_that_ends_while_it_is_looked_at_is_finished(cloud):
    """The bucket is read after Batch and attempts after the final record: what ends in between is seen whole, and a
    job that succeeded is never taken for one without its record.
    """
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    ended = dataclasses.replace(Batch.connect().look(cloud.job(1)), state="SUCCEEDED")

    def look(_name):
        claim = cloud.run.claim({"host": "machine", "machine": "a machine", "cloud_job": None})
        claim.end("finished", {"exit_code": 0, "seconds": {}})
        cloud.run.finish(final_content(attempt=claim.attempt, num_epochs=10))
        return ended

    seen = read_history(cloud.run, look, datetime.now(UTC), load_allowance({}))
    assert decide(seen).do == "finish"
    assert seen.attempts[-1].number == seen.final.attempt


def test_attempts_are_read_after_the_end(cloud, monkeypatch):
    """A final record that is seen is seen with the attempt that wrote it, even if both came a moment ago."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    read = Run.final

    def final(run):
        monkeypatch.setattr(Run, "final", read)
        claim = run.claim({"host": "machine", "machine": "a machine", "cloud_job": None})
        return run.finish(final_content(attempt=claim.attempt, num_epochs=10))

    monkeypatch.setattr(Run, "final", final)
    seen = supervisor(cloud).history()
    assert seen.attempts[-1].number == seen.final.attempt


def test_the_status_has_the_cost_of_the_report(cloud):
    """A status has the same dollars as the run's cost, and they are unknown without a price."""
    cloud.batch.without_capacity = {"us-central1"}
    cloud.script(["hold"])
    assert cloud.submit() == 0
    assert supervisor(cloud).history().used_usd == 0
    about = {"host": "machine", "machine": "a machine", "price": {"usd_per_h": 2.0}}
    cloud.run.claim(about).end("finished", {"seconds": {"useful step": 5400.0}})
    assert supervisor(cloud).history().used_usd == read_cost(cloud.run).usd == 3.0
    cloud.run.claim(about | {"price": None})
    assert supervisor(cloud).history().used_usd is read_cost(cloud.run).usd is None


def test_a_refusal_of_the_service_is_printed(cloud, capsys):
    """A permission that is missing ends the command with exit 78 and the roles that are needed."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    cloud.batch.refusals = [grpc.StatusCode.PERMISSION_DENIED]
    assert cloud.supervise() == 78
    assert "roles/batch.jobsEditor" in capsys.readouterr().err


def test_a_bad_end_names_the_command_that_continues(cloud):
    """Both kinds of a bad end name that command."""
    cloud.script(["exit 65"])
    assert cloud.submit() == 0
    with pytest.raises(RunFailedError, match="`job supervise zebra --resume` tries again"):
        supervisor(cloud).watch()


def test_each_decision_is_notified_and_the_webhook_stays_a_secret(cloud, capsys, monkeypatch):
    """A webhook gets every decision but to wait, in order; its address is neither printed nor in the bucket."""
    cloud.script(["end failed 78 0 0 'GPU: no device'"], ["finish"])
    with running_webhook() as webhook:
        monkeypatch.setenv("JOB_NOTIFY", webhook.url)
        assert cloud.submit("--machine", "l4,t4") == 0
        assert cloud.supervise() == 0
    assert [(got["event"], got["decision"], got["submission"]) for got in webhook.got] == [
        ("decision", "submit", 1),
        ("decision", "create", 2),
        ("decision", "finish", 2),
    ]
    last = webhook.got[-1]
    assert (last["run"], last["bucket"], last["reason"]) == ("zebra", cloud.bucket, "finished after 10 epochs")
    assert last["text"] == "run zebra: finish; finished after 10 epochs"
    stored = [cloud.run.store.read(found.key) for found in cloud.run.store.list("")]
    assert stored
    assert not [content for content in (*stored, "".join(capsys.readouterr()).encode()) if SECRET.encode() in content]


@pytest.mark.parametrize("status", [200, 500])
def test_a_webhook_of_the_settings_changes_no_end(cloud, capsys, tmp_path, status):
    """The end of a run is sent to the webhook of cloud.yaml; an error of that server changes no exit code."""
    cloud.script(["exit 65"])
    assert cloud.submit() == 0
    with running_webhook() as webhook:
        webhook.status = status
        (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "notify": webhook.url}))
        assert cloud.supervise() == 70
    assert [got["decision"] for got in webhook.got] == ["fail"]
    assert capsys.readouterr().err.count("was not delivered, it answered 500") == (status == 500)


def test_one_look_goes_on_until_it_has_to_wait(cloud, capsys):
    """With --once one call records the next submission and makes its job, and a later one sees the end."""
    cloud.script(["end failed 78 0 0 'GPU: no device'"], ["finish"])
    assert cloud.submit("--machine", "l4,t4") == 0
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert cloud.supervise("--once") == 0
    assert (len(Submissions(cloud.run).list()), len(cloud.batch.jobs)) == (2, 2)
    wait_until(lambda: cloud.run.final() is not None)
    capsys.readouterr()
    assert cloud.supervise("--once") == 0
    assert "finish: finished after 10 epochs" in capsys.readouterr().out


SCHEDULE = "projects/demo-project/locations/us-central1/jobs/yolo-train-supervisor"
PAUSE = f"POST cloudscheduler.googleapis.com/v1/{SCHEDULE}:pause"


@pytest.mark.parametrize(("attempt", "code"), [(["commit 1 0", "finish"], 0), (["exit 65"], 70)])
@pytest.mark.parametrize("refused", [False, True])
def test_a_schedule_ends_with_its_run(cloud, capsys, attempt, code, refused):
    """The schedule that starts the supervisor is paused once the run has ended, for good or not; that it cannot be
    paused is a warning.
    """
    if refused:
        cloud.project.refused.add(":pause")
    cloud.script(attempt)
    assert cloud.submit() == 0
    cloud.batch.jobs[cloud.job(1)].ended.wait()
    assert cloud.supervise("--once", "--schedule", SCHEDULE) == code
    assert cloud.project.asked[-1] == PAUSE
    said = capsys.readouterr().err
    assert ("`make supervise-down` ends it" in said, "yolo-train-supervisor: paused" in said) == (refused, not refused)


def test_a_look_that_is_refused_for_good_is_told_once_and_ends_the_schedule(cloud, monkeypatch):
    """A job that Batch refuses is sent as the decision ``error``, and the schedule is paused."""
    cloud.script(["end failed 78 0 0 'GPU: no device'"])
    assert cloud.submit("--machine", "l4,t4") == 0
    cloud.batch.jobs[cloud.job(1)].ended.wait()

    def refuse(*_):
        raise CloudError("Batch: refuses the job")

    monkeypatch.setattr(Batch, "make", refuse)
    with running_webhook() as webhook:
        monkeypatch.setenv("JOB_NOTIFY", webhook.url)
        assert cloud.supervise("--once", "--schedule", SCHEDULE) == 78
    assert [(got["decision"], got["reason"]) for got in webhook.got[1:]] == [("error", "Batch: refuses the job")]
    assert webhook.got[0]["decision"] == "submit"
    assert cloud.project.asked[-1] == PAUSE


def test_a_look_that_finds_no_cloud_is_taken_again(cloud, monkeypatch):
    """A transient error sends no notification and leaves the schedule enabled."""
    cloud.script(["hold"])
    assert cloud.submit() == 0

    def fail(*_):
        raise TransientCloudError("Batch: does not answer")

    monkeypatch.setattr(Batch, "look", fail)
    with running_webhook() as webhook:
        monkeypatch.setenv("JOB_NOTIFY", webhook.url)
        assert cloud.supervise("--once", "--schedule", SCHEDULE) == 75
    assert webhook.got == []
    assert PAUSE not in cloud.project.asked


def test_a_schedule_goes_on_while_its_run_does(cloud, capsys):
    """A look at a run that trains pauses nothing, and a schedule without --once is refused."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    assert cloud.supervise("--once", "--schedule", SCHEDULE) == 0
    assert PAUSE not in cloud.project.asked
    assert cloud.supervise("--schedule", SCHEDULE) == 2
    assert "pass --once too" in capsys.readouterr().err
