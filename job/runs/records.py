"""Typed records of a run in the bucket, and the state of an attempt that follows from them.

Guarantees that a record of any earlier version is read, that one of a newer version is refused with that reason, and
that position, last sign of life, seconds and state of an attempt are derived here alone. Knows nothing of the store.
"""

import json
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
    with_config,
)
from typing_extensions import TypedDict  # pydantic does not take that of typing before Python 3.12

from job.errors import EndReason, UnreadableRecordError
from job.goodput import Phase
from job.recipes.arguments import DEFAULTS, Arguments
from job.recipes.recipe import StartKind
from job.text import as_json, seconds_between, shortened, validation_problems
from job.training.files import BEST, STATE
from job.training.position import Position

SCHEMA = 1
"""Of records; a new required field raises it, or older versions call a record damaged. A phase or a reason of an end
that a version does not know reads as ``unknown``.
"""

NUM_SHOWN = 3
"""Problems of an object that its message names."""

METRICS = ("f1", "precision", "recall", "map50", "map50_95")

ALIVE_FOR_S, GETS_READY_FOR_S = 60.0, 1800.0
"""The newest attempt counts as running for so long after its last heartbeat, or after its claim if it has none yet."""


def now() -> str:
    """Return the time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _require_time(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a time in ISO 8601, got {text!r}") from None
    if time.tzinfo is None:
        raise ValueError("has no time zone")
    return text


Timestamp = Annotated[str, AfterValidator(_require_time)]


def refuse_newer(key: str, data: bytes) -> None:
    """Raise `UnreadableRecordError` for an object that a newer version of the job wrote."""
    try:
        schema = json.loads(data)["schema"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return
    if isinstance(schema, int) and schema > SCHEMA:
        raise UnreadableRecordError(
            f"{key}: was written by a newer version of the job (schema {schema}); update the job"
        )


class Part(BaseModel):
    """A part of a record; fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, serialize_by_alias=True)


class Record(Part):
    """One object in the bucket."""

    schema_: int = Field(default=SCHEMA, alias="schema", le=SCHEMA)

    @classmethod
    def read(cls, key: str, data: bytes) -> Self:
        """Read an object; raises `UnreadableRecordError` if a newer version wrote it, or it has another form."""
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            refuse_newer(key, data)
            problems = "; ".join(shortened(validation_problems(error, cls), NUM_SHOWN))
            raise UnreadableRecordError(
                f"{key}: has another form than this version reads, {problems}; restore the object, or use the version "
                "that wrote it"
            ) from error

    def to_json(self) -> bytes:
        """Return the object's bytes."""
        return as_json(self.model_dump(mode="json"), indent=1) + b"\n"


@dataclass(frozen=True, slots=True, order=True)
class CheckpointId:
    """A checkpoint's complete epochs, complete batches of the next one, and attempt; ordered by age."""

    epoch: int
    batch: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.epoch:04d}-{self.batch:06d}.a{self.attempt:04d}"

    @property
    def position(self) -> Position:
        """Where its training stood."""
        return Position(self.epoch, self.batch)

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


def _position(value: object) -> object:
    """Read a position; an attempt that ends before it has set up its training writes an empty one."""
    if isinstance(value, dict):
        value = {name: value[name] for name in Position._fields if name in value}
    return value or None


RecordedPosition = Annotated[
    Position | None, BeforeValidator(_position), PlainSerializer(lambda position: position and position._asdict())
]


def _by_known_phase(value: object) -> object:
    """Add up the phases of a later version as one."""
    later = value.keys() - set(Phase) if isinstance(value, dict) else ()
    if not isinstance(value, dict) or not later or not all(isinstance(value[name], int | float) for name in later):
        return value
    known = {name: s for name, s in value.items() if name not in later}
    return known | {Phase.UNKNOWN: known.get(Phase.UNKNOWN, 0.0) + sum(value[name] for name in later)}


