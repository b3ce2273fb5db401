"""``job submit``, ``render``, ``limit`` and ``settings``: a request as a submission, a Batch job, and their bounds."""

import dataclasses
import json
import logging
from typing import Self

from pydantic import Field, model_validator

from job.cli.command import command
from job.cli.doctor import UNREADY, examine_cloud
from job.cli.options import MACHINE_HELP, CloudOptions, Deadline, LimitOptions, ProvisioningOptions
from job.cloud.allowance import Allowance, load_allowance
from job.cloud.budget import Limit, durations_within, seconds_within, usd_per_hour, worst_s
from job.cloud.findings import require_fitness
from job.cloud.job_spec import render
from job.cloud.machine_types import Provisioning, find_machine, find_machines
from job.cloud.settings import exported_settings, load_settings
from job.cloud.submission import Placement, Submission, Submissions, container_args
from job.datasets.prepare import find_dataset
from job.errors import UsageError
from job.runs.cost import usd_of
from job.runs.flags import Problem, as_args
from job.runs.lineage import find_start
from job.runs.records import InitialWeights, now
from job.runs.request import TrainRequest
from job.runs.run import default_families, next_free_name
from job.runs.search import find_run, warn_of_unfinished
from job.storage.object_store import Store
from job.text import HOUR, dollars, duration

log = logging.getLogger(__name__)


class SubmitOptions(TrainRequest, LimitOptions, ProvisioningOptions, CloudOptions):
    """Flags of ``job submit``."""

    positional = ("recipe",)
    left_out = frozenset({"workdir"})

    machine: str = Field("l4", description=MACHINE_HELP)
    deadline: Deadline | None = Field(
        None,
        description="Time to be finished, 12h from now or a time such as 2026-12-24T18:00; on demand is chosen if Spot "
        "would miss it.",
    )
    supervise: bool = Field(default=False, description="Stay, and keep the run going until it is finished.")
    no_preflight: bool = Field(default=False, description="Submit without the checks of `job doctor --cloud`.")

    @model_validator(mode="after")
    def _require_supervisor(self) -> Self:
        if "notify" in self.model_fields_set and not self.supervise:
            why = "--notify: is for the supervisor; pass --supervise, or --notify to `job supervise`"
            raise Problem(UsageError(why))
        return self


class RenderOptions(SubmitOptions):
    """Flags of ``job render``."""

    left_out = frozenset({"workdir", "supervise", "no_preflight", "notify"})


class LimitCommandOptions(LimitOptions):
    """Flags of ``job limit``."""

    positional = ("machine",)

    machine: str = Field(description=MACHINE_HELP)


@command(SubmitOptions, "job submit A --machine l4 --max-usd 20 --bucket gs://my-bucket")
def submit(options: SubmitOptions) -> None:
    """Submit a run, or report its state.

    Submitting twice is once. Settings of the cloud are read from infra/outputs.json, then cloud.yaml, then flags.
    """
    from job.cli.supervise import POLL_S, describe
    from job.cloud.batch import Batch
    from job.cloud.policy import decide
    from job.cloud.supervisor import Supervisor

    draft, allowance = _draft(options)
    store = options.store()
    options = options.model_copy(update={"dataset": find_dataset(store, options.dataset)})
    identity = options.identity(options.dataset)
    run, record = find_run(store, options.run, identity)
    submissions = Submissions(run).list()
    if run.final() is not None:
        log.info("run %s was finished before; `job runs show %s` shows it", run.name, run.name)
        return
    if not submissions:
        start = None
        if record is None:
            if options.run is None:
                warn_of_unfinished(store, run, identity, "submit")
            start = find_start(store, options, run.name)  # a run that cannot start must not cost a machine
        if not options.no_preflight:
            _require_ready(draft, options, store, start)
        submission = _complete(draft, options, store.uri, run.name)
        submissions = [submission] if Submissions(run).write(submission) else Submissions(run).list()
    newest = submissions[-1]
    supervisor = Supervisor(run=run, batch=Batch.connect(), allowance=allowance, poll_s=POLL_S, webhook=options.notify)
    if newest.number == 1 and Submissions(run).job_uid(1) is None:  # the supervisor submits later ones
        allowance.require(newest)
        history = supervisor.history()
        log.info("run %s: %s", run.name, describe_worst(newest))
        supervisor.act(history, decide(history))
    else:
        log.info("run %s was submitted before, %s; `job status %s` shows it", run.name, newest.job_id, run.name)
    if options.supervise:
        print(describe(supervisor.watch()))
    else:
        log.info("`job supervise %s` keeps it going when Batch's retries are used up", run.name)
        print(run.name)


