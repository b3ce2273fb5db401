"""Submission: the record of one Batch job of a run. A run outlives Batch's ten retries by further submissions.

Guarantees that a submission is recorded in the bucket, create-only, before its job exists: any machine can continue
from the record, and of two machines that submit at once one succeeds. Ids are a pure function of bucket, run and
number, so submitting again changes nothing. Knows nothing of Batch's client.
"""

import functools
import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from job.cloud.machine_types import Machine, Provisioning, machines
from job.cloud.settings import RECORD, Amount, Settings
from job.errors import CorruptObjectError, PreconditionError, UsageError
from job.runs.flags import as_args
from job.runs.records import Record, Timestamp, refuse_newer
from job.runs.request import TrainRequest
from job.runs.run import SUBMISSIONS, Run
from job.storage.paths import is_file
from job.text import counted, validation_problems

MAX_RETRIES = 10
"""Batch's limit, for all causes together."""

MAX_RUN_S = 2 * 24 * 3600
"""Limit of one attempt; an unfinished run continues in the next submission, unless it made no progress."""


Whole = Annotated[int, Field(ge=0, lt=10**9)]


@dataclass(frozen=True, slots=True, kw_only=True, config=RECORD)
class Placement:
    """Region, machine type and provisioning model of a submission."""

    region: str
    machine: str
    """Google's name of the machine type."""

    provisioning: Annotated[Provisioning, Field(strict=False)]

    @model_validator(mode="before")
    @classmethod
    def _read_spot(cls, found: object) -> object:
        """Records of older versions say whether it is Spot; else it is on demand."""
        if not isinstance(found, dict) or "provisioning" in found or not isinstance(spot := found.get("spot"), bool):
            return found
        others = {name: value for name, value in found.items() if name != "spot"}
        return {"provisioning": Provisioning.SPOT if spot else Provisioning.ON_DEMAND} | others

    def __str__(self) -> str:
        return f"{self.machine} in {self.region}, {self.provisioning.words}"


def placements_of(machine_types: Sequence[str], settings: Settings, provisioning: Provisioning) -> list[Placement]:
    """Return every placement of a run, in the order of trial: a machine in each region, then the next machine."""
    return [
        Placement(region=region, machine=machine, provisioning=provisioning)
        for machine in machine_types
        if provisioning in machines()[machine].provisioning
        for region in settings.subnetworks
    ]


@functools.cache
def _job_id(bucket: str, run: str, number: int) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:40].rstrip("-")
    digest = hashlib.sha256(f"{bucket}\n{run}".encode()).hexdigest()[:8]
    return f"run-{name}-{digest}-{number:03d}".replace("--", "-")


