"""Typed records of a run in the bucket, and the values derived from them.

Guarantees that a record of any earlier version is read, that one of a newer version is refused with that reason, and
that position, last sign of life, seconds and state of an attempt are derived here alone. Knows nothing of the store.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    ValidationError,
    field_validator,
    with_config,
)
from typing_extensions import TypedDict  # pydantic does not take that of typing before Python 3.12

from job.errors import EndReason, UnreadableRecordError
from job.goodput import Phase
from job.text import seconds_between

SCHEMA = 1

METRICS = ("f1", "precision", "recall", "map50", "map50_95")

ALIVE_FOR_S, GETS_READY_FOR_S = 60.0, 1800.0
"""Seconds for which the newest attempt counts as running after its last heartbeat, or after its claim if it has none.
"""


def now() -> str:
    """Return the time as text, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _require_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Timestamp = Annotated[str, AfterValidator(_require_time)]


class _NewerSchemaError(ValueError):
    """A newer version of the job wrote the record."""


def _newer(key: str, schema: object) -> UnreadableRecordError:
    return UnreadableRecordError(f"{key}: was written by a newer version of the job ({schema}); update the job")


def refuse_newer(key: str, content: object) -> None:
    """Check the schema of an object's content that is not read as a `Record`.

    Raises:
        UnreadableRecordError: If a newer version of the job wrote it.
    """
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise _newer(key, f"schema {schema}")


class Part(BaseModel):
    """A part of a record; fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, serialize_by_alias=True)


class Record(Part):
    """One object in the bucket."""

    schema_: int = Field(default=SCHEMA, alias="schema")

    @field_validator("schema_")
    @classmethod
    def _require_known(cls, value: int) -> int:
        if value > SCHEMA:
            raise _NewerSchemaError(f"schema {value}")
        return value

    @classmethod
    def read(cls, key: str, data: bytes) -> Self:
        """Read an object.

        Raises:
            UnreadableRecordError: If a newer version of the job wrote it, or it has another form.
        """
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False)
            for each in found:
                if isinstance(cause := each.get("ctx", {}).get("error"), _NewerSchemaError):
                    raise _newer(key, cause) from error
            problem = ": ".join(filter(None, (".".join(map(str, found[0]["loc"])), found[0]["msg"])))
            more = f" and {len(found) - 1} more" if found[1:] else ""
            raise UnreadableRecordError(
                f"{key}: has another form than this version reads, {problem}{more}; restore the object, or use the "
                "version that wrote it"
            ) from error

    def to_json(self) -> bytes:
        """Return the object's bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True, order=True)
class CheckpointId:
    """Position and attempt of a checkpoint; ordered by age."""

    epoch: int
    """Complete epochs."""

    batch: int
    """Complete batches of the next epoch."""

    attempt: int

    def __str__(self) -> str:
        return f"{self.epoch:04d}-{self.batch:06d}.a{self.attempt:04d}"

    @property
    def position(self) -> tuple[int, int]:
        """Complete epochs, and complete batches of the next."""
        return self.epoch, self.batch

    @property
    def description(self) -> str:
        """The position as text."""
        return f"epoch {self.epoch}" if not self.batch else f"batch {self.batch} of epoch {self.epoch + 1}"

    @classmethod
    def parse(cls, name: str) -> "CheckpointId | None":
        """Parse the name that `str` returns; None for any other text."""
        match = re.fullmatch(r"(\d{4,})-(\d{6,})\.a(\d{4,})", name)
        return cls(int(match[1]), int(match[2]), int(match[3])) if match else None


def _checkpoint_id(value: object) -> object:
    found = CheckpointId.parse(value) if isinstance(value, str) else value
    if found is None:
        raise ValueError("is not the name of a checkpoint")
    return found


CheckpointName = Annotated[CheckpointId, BeforeValidator(_checkpoint_id), PlainSerializer(str)]


class Position(Part):
    """Position of training in a run."""

    epoch: NonNegativeInt
    """Complete epochs."""

    batch: NonNegativeInt
    """Complete batches of the next epoch."""


KnownPosition = Annotated[Position | None, BeforeValidator(lambda value: value or None)]
"""An attempt that ends before it has set up its training writes an empty one."""