PhaseSeconds = Annotated[dict[Phase, float], BeforeValidator(_by_known_phase)]


class CommittedFile(Part):
    """One file of a checkpoint, and the key of its bytes, which may be of an earlier checkpoint."""

    name: str
    key: str
    size_bytes: int
    sha256: str
    crc32c: str | None = None
    """CRC-32C as the bucket computes it; manifests of older versions do not have it."""


class CheckpointMetadata(Part):
    """Digests of the state and seconds of the attempt at the snapshot; further entries are kept as they are."""

    model_config = ConfigDict(extra="allow")

    digests: dict[str, str] = {}
    seconds: PhaseSeconds = {}


class Manifest(Record):
    """The object that makes a checkpoint (``manifest.json``)."""

    run: str
    epoch: NonNegativeInt
    batch: NonNegativeInt
    attempt: PositiveInt
    committed_at: Timestamp
    metadata: CheckpointMetadata = Field(alias="about")
    files: tuple[CommittedFile, ...]

    @property
    def id(self) -> CheckpointId:
        """The checkpoint's identity."""
        return CheckpointId(self.epoch, self.batch, self.attempt)

    @property
    def digest_of_state(self) -> str | None:
        """SHA-256 of the training state."""
        return next((file.sha256 for file in self.files if file.name == STATE), None)

    @property
    def size_bytes(self) -> int:
        """Bytes in all files, shared ones included."""
        return sum(file.size_bytes for file in self.files)


class SetAside(Record):
    """Unmakes a checkpoint that turned out to be damaged (``set-aside.json``)."""

    at: Timestamp | None = None
    """None if a person set it aside."""

    problems: list[str] = []


class ArchiveRecord(Record):
    """Copy of a finished run in an archive (``archived.json``)."""

    archived_at: Timestamp
    archive: str
    """Location of the second bucket or folder."""

    prefix: str
    """Of its keys there."""


class Price(Part):
    """Hourly price of an attempt's machine."""

    usd_per_h: NonNegativeFloat | None = None
    on_demand_usd_per_h: NonNegativeFloat | None = None
    machine: str = ""
    """The machine type, and whether it is Spot, as text."""

    machine_type: str | None = None
    """Google's name of the machine type; None on another machine, and in records of older versions."""

    date: str = ""


def _require_numbers(train: Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(train.get("epochs"), int):
        raise ValueError("epochs is no whole number")  # noqa: TRY004 -- pydantic collects this one
    for name in ("imgsz", "batch"):
        if not isinstance(train.get(name, 0), int | float):
            raise ValueError(f"{name} is no number")  # noqa: TRY004 -- pydantic collects this one
    return train


@with_config(ConfigDict(extra="allow", allow_inf_nan=False))
class Request(TypedDict):
    """A request to train; equal requests are one run."""

    recipe: str
    profile: Literal["full", "demo"]
    dataset: str | None
    start: str
    model: str | None
    new_classes: bool
    quarantine: bool
    train: Annotated[dict[str, Any], AfterValidator(_require_numbers)]


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """The first weights of a run."""

    kind: StartKind

    source: str | None
    """A key in the bucket, a ``gs://`` address, a file, or for ``end`` a checkpoint's folder; None from scratch."""

    architecture: str | None
    """A model file of Ultralytics; None if the weights determine it."""

    run: str | None = None
    sha256: str | None = None
    """Digest of the file once it was fetched; for ``end`` that of the checkpoint's state."""

    why: str | None = None
    """The reason for choosing this run, if the request names none."""

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.architecture} from scratch"
        return f"{self.source} as {self.architecture}" if self.architecture else self.source


class Lineage(Part):
    """The weights that a run started from, and how much of them was taken over."""

    point: InitialWeights
    transfer: dict[str, object] | None = None