@dataclass(frozen=True, slots=True, kw_only=True, config=RECORD)
class Submission:
    """Specification of one Batch job of a run."""

    run: str
    number: Whole
    created_at: Timestamp
    by: Literal["hand", "supervisor"]
    reason: str
    """Why it was submitted."""

    bucket: str
    request: dict[str, object]
    """The run's request; equal requests are one run."""

    words: list[str]
    """The command in the container."""

    settings: Settings
    machines: list[str]
    """Acceptable machine types, best first."""

    placement: Placement
    deadline: Timestamp | None
    """Deadline of the run."""

    max_usd: Amount | None
    """Limit of the whole run; there is none if `max_hours` is None too."""

    usd_per_hour: Amount | None
    """High end of the machine's price when the submission was recorded."""

    max_retries: Whole = MAX_RETRIES
    max_run_s: Whole = MAX_RUN_S
    max_hours: Amount | None = None
    """Limit of the whole run in machine hours, if a price is not known."""

    schema: Literal[1] = 1

    @property
    def job_id(self) -> str:
        """Batch's id of the job: lowercase letters, digits and hyphens, 63 at most, the first a letter."""
        return _job_id(self.bucket, self.run, self.number)

    @property
    def job_name(self) -> str:
        """The job's full name."""
        return f"projects/{self.settings.project}/locations/{self.placement.region}/jobs/{self.job_id}"

    @property
    def request_id(self) -> str:
        """UUID by which Batch recognises a repeated request."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.bucket}/runs/{self.run}/segments/{self.number}"))

    @property
    def placements(self) -> list[Placement]:
        """Every acceptable placement, in the order of trial."""
        return placements_of(self.machines, self.settings, self.placement.provisioning)

    @property
    def digest(self) -> str:
        """SHA-256 over all fields; equal submissions are the same submission."""
        content = asdict(self)
        if self.max_hours is None:
            del content["max_hours"]  # digests of older records lack the field
        if self.settings.boot_image is None:
            del content["settings"]["boot_image"]  # digests of older records lack this one, too
        if self.placement.provisioning is not Provisioning.FLEX_START:  # as older records have it
            content["placement"]["spot"] = content["placement"].pop("provisioning") is Provisioning.SPOT
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class JobRecord(Record):
    """The Batch job of a submission (``segments/NNNN.job.json``)."""

    name: str
    uid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", description="letters, digits, '-' and '_'")]
    """A part of a query to Cloud Logging."""


def _name(number: int, part: str = "") -> str:
    return f"{SUBMISSIONS}{number:04d}{part}.json"


class Submissions:
    """The submissions of a run in its bucket."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def list(self) -> list[Submission]:
        """Return the submissions in order."""
        prefix = self.run.key(SUBMISSIONS)
        return [
            self._read(stored.key)
            for stored in self.run.store.list(prefix)
            if re.fullmatch(r"\d{4,}\.json", stored.key.removeprefix(prefix))
        ]

    def write(self, submission: Submission) -> bool:
        """Record a submission before its job is created; false if another one has its number."""
        try:
            self.run.store.put(
                self.run.key(_name(submission.number)), (json.dumps(asdict(submission), indent=1) + "\n").encode()
            )
        except PreconditionError:
            return False
        return True

    def job_uid(self, number: int) -> str | None:
        """Return the uid of a submission's Batch job, once it was created; raises `CorruptObjectError`."""
        record = self.run.read(JobRecord, _name(number, ".job"))
        return record.uid if record else None

    def write_job(self, number: int, name: str, uid: str) -> None:
        """Record name and uid of a submission's Batch job."""
        self.run.write(_name(number, ".job"), JobRecord(name=name, uid=uid), overwrite=True)

    def _read(self, key: str) -> Submission:
        data = self.run.store.read(key)
        try:
            submission = TypeAdapter(Submission).validate_json(data)
        except ValidationError as error:
            refuse_newer(key, data)
            problems = validation_problems(error, Submission)
            raise CorruptObjectError(
                f"{key}: is not a submission that this version reads, {counted(len(problems), 'problem')}; use the "
                "version that wrote it, or restore the object",
                problems,
            ) from error
        owner = submission.bucket, submission.run, self.run.key(_name(submission.number))
        if owner != (self.run.store.uri, self.run.name, key):
            raise CorruptObjectError(
                f"{key}: is the record of submission {submission.number} of run {submission.run} in "
                f"{submission.bucket}; find out who put it here, and submit under another --run"
            )
        return submission


NOT_IN_ARGS = {"recipe", "dataset", "run", "device", "workdir", "notify", "arguments"}
"""Fields of a request that `container_args` renders in another form, that are decided later, or that are secret."""


def container_args(request: TrainRequest, machine: Machine) -> list[str]:
    """Return the command that requests the same training in the container, without run, dataset and bucket.

    The machine's GPUs are named one by one: a process trains on each, and one that is missing fails at once instead of
    leaving the training to the CPU. Raises `UsageError` if the request names a file of this machine, more devices, or
    what the image has not.
    """
    recipe = request.recipe
    if recipe.source != recipe.name:
        raise UsageError(
            f"--recipe {recipe.source}: is a file on this machine; pass a recipe of the image, "
            "and other values as flags"
        )
    if recipe.train["compile"]:
        raise UsageError("--compile: needs a C compiler, which the image has not; leave it out for the cloud")
    device = request.device or ",".join(map(str, range(machine.gpus)))
    if device.count(",") >= machine.gpus:
        raise UsageError(
            f"--device: names {device.count(',') + 1} devices, more than the {machine.gpus} of {machine.type}; leave "
            "it out, or choose another --machine"
        )
    if request.weights is not None and not request.weights.startswith("gs://") and is_file(request.weights):
        raise UsageError(
            f"--weights {request.weights}: is a file on this machine; copy it to the bucket and pass its gs:// address"
        )
    if request.archive is not None and not request.archive.startswith("gs://"):
        where = "is on this machine, where the cloud cannot reach it"
        raise UsageError(f"--archive {request.archive}: {where}; pass gs://BUCKET")
    fixed = as_args({"recipe": recipe.name, "device": device})
    names = [name for name in TrainRequest.model_fields if name not in NOT_IN_ARGS]
    return ["train", *fixed, *request.args(names), *as_args(request.arguments)]