Seconds = dict[Phase, float]


class CheckpointFile(Part):
    """One file of a checkpoint, and the key of its bytes, which may be of an earlier checkpoint."""

    name: str
    key: str
    size_bytes: int
    sha256: str
    crc32c: str | None = None
    """CRC-32C as the bucket computes it; manifests of older versions do not have it."""


class CheckpointMetadata(Part):
    """Metadata of a checkpoint in its manifest; further entries are kept unchanged."""

    model_config = ConfigDict(extra="allow")

    digests: dict[str, str] = {}
    seconds: Seconds = {}
    """The attempt's seconds at the snapshot."""


class Manifest(Record):
    """The object that makes a checkpoint (``manifest.json``)."""

    run: str
    epoch: NonNegativeInt
    batch: NonNegativeInt
    attempt: PositiveInt
    committed_at: Timestamp
    metadata: CheckpointMetadata = Field(alias="about")
    files: tuple[CheckpointFile, ...]

    @property
    def id(self) -> CheckpointId:
        """The checkpoint's identity."""
        return CheckpointId(self.epoch, self.batch, self.attempt)

    @property
    def size_bytes(self) -> int:
        """Bytes in all files, shared ones included."""
        return sum(file.size_bytes for file in self.files)


class SetAside(Record):
    """Unmakes a checkpoint that turned out to be damaged (``set-aside.json``)."""

    at: Timestamp | None = None
    """None if a person set it aside."""

    problems: list[str] = []


class Price(Part):
    """Hourly price of an attempt's machine."""

    usd_per_h: NonNegativeFloat | None = None
    on_demand_usd_per_h: NonNegativeFloat | None = None
    machine: str = ""
    """The machine type, and whether it is Spot, as text."""

    machine_type: str | None = None
    """Google's name of the machine type; None on another machine, and in records of older versions."""

    date: str = ""
    """Date of the price."""


def _require_numbers(train: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(train.get("epochs"), int):
        raise ValueError("epochs is no whole number")  # noqa: TRY004 -- pydantic collects this one
    for name in ("imgsz", "batch"):
        if not isinstance(train.get(name, 0), int | float):
            raise ValueError(f"{name} is no number")  # noqa: TRY004 -- pydantic collects this one
    return train


@with_config(ConfigDict(extra="allow", allow_inf_nan=False))
class Request(TypedDict):
    """Request to train; equal requests are one run."""

    recipe: str
    profile: Literal["full", "demo"]
    dataset: str | None
    start: str
    model: str | None
    new_classes: bool
    quarantine: bool
    train: Annotated[dict[str, Any], AfterValidator(_require_numbers)]
    """Every training argument."""


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Start weights of a run."""

    kind: str
    """``own``, ``pretrained``, ``scratch`` or ``end``, as in `job.recipes.recipe.Start`."""

    source: str | None
    """A key in the bucket, a ``gs://`` address or a local file; None for a start from scratch. For ``end`` the
    folder of a checkpoint.
    """

    architecture: str | None
    """A model file of Ultralytics; None if the weights determine it."""

    run: str | None = None
    """The run that the weights come from."""

    sha256: str | None = None
    """Digest of the file once it was fetched; for ``end`` that of the checkpoint's state."""

    why: str | None = None
    """The reason for choosing this run, if the request names none."""

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.architecture} from scratch"
        return f"{self.source} as {self.architecture}" if self.architecture else self.source


class Lineage(Part):
    """Start weights of a run, and how much of them was taken over."""

    point: InitialWeights
    transfer: dict[str, object] | None = None
    """The transferred share; see `job.training.weights.Transfer`."""


class PinnedDataset(Part):
    """Dataset of a run, pinned by digest."""

    name: str
    digest: str
    set_aside: list[str]
    """Broken files in quarantine, which training does not read."""

    val: str | None = None
    """Digest of the validation set; older versions did not record it."""


class Facts(Part):
    """Values that set-up decided and that never change; further entries are kept unchanged."""

    model_config = ConfigDict(extra="allow")

    optimizer: str | None = None
    batch: PositiveInt
    num_train_images: PositiveInt
    num_val_images: PositiveInt
    num_threads: PositiveInt
    max_det: PositiveInt
    device: str


