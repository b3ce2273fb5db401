"""``job supervise``, ``job status``, ``job logs`` and ``job cancel``: a submitted run, watched and ended."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from job.cloud.history import Attempt, History, SegmentSeen
from job.cloud.policy import decide
from job.cloud.segment import Segments
from job.commands.submit import cloud_bucket, read_deadline, read_max_usd
from job.commands.values import read_flag, require_store
from job.errors import RunConflictError, UsageError
from job.run import Run
from job.units import duration

if TYPE_CHECKING:
    from job.cloud.batch import Batch
    from job.cloud.supervise import Supervisor

log = logging.getLogger(__name__)

POLL_S = 60.0
"""Between two looks at a run, where nothing else is asked for."""


def run_supervise(
    name: str, bucket: str | None, *, resume: str, deadline: str | None, max_usd: str | None, poll: str
) -> None:
    """Keep a run going until it ends.

    Raises:
        JobError: If it does not end well.
    """
    again, limit, due = read_flag(resume, "resume"), read_max_usd(max_usd), read_deadline(deadline)
    if not re.fullmatch(r"\d+(\.\d+)?", poll):
        raise UsageError(f"--poll: must be a number of seconds, got {poll!r}")
    supervisor = dataclasses.replace(_supervisor(name, bucket), max_usd=limit, deadline=due, poll_s=float(poll))
    if again:
        supervisor.resume()
    _watch(supervisor)


def watch(run: Run, batch: "Batch") -> None:
    """Keep a run going that was just submitted.

    Raises:
        JobError: If it does not end well.
    """
    from job.cloud.supervise import Supervisor  # noqa: PLC0415 -- needs Batch's library

    _watch(Supervisor(run=run, batch=batch, poll_s=POLL_S))


def print_status(name: str, bucket: str | None) -> None:
    """Print what is known of a run.

    Raises:
        JobError: If bucket or Batch refuse.
    """
    print(describe(_supervisor(name, bucket).history()))


def describe(history: History) -> str:
    """Return what is known of a run, as lines."""
    decision = decide(history)
    progress = f"epoch {history.committed.epoch}" if history.committed else "nothing committed yet"
    if history.committed and history.committed.batch:
        progress += f", batch {history.committed.batch}"
    if history.num_epochs is not None:
        progress += f", of {history.num_epochs} epochs"
    usd = history.usd
    cost = "not known, the machine has no price" if usd is None else f"{usd:.2f} USD at most"
    if history.max_usd is not None:
        cost += f", of {history.max_usd:.2f}"
    lines = [
        f"run         {history.run}",
        f"state       {decision.do}: {decision.reason}",
        f"committed   {progress}",
    ]
    if history.final is None and history.remaining_s is not None:
        lines.append(f"remaining   {duration(history.remaining_s)} at the pace so far")
    if history.deadline is not None:
        lines.append(f"deadline    {history.deadline.isoformat(timespec='minutes')}")
    lines += [
        f"cost        {cost}",
        f"ended       {history.num_preemptions} times by preemption, {history.num_crashes} by a crash",
        "",
        *_segment_lines(history),
        "",
        *attempt_lines(history.attempts),
    ]
    return "\n".join(lines).rstrip()


def print_logs(name: str, bucket: str | None, segment: str | None) -> None:
    """Print the lines of one segment's job, or of all.

    Raises:
        JobError: If the logs cannot be read.
    """
    from job.cloud.logs import read_lines  # noqa: PLC0415 -- only this command needs it

    run = _run(name, bucket)
    if segment is not None and not segment.isdecimal():
        raise UsageError(f"--segment: must be a segment's number, got {segment!r}")
    chosen = [entry for entry in Segments(run).list() if segment is None or entry.number == int(segment)]
    if not chosen:
        raise RunConflictError(f"run {name}: has no such segment; `job status {name}` lists them")
    for entry in chosen:
        made = Segments(run).job_of(entry.number)
        if made is not None:
            for line in read_lines(entry.settings.project, made["uid"]):
                print(line)


def run_cancel(name: str, bucket: str | None) -> None:
    """Cancel a run's job.

    Raises:
        JobError: If bucket or Batch refuse.
    """
    supervisor = _supervisor(name, bucket)
    history = supervisor.history()
    live = [seen.segment for seen in history.segments if seen.live]
    if not live:
        log.info("run %s: no job of it is running", name)
    for segment in live:
        supervisor.batch.cancel(segment.job_name)
        log.info("cancelling %s; `job supervise %s --resume` goes on from the last checkpoint", segment.job_id, name)


def attempt_lines(attempts: tuple[Attempt, ...]) -> list[str]:
    """Return a table of attempts."""
    rows = [("attempt", "job", "claimed", "ended", "how", "at")]
    rows += [
        (
            str(attempt.number),
            attempt.job or f"elsewhere, {attempt.host}",
            f"{attempt.claimed_at:%d %b %H:%M:%S}",
            f"{attempt.ended_at:%d %b %H:%M:%S}" if attempt.ended_at else "",
            attempt.reason,
            f"epoch {attempt.position[0]}, batch {attempt.position[1]}" if attempt.position else "",
        )
        for attempt in attempts
    ]
    return _table(rows) if attempts else ["no attempt has claimed the run yet"]


def _segment_lines(history: History) -> list[str]:
    rows = [("segment", "job", "where", "why", "state", "machine time", "USD")]
    for seen in history.segments:
        usd = seen.usd(history.now)
        rows.append(
            (
                str(seen.segment.number),
                seen.segment.job_id,
                str(seen.segment.placement),
                seen.segment.reason,
                _state(seen),
                _machine_time(seen, history),
                "" if usd is None else f"{usd:.2f}",
            )
        )
    return _table(rows)


def _state(seen: SegmentSeen) -> str:
    if seen.job is None:
        return "deleted" if seen.made else "not made yet"
    return seen.job.state.lower() + (", no machine yet" if seen.job.waiting_since else "")


def _machine_time(seen: SegmentSeen, history: History) -> str:
    if seen.job is None or seen.job.scheduled_at is None:
        return ""
    return duration(((seen.job.ended_at or history.now) - seen.job.scheduled_at).total_seconds())


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _watch(supervisor: "Supervisor") -> None:
    history = supervisor.watch()
    print(describe(history))


def _run(name: str, bucket: str | None) -> Run:
    return Run(require_store(cloud_bucket(bucket, {})), name)


def _supervisor(name: str, bucket: str | None) -> "Supervisor":
    from job.cloud.batch import Batch  # noqa: PLC0415 -- its library is an extra
    from job.cloud.supervise import Supervisor  # noqa: PLC0415 -- as above

    run = _run(name, bucket)
    return Supervisor(run=run, batch=Batch.connect(), poll_s=POLL_S)
