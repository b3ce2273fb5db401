"""Simulation of a training on Spot machines that are preempted at random: seconds are simulated, decisions are real.

`job.cloud.policy.decide` and its `budget` decide what happens next, from a `History` as a supervisor reads it, and
`job.runs.cost` adds up seconds and dollars. Batch, machines and training are durations: a job waits for its machines,
boots, gets ready, and trains with commits until one machine is taken; then all of them start again. Preemptions are a
Poisson process on each machine and come without notice.
"""

import dataclasses
import itertools
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from job.cloud.budget import Limit, durations_within
from job.cloud.machine_types import Provisioning, find_machine
from job.cloud.policy import budget, decide
from job.cloud.settings import Settings
from job.cloud.status import Attempt, BatchJob, History, SubmissionStatus
from job.cloud.submission import Placement, Submission
from job.errors import PREEMPTED, TIME_LIMIT, EndReason
from job.goodput import Phase
from job.runs.cost import AttemptCost, RunCost
from job.runs.records import CheckpointId, Price
from job.text import HOUR

MACHINE = find_machine("l4")
"""The machine with a price on record."""

START = datetime(2026, 1, 1, tzinfo=UTC)

POLL_S = 300.0
"""Between two looks of a supervisor."""

SETTINGS = Settings(
    project="simulation",
    region="us-central1",
    image="",
    service_account="",
    network="",
    subnetwork="",
    other_regions={},
    prices={},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Durations of a training and its attempts, in seconds."""

    wait_s: float
    """From the request to the boot of the machines; not paid."""

    boot_s: float
    """From the boot to the claim of the run: driver, image."""

    ready_s: float
    """From the claim to the first step."""

    every_s: float
    """Steps between two checkpoints."""

    stall_s: float
    """Training stops for a checkpoint."""

    upload_s: float
    """From a checkpoint to its commit; training goes on."""

    work_s: float
    """Steps of the whole training, on the machines at hand."""

    @property
    def undisturbed_s(self) -> float:
        """Paid seconds without a preemption."""
        num_checkpoints = int(self.work_s / self.every_s)
        return self.boot_s + self.ready_s + self.work_s + num_checkpoints * self.stall_s + self.upload_s


@dataclass(frozen=True, slots=True)
class Result:
    """How a simulated run ended."""

    cost: RunCost
    """Machine seconds of all machines as one; dollars are of all of them."""

    num_jobs: int
    took_s: float
    """From the submission to the end, waiting included."""

    given_up: str
    """The policy's reason for ending the run early; empty if it was finished."""


class Simulation:
    """One run on machines of one kind, each preempted after `between_s` on average.

    Its limit is the price of the same training on demand, undisturbed: from there on Spot is the dearer choice.
    """

    def __init__(self, durations: Durations, num_machines: int, between_s: float, seed: int) -> None:
        self._durations, self._rate = durations, num_machines / between_s
        self._chance = random.Random(f"{seed} {num_machines} {between_s}")  # noqa: S311 -- the same every time
        self._now, self._done_s = START, 0.0
        prices = (MACHINE.usd_per_hour(kind) for kind in (Provisioning.SPOT, Provisioning.ON_DEMAND))
        self._usd, on_demand = (num_machines * (price or 0.0) for price in prices)
        self._limit = Limit(usd=round(on_demand * durations.undisturbed_s / HOUR, 2))
        self._attempts: list[Attempt] = []
        self._costs: list[AttemptCost] = []
        self._num_checkpoints = itertools.count(1)
        self._committed: CheckpointId | None = None
        self._seen = [SubmissionStatus(submission=self._first(), made=False, job=None, usd_per_hour=self._usd)]

    def run(self) -> Result:
        """Train until the work is done, or the policy ends the run."""
        given_up = ""
        while self._done_s < self._durations.work_s and not given_up:
            history = self._history()
            decision = decide(history)
            if decision.do == "create":
                self._run_job()
            elif decision.do == "submit" and decision.placement is not None:
                self._submit(history, decision.placement)
            elif decision.do == "wait":
                self._pass(POLL_S)
            else:
                given_up = decision.reason
        took_s = (self._now - START).total_seconds()
        return Result(RunCost(tuple(self._costs)), len(self._seen), took_s, given_up)

    def _first(self) -> Submission:
        retries, run_s = durations_within(self._limit, self._usd)
        return Submission(
            run="simulation",
            number=1,
            created_at=START.isoformat(),
            by="hand",
            reason="submitted",
            bucket="gs://simulation",
            request={},
            words=["train"],
            settings=SETTINGS,
            machines=[MACHINE.type],
            placement=Placement(region=SETTINGS.region, machine=MACHINE.type, provisioning=Provisioning.SPOT),
            deadline=None,
            max_usd=self._limit.usd,
            usd_per_hour=self._usd,
            max_retries=retries,
            max_run_s=run_s,
        )

    def _history(self) -> History:
        attempts = [dataclasses.replace(last, reason=EndReason.RUNNING) for last in self._attempts[-1:]]
        return History(
            run="simulation",
            now=self._now,
            submissions=tuple(self._seen),
            attempts=(*self._attempts[:-1], *attempts),
            committed=self._committed,
            limit=self._limit,
            prices={MACHINE.type: {"spot": self._usd}},
        )

    def _submit(self, history: History, placement: Placement) -> None:
        """Add a submission that fits into the rest of the limit, as the supervisor does."""
        retries, run_s = budget(history, placement)
        before = self._seen[-1].submission
        submission = dataclasses.replace(
            before, number=before.number + 1, by="supervisor", max_retries=retries, max_run_s=run_s
        )
        self._seen.append(dataclasses.replace(self._seen[-1], submission=submission, made=False, job=None))

    def _run_job(self) -> None:
        """Run the newest submission's job as Batch does: attempts until one ends well, none is left, or time is up."""
        scheduled_at, submission, codes = self._now, self._seen[-1].submission, []
        while len(codes) <= submission.max_retries and TIME_LIMIT not in codes:
            code = self._run_attempt(submission)
            if code is None:
                break
            codes.append(code)
        job = BatchJob(
            uid="simulation",
            state="FAILED" if self._done_s < self._durations.work_s else "SUCCEEDED",
            created_at=scheduled_at,
            scheduled_at=scheduled_at,
            waiting_since=None,
            ended_at=self._now,
            exit_codes=tuple(codes),
            last_event="",
        )
        self._seen[-1] = dataclasses.replace(self._seen[-1], made=True, job=job)

    def _run_attempt(self, submission: Submission) -> int | None:
        """Run an attempt on new machines; return Batch's exit code, or None once the work is done."""
        durations = self._durations
        self._pass(durations.wait_s)
        began_at, life_s = self._now, self._chance.expovariate(self._rate)
        code, left_s = PREEMPTED, life_s
        if life_s > durations.boot_s + submission.max_run_s:
            code, left_s = TIME_LIMIT, durations.boot_s + submission.max_run_s
        seconds = dict.fromkeys(Phase, 0.0)
        for phase, phase_s in ((Phase.BOOT, durations.boot_s), (Phase.START_UP, durations.ready_s)):
            seconds[phase] = min(left_s, phase_s)
            left_s -= seconds[phase]
        if life_s > durations.boot_s:
            self._claim(submission, began_at + timedelta(seconds=durations.boot_s))
        seconds |= self._train(left_s)
        self._pass(sum(seconds.values()))
        is_done = self._done_s >= durations.work_s
        self._costs.append(
            AttemptCost(
                attempt=len(self._costs) + 1,
                machine=MACHINE.type,
                began_at=began_at.isoformat(),
                ended_at=self._now.isoformat(),
                ended=EndReason.FINISHED if is_done else EndReason.VANISHED,
                seconds=seconds,
                steps_lost=0,
                away_s=durations.wait_s,
                price=Price(usd_per_h=self._usd, machine_type=MACHINE.type),
            )
        )
        return None if is_done else code

    def _claim(self, submission: Submission, at: datetime) -> None:
        self._attempts.append(
            Attempt(
                number=len(self._attempts) + 1,
                job=submission.job_id,
                host="simulation",
                claimed_at=at,
                ended_at=None,
                reason=EndReason.VANISHED,
                exit_code=None,
                message="",
                position=None,
            )
        )

    def _train(self, left_s: float) -> dict[Phase, float]:
        """Train for the seconds that are left to the machines, and commit; return the seconds by phase."""
        durations, to_do_s = self._durations, self._durations.work_s - self._done_s
        stalls_s = int(to_do_s / durations.every_s) * durations.stall_s
        if left_s >= to_do_s + stalls_s + durations.upload_s:
            self._done_s = durations.work_s
            return {Phase.USEFUL: to_do_s, Phase.STALL: stalls_s, Phase.IDLE: durations.upload_s}
        cycle_s = durations.every_s + durations.stall_s
        num_committed = max(0, math.floor((left_s - durations.upload_s) / cycle_s))
        if num_committed:
            self._done_s += num_committed * durations.every_s
            self._committed = CheckpointId(0, next(self._num_checkpoints), len(self._attempts))
        return {
            Phase.USEFUL: num_committed * durations.every_s,
            Phase.STALL: num_committed * durations.stall_s,
            Phase.LOST: left_s - num_committed * cycle_s,
        }

    def _pass(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
