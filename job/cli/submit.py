"""``job submit`` and ``job render``: from words to a submission, and to a Batch job."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.cli.options import (
    CLOUD_FLAGS,
    Mistakes,
    cloud_bucket,
    read_deadline,
    read_flag,
    read_limit,
    require_gs,
    require_store,
)
from job.cli.train import read_order
from job.cloud.allowance import Allowance, load_allowance
from job.cloud.budget import Limit, durations_within, seconds_within, usd_per_hour, worst_s
from job.cloud.job_spec import render
from job.cloud.machine_types import find_machine
from job.cloud.settings import Settings, load_settings
from job.cloud.submission import Placement, Submission, Submissions, find_submission
from job.datasets.prepare import find_dataset
from job.errors import UsageError
from job.runs.cost import usd_of
from job.runs.lineage import find_start
from job.runs.records import now
from job.runs.request import Order
from job.runs.run import FAMILY, check_run_name
from job.runs.unfinished import tell_beside
from job.text import HOUR, dollars, duration

log = logging.getLogger(__name__)


TRAIN_FLAGS: dict[str, Any] = {
    "recipe": None,
    "dataset": None,
    "run": None,
    "weights": None,
    "model": None,
    "profile": "full",
    "device": "",
    "workers": None,
    "checkpoint_every": "60",
    "hang_after": "1800",
    "new_classes": "false",
    "quarantine": "false",
}
"""Of `job train`, with their defaults."""

DECIDED_LATER = {"recipe", "dataset", "run"}

GPU = "0"
"""Said aloud, so that a machine whose driver is missing fails at once instead of training on its CPU."""


def run_submit(*, training_arguments: dict[str, str], supervise: str, **flags: Any) -> None:  # noqa: ANN401 -- text by flag
    """Submit a run, or say what became of it.

    Raises:
        JobError: For whatever is wrong; see the exit codes.
    """
    from job.cli.supervise import POLL_S, watch
    from job.cloud.batch import Batch
    from job.cloud.policy import decide
    from job.cloud.supervisor import Supervisor

    stay = read_flag(supervise, "supervise")
    order, words, limit = _read(flags, training_arguments)
    said = {name: flags[name] for name in CLOUD_FLAGS if flags[name] is not None}
    settings, allowance = load_settings(said), load_allowance(said, limit)
    how = _how(flags, settings, allowance)
    store = require_store(require_gs(cloud_bucket(flags["bucket"], flags)))
    order = replace(order, dataset=find_dataset(store, order.dataset))
    request = order.request(order.dataset)
    run, submissions = find_submission(store, order.run, request)
    if run.final() is not None:
        log.info("run %s was finished before; `job runs show %s` shows it", run.name, run.name)
        return
    if not submissions:
        if run.record() is None:
            if order.run is None:
                tell_beside(store, run, request, "submit")
            find_start(store, order, run.name)  # a run that cannot start must not cost a machine
        submission = _first_submission(
            bucket=store.uri,
            run=run.name,
            words=[*words, f"--dataset={order.dataset}"],
            request=request,
            settings=settings,
            **how,
        )
        submissions = [submission] if Submissions(run).write(submission) else Submissions(run).list()
    newest = submissions[-1]
    supervisor = Supervisor(run=run, batch=Batch.connect(), allowance=allowance, poll_s=POLL_S)
    if newest.number == 1 and Submissions(run).job_of(1) is None:  # the supervisor submits later ones
        allowance.require(newest)
        history = supervisor.history()
        log.info("run %s: %s", run.name, worst_words(newest))
        supervisor.act(history, decide(history))
    else:
        log.info("run %s was submitted before, %s; `job status %s` shows it", run.name, newest.job_id, run.name)
    if stay:
        watch(supervisor)
    else:
        log.info("`job supervise %s` keeps it going when Batch's retries are used up", run.name)
        print(run.name)


def run_render(*, training_arguments: dict[str, str], **flags: Any) -> None:  # noqa: ANN401 -- text by flag
    """Print a run's first Batch job.

    Raises:
        JobError: For whatever is wrong with words and settings; bucket and cloud are not asked.
    """
    order, words, limit = _read(flags, training_arguments)
    said = {name: flags[name] for name in CLOUD_FLAGS if flags[name] is not None}
    settings, allowance = load_settings(said), load_allowance(said, limit)
    if order.dataset is not None:
        words.append(f"--dataset={order.dataset}")
    submission = _first_submission(
        bucket=require_gs(cloud_bucket(flags["bucket"], flags)),
        run=order.run or FAMILY,
        words=words,
        request=order.request(order.dataset),
        settings=settings,
        **_how(flags, settings, allowance),
    )
    print(json.dumps(render(submission), indent=2))


def _read(flags: dict[str, Any], training_arguments: dict[str, str]) -> tuple[Order, list[str], Limit | None]:
    """Read what is to be trained, its words and its limit; every flag that is wrong is told at once."""
    mistakes = Mistakes()
    with mistakes:
        order, words = cloud_words(flags, training_arguments)
    with mistakes:
        limit = read_limit(flags["max_usd"], flags["no_limit"])
    with mistakes:
        read_deadline(flags["deadline"])
    with mistakes:
        read_flag(flags["on_demand"], "on-demand")
    mistakes.tell()
    return order, words, limit


def print_limit(machine: str, *, max_usd: str | None, no_limit: str) -> None:
    """Print for how many hours a Spot machine may run, and say what that costs.

    Raises:
        UsageError: If the limit is not understood, or its machine has no price.
        MachineError: If a setting is missing or malformed.
    """
    allowance, type_ = load_allowance({}, read_limit(max_usd, no_limit)), find_machine(machine).type
    price = usd_per_hour(allowance.prices, type_, spot=True)
    found = allowance.limit([type_], spot=True)
    seconds = seconds_within(found, price)
    what = f"{type_} on Spot, {'price unknown' if price is None else f'{price:g} USD an hour'}"
    if seconds is None:
        log.info("limit: none; %s", what)
        print("never")
    else:
        log.info("limit: %s, which is %s of %s", found, duration(seconds), what)
        print(f"{seconds / HOUR:.3f}")


def worst_words(submission: Submission) -> str:
    """Return the worst that a submission can cost, as people read it."""
    seconds, price = worst_s(submission.max_retries, submission.max_run_s), submission.usd_per_hour
    hours = f"{seconds / HOUR:.1f} hours of {submission.placement}"
    limit = Limit(submission.max_usd, submission.max_hours)
    bound = (
        "further jobs come on top, without a limit" if limit == Limit() else f"the limit of the whole run is {limit}"
    )
    if price is None:
        return f"this can take {hours} at worst, whose price is not known; {bound}"
    return f"this can cost {dollars(usd_of([(seconds, price)]) or 0.0)} at worst, {hours} at {price:g} USD; {bound}"


def cloud_words(flags: Mapping[str, Any], training_arguments: dict[str, str]) -> tuple[Order, list[str]]:
    """Read what is to be trained, and return it with the words that order the same in the container.

    Args:
        flags: Of `job train`, what was not given left out or nothing. Run, dataset and bucket are not in the words:
            they are decided later.
        training_arguments: Further flags.

    Raises:
        JobError: If it cannot be ordered, or not from another machine.
    """
    given = {name: text for name, text in flags.items() if name in TRAIN_FLAGS and text is not None}
    order = read_order(training_arguments=training_arguments, **{**TRAIN_FLAGS, "workdir": "work", **given})
    if order.recipe.source != order.recipe.name:
        raise UsageError(
            f"--recipe {order.recipe.source}: is a file on this machine; pass a recipe of the image, and other values "
            "as flags"
        )
    if "," in order.device:
        raise UsageError(f"--device: the machines of `job submit` have one GPU, got {order.device!r}; leave it out")
    if order.weights is not None and not order.weights.startswith("gs://") and Path(order.weights).is_file():
        raise UsageError(
            f"--weights {order.weights}: is a file on this machine; copy it to the bucket and pass its gs:// address"
        )
    said = {
        "recipe": order.recipe.name,
        "device": order.device or GPU,
        **{name: text for name, text in given.items() if name not in DECIDED_LATER and text != TRAIN_FLAGS[name]},
        **training_arguments,
    }
    return order, ["train", *(f"--{name.replace('_', '-')}={text}" for name, text in said.items())]


def _how(flags: dict[str, Any], settings: Settings, allowance: Allowance) -> dict[str, Any]:
    """Return a submission's fields that say where it runs, for how long, and for how much."""
    machines = [find_machine(name.strip()) for name in flags["machine"].split(",")]
    spot = not read_flag(flags["on_demand"], "on-demand")
    if not spot and not machines[0].on_demand:
        raise UsageError(f"--on-demand: {machines[0].type} is to be had as Spot only; choose another --machine")
    limit = allowance.limit([machine.type for machine in machines], spot=spot)
    price = usd_per_hour(settings.prices, machines[0].type, spot=spot)
    retries, run_s = durations_within(limit, price)
    return {
        "machines": [machine.type for machine in machines],
        "placement": Placement(region=settings.region, machine=machines[0].type, spot=spot),
        "deadline": read_deadline(flags["deadline"]),
        "max_usd": limit.usd,
        "max_hours": limit.hours,
        "usd_per_hour": price,
        "max_retries": retries,
        "max_run_s": run_s,
    }


def _first_submission(*, bucket: str, run: str, words: list[str], **fields: Any) -> Submission:  # noqa: ANN401 -- a submission's
    return Submission(
        run=check_run_name(run),
        number=1,
        created_at=now(),
        by="hand",
        reason="submitted",
        bucket=bucket,
        words=[*words, f"--bucket={bucket}", f"--run={run}"],
        **fields,
    )