class DatasetStatistics(Part):
    """Statistics of the check, over the pictures of all splits; see `job.datasets.dataset_statistics`."""

    imgsz: PositiveInt
    tiles: NonNegativeInt
    """Width and height of the tiles that training cuts pictures into, px of the file; 0 for whole pictures."""

    side_px: PositiveInt
    """Median of the longer sides of the files' pictures."""

    num_objects: PositiveInt
    num_small: NonNegativeInt
    """Objects under 16 px as training sees them: the square root of the box's area."""

    num_small_in_files: NonNegativeInt
    median_px: NonNegativeFloat
    """Median size of objects as training sees them."""

    median_in_files_px: NonNegativeFloat
    max_objects: PositiveInt
    """Most objects in a picture."""

    num_alike: NonNegativeInt = 0
    """Pictures of val that look like one of train."""

    train: dict[str, list[NonNegativeInt]] = {}
    """Objects of the split train by class, by range of size as in an evaluation; older versions did not record them."""


class PinnedDataset(Part):
    """Dataset of a run, pinned by digest."""

    name: str
    version: int | None = None
    """None for a folder that was copied in by hand; older versions did not record it."""

    digest: str
    set_aside: list[str]
    """Broken files in quarantine, which training does not read."""

    val: str | None = None
    """Digest of the validation set; older versions did not record it."""

    statistics: DatasetStatistics | None = None
    """None if nothing is labelled; older versions did not record them."""

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


class Facts(Part):
    """Decisions of the set-up, which never change; further entries are kept as they are."""

    model_config = ConfigDict(extra="allow")

    optimizer: str | None = None
    lr0: NonNegativeFloat | None = None
    """The initial learning rate, chosen by the optimizer ``auto`` or asked for; None of an imported run."""

    batch: PositiveInt
    num_train_images: PositiveInt | None = None
    """None of an imported run."""

    num_val_images: PositiveInt | None = None
    num_threads: PositiveInt
    max_det: PositiveInt
    device: str
    mosaic_stride: PositiveInt = 8
    """Batches between those that a mosaic draws from; older versions did not record it."""


class Imported(Part):
    """Origin of a run that stock Ultralytics trained."""

    folder: str
    """Name of the folder of ``yolo train``."""

    sha256: str
    """Digest of its ``best.pt``."""


class RunRecord(Record):
    """A run, frozen when it is created (``run.json``)."""

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
    """Device, driver and versions of libraries, which decide the last bits."""

    wandb_id: str
    imported: Imported | None = None

    @property
    def train(self) -> Arguments:
        """Its training arguments, all of them: a request has none of the job's own that are defaults."""
        return DEFAULTS | self.request["train"]

    @property
    def classes(self) -> list[int] | None:
        """The classes that it was trained on, by number; None for all."""
        classes = self.train["classes"]
        return [classes] if isinstance(classes, int) else classes


class LastCommitted(Part):
    """An attempt's newest commit, and its seconds when the snapshot was taken."""

    checkpoint: CheckpointName
    seconds: PhaseSeconds


class Observations(Part):
    """Observations that decide whether a result is exact; see `job.runs.resume.exactness`."""

    warnings: list[str] = []
    num_ooms: int = 0


class ResumeReceipt(Part):
    """A resumption: its checkpoint, the digests of the saved and the loaded state by group, and what was lost."""

    run: str = ""
    checkpoint: CheckpointName
    position: RecordedPosition = None
    saved: dict[str, str] = {}
    loaded: dict[str, str] = {}
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
    price: Annotated[Price, BeforeValidator(lambda value: value or Price())] = Price()
    host: str = ""
    pid: int | None = None
    cloud_job: str | None = None
    machine: str = ""
    """System and cores, as text."""

    booted_at: Timestamp | None = None
    """Start of the machine's kernel, as far as the system says."""

    image_pull_s: NonNegativeFloat | None = None
    """Seconds of pulling the container image, where it was measured."""