@command(RenderOptions, "job render A --machine l4 --bucket gs://my-bucket")
def render_job(options: RenderOptions) -> None:
    """Print a run's first Batch job.

    Reads neither the bucket nor the cloud.
    """
    draft, _ = _draft(options)
    run = options.run or next_free_name(default_families(options.dataset)[0], ())
    print(json.dumps(render(_complete(draft, options, options.require_location(), run)), indent=2))


@command(LimitCommandOptions, "job limit l4 --max-usd 20")
def limit(options: LimitCommandOptions) -> None:
    """Print for how many hours a Spot machine may run within its limit, or "never" without a limit."""
    allowance, type_ = load_allowance({}, options.limit), find_machine(options.machine).type
    price = usd_per_hour(allowance.settings.prices, type_, Provisioning.SPOT)
    found = allowance.limit([type_], Provisioning.SPOT)
    seconds = seconds_within(found, price)
    what = f"{type_} on Spot, {'price unknown' if price is None else f'{price:g} USD an hour'}"
    if seconds is None:
        log.info("limit: none; %s", what)
        print("never")
    else:
        log.info("limit: %s, which is %s of %s", found, duration(seconds), what)
        print(f"{seconds / HOUR:.3f}")


@command(CloudOptions, "job settings")
def settings(options: CloudOptions) -> None:
    """Print the settings of the cloud as JSON, for `job supervise --settings` on another machine.

    A webhook's address is left out, as it is a secret: JOB_NOTIFY names it there.
    """
    bucket = {} if options.location is None else {"bucket": options.location}
    print(exported_settings(options.settings | bucket))


def _require_ready(draft: Submission, options: SubmitOptions, store: Store, start: InitialWeights | None) -> None:
    """Check the project for a run's first submission; logs warnings, and raises `MachineError` if a check fails."""
    findings = examine_cloud(
        draft.settings,
        [find_machine(type_) for type_ in draft.machines],
        store,
        str(options.dataset),
        start,
        provisioning=draft.placement.provisioning,
        has_deadline=draft.deadline is not None,
    )
    for finding in findings:
        if finding.grade == "warn":
            log.warning("%s", finding.problem)
    require_fitness(findings, UNREADY)


def describe_worst(submission: Submission) -> str:
    """Return the highest possible cost of a submission, as text."""
    seconds, price = worst_s(submission.max_retries, submission.max_run_s), submission.usd_per_hour
    hours = f"{seconds / HOUR:.1f} hours of {submission.placement}"
    limit, bound = Limit(submission.max_usd, submission.max_hours), "further jobs come on top, without a limit"
    if limit != Limit():
        bound = f"the limit of the whole run is {limit}"
    if price is None:
        return f"this can take {hours} at worst, whose price is not known; {bound}"
    return f"this can cost {dollars(usd_of([(seconds, price)]) or 0.0)} at worst, {hours} at {price:g} USD; {bound}"


def _draft(options: SubmitOptions) -> tuple[Submission, Allowance]:
    """Return a run's first submission as far as flags and settings decide it, and what the settings allow."""
    machines = find_machines(options.machine)
    words, settings = container_args(options, machines[0]), load_settings(options.settings)
    allowance = load_allowance(options.settings, options.limit)
    if options.archive is None and allowance.settings.archive is not None:
        words += as_args({"archive": allowance.settings.archive})
    options.require_offered(machines)
    types, provisioning = [machine.type for machine in machines], options.provisioning
    found, price = allowance.limit(types, provisioning), usd_per_hour(settings.prices, types[0], provisioning)
    retries, run_s = durations_within(found, price)
    draft = Submission(
        run="",
        number=1,
        created_at=now(),
        by="hand",
        reason="submitted",
        bucket="",
        request=dict(options.identity(options.dataset)),
        words=words,
        settings=settings,
        machines=types,
        placement=Placement(region=settings.region, machine=types[0], provisioning=provisioning),
        deadline=options.deadline,
        max_usd=found.usd,
        max_hours=found.hours,
        usd_per_hour=price,
        max_retries=retries,
        max_run_s=run_s,
    )
    return draft, allowance


def _complete(draft: Submission, options: SubmitOptions, bucket: str, run: str) -> Submission:
    """Return a submission with its run, dataset and bucket."""
    dataset = {} if options.dataset is None else {"dataset": options.dataset}
    words = [*draft.words, *as_args({**dataset, "bucket": bucket, "run": run})]
    request = dict(options.identity(options.dataset))
    return dataclasses.replace(draft, bucket=bucket, run=run, request=request, words=words)