class RunRecord(Record):
    """Definition of a run, frozen at its creation (``run.json``)."""

    run: str
    created_at: Timestamp
    request: Request
    recipe_digest: str
    expect: dict[str, tuple[float | None, float | None]]
    """Expected band of the recipe's authors by metric: low and high."""

    start: Lineage
    dataset: PinnedDataset
    facts: Facts
    environment: dict[str, object]
    """Device, driver and library versions, which decide the last bits of a result."""

    wandb_id: str


class LastCommitted(Part):
    """An attempt's newest commit."""

    checkpoint: CheckpointName
    seconds: Seconds
    """The attempt's seconds at the snapshot."""


class Observations(Part):
    """Warnings and failed allocations, which decide exactness; see `job.runs.resume.exactness`."""

    warnings: list[str] = []
    num_ooms: int = 0


class ResumeReceipt(Part):
    """Receipt of a resumption: checkpoint, digests, lost steps."""

    run: str = ""
    checkpoint: CheckpointName
    position: Position | None = None
    saved: dict[str, str] = {}
    """Digests of the state in the checkpoint, by group."""

    loaded: dict[str, str] = {}
    """Digests of the state after loading."""

    steps_lost: NonNegativeInt = 0
    seconds_lost: NonNegativeFloat = 0.0


class AttemptClaim(Record):
    """An attempt and its machine (``attempts/NNNN.json``)."""

    attempt: PositiveInt
    claimed_at: Timestamp
    nonce: str = ""
    """Makes the bytes of two claims differ, so that one of them loses."""

    previous_ended: dict[str, object] | None = None
    process_age_s: NonNegativeFloat = 0.0
    price: Price = Price()
    host: str = ""
    pid: int | None = None
    cloud_job: str | None = None
    """The id of its Batch job."""

    machine: str = ""
    """System and cores, as text."""

    @field_validator("price", mode="before")
    @classmethod
    def _unknown_price(cls, value: object) -> object:
        return Price() if value is None else value


class AttemptStart(Record):
    """Start of an attempt, ready to train (``attempts/NNNN.start.json``)."""

    started_at: Timestamp
    environment: dict[str, object] = {}
    differs: list[str] = []
    receipt: ResumeReceipt | None = None


class Progressing(Record):
    """Common fields of a heartbeat and an end."""

    position: KnownPosition = None
    evidence: Observations | None = None
    seconds: Seconds | None = None


class Heartbeat(Progressing):
    """Last heartbeat (``attempts/NNNN.pulse.json``)."""

    at: Timestamp
    last_committed: LastCommitted | None = Field(default=None, alias="kept")
    checkpoints: dict[str, object] | None = None


class StopRequest(Record):
    """A person's request to commit and end as paused (``attempts/NNNN.stop.json``)."""

    asked_at: Timestamp
    host: str = ""


