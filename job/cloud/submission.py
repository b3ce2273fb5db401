"""A submission: one Batch job of a run. A run outlives Batch's ten retries because another submission follows.

Guarantees that a submission is recorded in the bucket, whole and create-only, before its job exists: any
machine can go on from the record, and of two that would submit the next submission one does. Ids are a pure
function of bucket, run and number, so submitting twice is once. Knows nothing of Batch's client.
"""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from job.cloud.settings import Settings
from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, RunConflictError, UsageError
from job.runs.flags import as_args
from job.runs.records import Request, differences, refuse_newer
from job.runs.request import TrainRequest
from job.runs.run import UNREADABLE, Run, family_of, is_run_name
from job.runs.search import find_run
from job.storage.object_store import Store

MAX_RETRIES = 10
"""Batch's limit, for all causes together."""

MAX_RUN_S = 2 * 24 * 3600
"""For one attempt; one that is not finished by then goes on in the next submission, unless it made no progress."""


LARGEST = 10**9
"""Above every whole number of a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a submission runs."""

    region: str
    machine: str
    """Google's name of the machine type."""

    spot: bool

    def __str__(self) -> str:
        return f"{self.machine} in {self.region}, {'Spot' if self.spot else 'on demand'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What one Batch job of a run is to be, complete."""

    run: str
    number: int
    created_at: str
    by: Literal["hand", "supervisor"]
    reason: str
    """Why it was submitted."""

    bucket: str
    request: Request
    """What was asked for; equal requests are one run."""

    words: list[str]
    """The command in the container."""

    settings: Settings
    machines: list[str]
    """Machine types that will do, best first."""

    placement: Placement
    deadline: str | None
    """When the run should be finished, ISO 8601."""

    max_usd: float | None
    """What the whole run may cost. With neither this nor `max_hours` there is no limit."""

    usd_per_hour: float | None
    """What was reckoned with, the high end."""

    max_retries: int = MAX_RETRIES
    max_run_s: int = MAX_RUN_S
    max_hours: float | None = None
    """How long all machines of the run may work, where a price is not known."""

    schema: int = 1

    @property
    def job_id(self) -> str:
        """Batch's id of the job: lowercase letters, digits and hyphens, 63 at most, the first a letter."""
        name = re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-")[:40].rstrip("-")
        digest = hashlib.sha256(f"{self.bucket}\n{self.run}".encode()).hexdigest()[:8]
        return f"run-{name}-{digest}-{self.number:03d}".replace("--", "-")

    @property
    def job_name(self) -> str:
        """The job's full name."""
        return f"projects/{self.settings.project}/locations/{self.placement.region}/jobs/{self.job_id}"

    @property
    def request_id(self) -> str:
        """A UUID by which Batch knows a repeated request."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.bucket}/runs/{self.run}/segments/{self.number}"))

    @property
    def placements(self) -> list[Placement]:
        """Every place that will do, in the order in which they are tried."""
        regions = [self.settings.region, *self.settings.other_regions]
        return [
            Placement(region=region, machine=machine, spot=self.placement.spot)
            for machine in self.machines
            for region in regions
        ]

    @property
    def digest(self) -> str:
        """SHA-256 over everything; equal submissions are the same submission."""
        content = asdict(self)
        if self.max_hours is None:
            del content["max_hours"]  # digests of older records lack the field
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Submission":
        """Read what `Submissions.write` wrote.

        Raises:
            TypeError: If it is something else, as well as the others of `UNREADABLE`.
        """
        parts = {"settings": Settings(**loaded["settings"]), "placement": Placement(**loaded["placement"])}
        submission = cls(**(loaded | parts))
        _require_types(submission)
        return submission


class Submissions:
    """The submissions of a run in its bucket."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def list(self) -> list[Submission]:
        """Return the submissions in order."""
        prefix = self.run.key("segments/")
        return [
            self._read(stored.key)
            for stored in self.run.store.list(prefix)
            if re.fullmatch(r"\d{4,}\.json", stored.key.removeprefix(prefix))
        ]

    def write(self, submission: Submission) -> bool:
        """Record a submission before its job is made; false if another one has its number."""
        try:
            self.run.store.put(self._key(submission.number), (json.dumps(asdict(submission), indent=1) + "\n").encode())
        except PreconditionError:
            return False
        return True

    def job_of(self, number: int) -> dict[str, str] | None:
        """Return the name and uid of a submission's Batch job once it was made.

        Raises:
            CorruptObjectError: If the record is something else.
        """
        try:
            content = self.run.store.read(self._key(number, ".job"))
        except ObjectNotFoundError:
            return None
        try:
            loaded: dict[str, str] = json.loads(content)
            if not re.fullmatch(r"[A-Za-z0-9_-]+", loaded["uid"]):  # it becomes part of a question to Cloud Logging
                raise ValueError(f"{loaded['uid']!r} is no uid")
        except UNREADABLE as error:
            raise CorruptObjectError(f"{self._key(number, '.job')}: is not the record of a job, {error}") from error
        return loaded

    def write_job(self, number: int, name: str, uid: str) -> None:
        """Record that a submission's Batch job was made."""
        self.run.store.put(self._key(number, ".job"), json.dumps({"name": name, "uid": uid}).encode(), overwrite=True)

    def _key(self, number: int, part: str = "") -> str:
        return self.run.key(f"segments/{number:04d}{part}.json")

    def _read(self, key: str) -> Submission:
        try:
            content = json.loads(self.run.store.read(key))
            refuse_newer(key, content)
            submission = Submission.from_json(content)
        except UNREADABLE as error:
            raise CorruptObjectError(
                f"{key}: was written by another version of the job, {error}; use that version"
            ) from error
        if (submission.bucket, submission.run, key) != (
            self.run.store.uri,
            self.run.name,
            self._key(submission.number),
        ):
            raise CorruptObjectError(
                f"{key}: is the record of submission {submission.number} of run {submission.run} in "
                f"{submission.bucket}; find out who put it here, and submit under another --run"
            )
        return submission