class AttemptStart(Record):
    """An attempt that is ready to train (``attempts/NNNN.start.json``)."""

    started_at: Timestamp
    environment: dict[str, object] = {}
    differs: list[str] = []
    receipt: ResumeReceipt | None = None
    steps_lost: NonNegativeInt = 0
    """Steps of the attempt before, if it committed nothing and training begins again."""


class Progressing(Record):
    """The training of an attempt, in a heartbeat and in an end."""

    position: RecordedPosition = None
    evidence: Observations | None = None
    best_f1: NonNegativeFloat | None = None
    """F1 of the best weights so far; None before the first epoch. Older versions did not record it."""

    seconds: PhaseSeconds | None = None


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
    def position(self) -> Position | None:
        """How far its training got, by its records."""
        return next((record.position for record in (self.end, self.heartbeat) if record and record.position), None)

    @property
    def best_f1(self) -> float | None:
        """F1 of the best weights so far, by its records."""
        found = (record.best_f1 for record in (self.end, self.heartbeat) if record and record.best_f1 is not None)
        return next(found, None)

    @property
    def seconds(self) -> PhaseSeconds:
        """Its recorded seconds by phase; without a record, all are start-up."""
        last = self.end or self.heartbeat
        if last and last.seconds is not None:
            return {label: max(0.0, s) for label, s in last.seconds.items()}
        return {Phase.START_UP: seconds_between(self.began_at, self.last_sign_at)}

    @property
    def observations(self) -> Observations:
        """The observations of its training so far."""
        found = (record.evidence for record in (self.end, self.heartbeat) if record and record.evidence)
        return next(found, Observations())

    @property
    def receipt(self) -> ResumeReceipt | None:
        """The receipt of its resumption, if it resumed."""
        return self.start.receipt if self.start else None

    @property
    def steps_lost_before(self) -> int:
        """Steps of the attempt before that it trains again."""
        return self.receipt.steps_lost if self.receipt else self.start.steps_lost if self.start else 0

    def state(self, *, newest: bool, at: str | None = None) -> EndReason:
        """Return its end reason, or `RUNNING` or `VANISHED` without an end record.

        The newest attempt runs if its last sign of life is recent at a time `at`, or without one.
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


def _requires(*names: str) -> AfterValidator:
    """Let a mapping be valid only if it has these keys."""

    def check(value: Mapping[str, object]) -> Mapping[str, object]:
        if missing := [name for name in names if name not in value]:
            raise ValueError(f"lacks {', '.join(missing)}")
        return value

    return AfterValidator(check)


Metrics = Annotated[dict[str, float], _requires(*METRICS)]


def _with_whole_epoch(row: Mapping[str, float]) -> dict[str, object]:
    return {name: int(value) if name == "epoch" else value for name, value in row.items()}


class BeforeAfterRecord(Part):
    """Metrics of the start weights and of the best weights, on the same validation set."""

    before: Metrics | None
    """None of an imported run."""

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


class FinalRecord(Record):
    """How a run ended: ``complete`` or ``stopped early`` (``final.json``)."""

    finished_at: Timestamp
    attempt: PositiveInt
    profile: Literal["full", "demo"] = "full"
    reason: str
    num_epochs: PositiveInt
    best_epoch: PositiveInt
    train_s: NonNegativeFloat
    bits: Exactness = Exactness()
    comparison: BeforeAfterRecord
    course: list[Annotated[Metrics, PlainSerializer(_with_whole_epoch)]]
    """Metrics after each epoch, and its number, from 1."""

    weights: Annotated[dict[str, WeightsDigests], _requires(BEST)]


def differences(
    existing: Mapping[str, Any],
    asked: Mapping[str, Any],
    verbs: tuple[str, str] = ("the run has", "asked for"),
    prefix: str = "",
) -> list[str]:
    """Describe how two requests differ, one sentence for each key; `verbs` stand before the two values."""
    found: list[str] = []
    for key in [*existing, *(key for key in asked if key not in existing)]:
        old, new = existing.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, verbs, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {verbs[0]} {old!r}, {verbs[1]} {new!r}")
    return found