class AttemptEnd(Progressing):
    """End of an attempt and its reason (``attempts/NNNN.end.json``)."""

    ended_at: Timestamp
    reason: EndReason
    exit_code: int | None = None
    message: str = ""
    error: str | None = None
    """The name of the exception."""

    traceback: str | None = None
    not_committed: str = ""
    """Trained steps that no checkpoint has, and why."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """All records of an attempt."""

    claim: AttemptClaim
    start: AttemptStart | None = None
    heartbeat: Heartbeat | None = None
    stop: StopRequest | None = None
    end: AttemptEnd | None = None

    @property
    def number(self) -> int:
        """Number of the attempt, from 1."""
        return self.claim.attempt

    @property
    def machine(self) -> str:
        """Machine type and whether it is Spot if known, else system and cores; as text."""
        return self.claim.price.machine or self.claim.machine

    @property
    def machine_type(self) -> str | None:
        """Google's name of the machine type, if it is one."""
        price = self.claim.price
        return price.machine_type or price.machine.partition(",")[0] or None

    @property
    def began_at(self) -> str:
        """Start of its process."""
        claimed = datetime.fromisoformat(self.claim.claimed_at)
        return (claimed - timedelta(seconds=self.claim.process_age_s)).isoformat(timespec="milliseconds")

    @property
    def last_sign_at(self) -> str:
        """Time of its end, or else of its last heartbeat, start or claim."""
        if self.end:
            return self.end.ended_at
        if self.heartbeat:
            return self.heartbeat.at
        return self.start.started_at if self.start else self.claim.claimed_at

    @property
    def position(self) -> tuple[int, int] | None:
        """Furthest known position: complete epochs, and complete batches of the next."""
        for record in (self.end, self.heartbeat):
            if record and record.position:
                return record.position.epoch, record.position.batch
        return None

    @property
    def seconds(self) -> Seconds:
        """Its recorded seconds by phase; without a record, all are start-up."""
        last = self.end or self.heartbeat
        if last and last.seconds is not None:
            return {label: max(0.0, s) for label, s in last.seconds.items()}
        return {Phase.START_UP: seconds_between(self.began_at, self.last_sign_at)}

    @property
    def observations(self) -> Observations:
        """Observations of its newest record."""
        found = (record.evidence for record in (self.end, self.heartbeat) if record and record.evidence)
        return next(found, Observations())

    @property
    def receipt(self) -> ResumeReceipt | None:
        """Receipt of its resumption, if it resumed."""
        return self.start.receipt if self.start else None

    def state(self, *, newest: bool, at: str | None = None) -> EndReason:
        """Return its end reason, or `RUNNING` or `VANISHED` without an end record.

        Args:
            newest: No later attempt has claimed the run.
            at: The time that decides between running and vanished; without one, the newest counts as running.
        """
        if self.end:
            return self.end.reason
        allowed_s = ALIVE_FOR_S if self.heartbeat else GETS_READY_FOR_S
        alive = newest and (at is None or seconds_between(self.last_sign_at, at) < allowed_s)
        return EndReason.RUNNING if alive else EndReason.VANISHED

    def to_json(self) -> dict[str, object]:
        """Return the claim, and the other records under the names of their objects."""
        parts = {"start": self.start, "pulse": self.heartbeat, "stop": self.stop, "end": self.end}
        dumped = {name: part and part.model_dump(mode="json", exclude_unset=True) for name, part in parts.items()}
        return self.claim.model_dump(mode="json", exclude_unset=True) | dumped


def _require_metrics(metrics: dict[str, float]) -> dict[str, float]:
    if missing := [name for name in METRICS if name not in metrics]:
        raise ValueError(f"lacks {', '.join(missing)}")
    return metrics


Metrics = Annotated[dict[str, float], AfterValidator(_require_metrics)]


class BeforeAfterRecord(Part):
    """Metrics of the start weights and of the best weights, on the same validation set."""

    before: Metrics
    after: Metrics
    change: dict[str, float] = {}
    expected: dict[str, tuple[float | None, float | None]] = {}
    reached: dict[str, bool] = {}


class Exactness(Part):
    """Whether all attempts of a run can be compared bit by bit, or from which on they cannot, and why."""

    exact: bool = True
    from_attempt: int | None = None
    because: list[str] = []


class WeightsDigests(Part):
    """Digests of a file of weights."""

    sha256: str
    tensors: str | None = None


def _require_best(weights: dict[str, WeightsDigests]) -> dict[str, WeightsDigests]:
    if "best.pt" not in weights:
        raise ValueError("lacks best.pt")
    return weights


class FinalRecord(Record):
    """Result of a finished run (``final.json``)."""

    finished_at: Timestamp
    attempt: PositiveInt
    profile: Literal["full", "demo"] = "full"
    reason: str
    """``complete`` or ``stopped early``."""

    num_epochs: PositiveInt
    best_epoch: PositiveInt
    train_s: NonNegativeFloat
    bits: Exactness = Exactness()
    comparison: BeforeAfterRecord
    course: list[Metrics]
    """Metrics after each epoch."""

    weights: Annotated[dict[str, WeightsDigests], AfterValidator(_require_best)]
    """Digests by file name."""


def differences(existing: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Describe how two requests differ, one sentence for each key."""
    found: list[str] = []
    for key in [*existing, *(key for key in asked if key not in existing)]:
        old, new = existing.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: the run has {old!r}, asked for {new!r}")
    return found