def _require_types(submission: Submission) -> None:
    """Check what is used before anything else could notice that it is of another type: the record is data.

    Raises:
        TypeError: If a field is of another type.
    """
    settings, placement = submission.settings, submission.placement
    texts = [
        submission.run,
        submission.created_at,
        submission.reason,
        submission.bucket,
        *submission.words,
        *submission.machines,
    ]
    texts += [placement.region, placement.machine, settings.project, settings.region, settings.image, settings.network]
    texts += [settings.service_account, settings.subnetwork, *settings.other_regions, *settings.other_regions.values()]
    texts += [text for text in (settings.wandb_secret, submission.deadline) if text is not None]
    for text in filter(None, (submission.created_at, submission.deadline)):
        datetime.fromisoformat(text)
    whole = [submission.number, submission.max_retries, submission.max_run_s]
    amounts = [
        amount for amount in (submission.max_usd, submission.max_hours, submission.usd_per_hour) if amount is not None
    ]
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and 0 <= number < LARGEST for number in whole)
        and all(isinstance(amount, int | float) and 0 <= amount < math.inf for amount in amounts)
        and isinstance(submission.words, list)
        and isinstance(submission.machines, list)
        and isinstance(placement.spot, bool)
        and all(isinstance(usd, int | float) for price in settings.prices.values() for usd in price.values())
        and submission.by in {"hand", "supervisor"}
    ):
        raise TypeError("a field has another type")


def find_submission(store: Store, name: str | None, request: Mapping[str, Any]) -> tuple[Run, list[Submission]]:
    """Return the run that a request means, whether it has begun or only been submitted, and its submissions.

    Args:
        store: The bucket.
        name: The run's name; without one it is the newest that was asked for in the same way, or else a new one.
        request: What is asked for.

    Raises:
        RunConflictError: If the named run was asked for differently; lists every difference.
    """
    submitted = [
        match[1]
        for stored in store.list("runs/")
        if (match := re.fullmatch(r"runs/([^/]+)/segments/0001\.json", stored.key)) and is_run_name(match[1])
    ]
    submitted.sort(key=lambda taken: (family_of(taken), len(taken), taken))  # as `list_runs`: the newest is the last
    if name is None:
        for run in (Run(store, candidate) for candidate in reversed(submitted)):
            if run.submitted() == request:
                return run, Submissions(run).list()
        return find_run(store, None, request)[0], []
    run, _ = find_run(store, name, request)
    submissions = Submissions(run).list()
    if submissions and (different := differences(submissions[0].request, request)):
        raise RunConflictError(
            f"run {name}: was submitted with other values; repeat those, or choose another --run", different
        )
    return run, submissions


NOT_IN_ARGS = {"recipe", "dataset", "run", "device", "workdir", "arguments"}
"""Fields of a request that `container_args` has in another form, or that are decided later."""

GPU = "0"
"""Given explicitly, so that a machine whose driver is missing fails at once instead of training on its CPU."""


def container_args(request: TrainRequest) -> list[str]:
    """Return the command that requests the same training in the container, without run, dataset and bucket.

    Raises:
        UsageError: If the request names a file of this machine, or several devices.
    """
    recipe = request.recipe
    if recipe.source != recipe.name:
        raise UsageError(
            f"--recipe {recipe.source}: is a file on this machine; pass a recipe of the image, "
            "and other values as flags"
        )
    if "," in request.device:
        raise UsageError(f"--device: the machines of `job submit` have one GPU, got {request.device!r}; leave it out")
    if request.weights is not None and not request.weights.startswith("gs://") and Path(request.weights).is_file():
        raise UsageError(
            f"--weights {request.weights}: is a file on this machine; copy it to the bucket and pass its gs:// address"
        )
    fixed = as_args({"recipe": recipe.name, "device": request.device or GPU})
    names = [name for name in TrainRequest.model_fields if name not in NOT_IN_ARGS]
    return ["train", *fixed, *request.args(names), *as_args(request.arguments)]
