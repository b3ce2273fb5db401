"""Campaign loop: choose the next run, train it, repeat.

Guarantees that the same command resumes a campaign killed at any time. Knows nothing of machines but their `Place`.
"""

import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from job.analysis.campaign import (
    Campaign,
    CampaignRecord,
    CampaignResult,
    CampaignStep,
    End,
    best_of,
    next_step,
    spent_usd,
)
from job.analysis.paired import describe_difference, f1_difference
from job.analysis.summary import RunSummary, with_evaluation
from job.cloud.prices import USD_PER_HOUR
from job.errors import CampaignError, ExitCode, PauseError, PreemptionError
from job.report.campaign import write_page
from job.runs.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """The command that trains a run on this machine or on Cloud Batch.

    Each run has its own process, since an earlier training in the same process changes the last bits.
    """

    command: tuple[str, ...]
    """The command, without the flags of the run."""

    usd_per_hour: float | None
    """The price of the machine, if it is known; each attempt records it."""

    bounds: bool = False
    """Whether each run gets the rest of the budget as its ``--max-usd``."""

    def train(self, args: Sequence[str]) -> int:
        """Train a run, and return the command's exit code.

        A notice is passed on to the process; if it has the notice already, the two count as one.
        """
        price = {} if self.usd_per_hour is None else {USD_PER_HOUR: str(self.usd_per_hour)}
        process = subprocess.Popen([sys.executable, "-m", "job", *self.command, *args], env=os.environ | price)  # noqa: S603 -- our own program
        try:
            return process.wait()
        except PreemptionError:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise


def here(bucket: str, args: Sequence[str], usd_per_hour: float | None) -> Place:
    """Return the place that trains on this machine, with further flags of ``job train``."""
    return Place(("train", *args, f"--bucket={bucket}"), usd_per_hour)


def on_batch(bucket: str, machine: str, args: Sequence[str]) -> Place:
    """Return the place that submits a run to Cloud Batch, if it is not yet, and supervises it, with further flags."""
    return Place(("submit", "--supervise", f"--machine={machine}", *args, f"--bucket={bucket}"), None, bounds=True)


def go_on(campaign: Campaign, place: Place, usd_per_hour: float | None) -> CampaignResult:
    """Train a campaign's runs to the end, and return the result; raises `CampaignError` or `PauseError` of a run."""
    record = campaign.record()
    while (result := campaign.result()) is None:
        steps, runs = campaign.steps(), campaign.runs()
        finished = [run for run in runs if run is not None and run.final is not None]
        if len(finished) < len(steps):
            _train(campaign, record, steps[-1], place, finished)
            continue
        finished = [with_evaluation(campaign.store, run) for run in finished]
        decision = next_step(
            *(record, finished, usd_per_hour),
            bucket=campaign.store.uri,
            bounded=place.bounds,
            gain=_describe_gain(campaign, finished),
        )
        if isinstance(decision, End):
            log.info("campaign %s: %s; %s", campaign.name, decision.reason, decision.because)
            campaign.finish(decision, best_of(finished))
        else:
            log.info("campaign %s: recipe %s is next; %s", campaign.name, decision.recipe, decision.because)
            campaign.add(decision)
        write_page(campaign)
    return result


def _describe_gain(campaign: Campaign, finished: Sequence[RunSummary]) -> str:
    """Return by how much the newest run differs from the best before it, if both were measured on the same pictures."""
    before = best_of(finished[:-1])
    best = next((run for run in finished[:-1] if before and run.run == before.run), None)
    if best is None:
        return ""
    difference = f1_difference(campaign.store, finished[-1], best)
    if difference is None:
        return ""
    return f"; F1 of run {finished[-1].run} against {best.run}, by picture: {describe_difference(difference)}"


def _train(
    campaign: Campaign, record: CampaignRecord, step: CampaignStep, place: Place, finished: Sequence[RunSummary]
) -> None:
    log.info("campaign %s: run %d, %s", campaign.name, step.number, step.run)
    goal, bound, left = record.goal, record.bound, None
    args = step.train_args(goal)
    if goal.max_usd is not None:
        left = goal.max_usd - (spent_usd(finished) or 0.0)
    elif bound is not None and bound.usd:
        left = min(bound.run, bound.left(finished))
    if left is not None and place.bounds:
        args.append(f"--max-usd={math.floor(left * 100) / 100:.2f}")
    exit_code = place.train(args)
    if Run(campaign.store, step.run).final() is not None:
        return
    if exit_code == 0:
        raise PauseError(f"campaign {campaign.name}: run {step.run} is paused")
    cut_off = exit_code == ExitCode.TRY_AGAIN or exit_code < 0
    ended = "was cut off; the same command resumes it"
    if not cut_off:
        ended = f"failed with exit code {exit_code}, see above; solve that, and run the same command again"
    raise CampaignError(
        f"campaign {campaign.name}: run {step.run} {ended}", ExitCode.TRY_AGAIN if cut_off else exit_code
    )
