"""Option groups that several commands share: bucket, price, target, cloud, limits."""

import json
import math
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from job.cloud.budget import Limit
from job.cloud.machine_types import Machine, Provisioning, find_machine
from job.cloud.prices import usd_per_hour
from job.cloud.settings import known_settings
from job.errors import UsageError
from job.recipes.arguments import MAX_IMGSZ, validation_tiles
from job.recipes.recipe import Profile
from job.runs.flags import Options, Problem, WorkdirOption, reads
from job.runs.records import RunRecord
from job.storage.object_store import Store
from job.storage.open_store import open_output, open_store
from job.storage.workdir import require_writable


class BucketOption(Options):
    """The bucket."""

    bucket: str | None = Field(None, description="gs://BUCKET/PREFIX or a folder; JOB_BUCKET if left out.")

    @property
    def location(self) -> str | None:
        """The bucket of the command line, or of the environment."""
        return self.bucket or os.environ.get("JOB_BUCKET") or None

    def require_location(self) -> str:
        """Return the bucket's location; raises `UsageError` if none was named."""
        if self.location is None:
            raise UsageError("bucket: none was named; pass --bucket gs://BUCKET or a folder, or set JOB_BUCKET")
        return self.location

    def store(self) -> Store:
        """Open the bucket; raises `UsageError` if none was named."""
        return open_store(self.require_location())

    def store_for(self, profile: Profile) -> Store:
        """Open the bucket; a folder for the demo is made."""
        return open_output(self.require_location()) if profile == "demo" else self.store()


class JsonOption(Options):
    """Output for programs."""

    as_json: bool = Field(default=False, alias="json", description="Print the same as JSON, for programs.")

    def print(self, content: object, lines: Iterable[str]) -> None:
        """Print content as JSON, or lines for people."""
        print(json.dumps(content, indent=1) if self.as_json else "\n".join(lines))


class RunOptions(BucketOption):
    """A run of the bucket."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: str = Field(description="The run's name.")


class DeviceOption(WorkdirOption):
    """The device of a model that is not trained."""

    device: str = Field("", description="cpu, or the number of a GPU; chosen if left out.")

    @field_validator("device")
    @classmethod
    def _require_one_device(cls, device: str) -> str:
        if "," in device:
            raise ValueError(f"must be one device, got {device!r}")
        return device

    def require_device(self) -> None:
        """Raise `MachineError` if a device is named that this machine does not have, before any result is written."""
        if self.device in {"", "cpu"}:
            return
        require_writable(self.workdir)
        from job.training.isolation import isolate_ultralytics

        isolate_ultralytics(self.workdir / "ultralytics")
        from job.training.device import find_device

        find_device(self.device)


class TilesOption(Options):
    """Tiles of pictures that a model looks at besides."""

    tiles: Annotated[int, Field(ge=0, le=MAX_IMGSZ)] | None = Field(
        None,
        description="Looks at tiles of this many pixels besides, for small objects in large pictures; 0 at none, and "
        "as in validation if left out.",
    )

    def tiles_for(self, record: RunRecord) -> int | None:
        """Return the size of tiles for a run's model; None for none."""
        in_validation, _ = validation_tiles(record.train)
        return in_validation if self.tiles is None else self.tiles or None


MACHINE_HELP = (
    "l4, a100, a100-80, h100, t4, l4x2 and the like with 2, 4 or 8 GPUs, or a machine type; several with commas are "
    "tried in turn."
)

Share = Annotated[float, Field(gt=0, le=1, description="a number above 0 and up to 1")]

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False, description="an amount in dollars, such as 0.35")]

Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number of dollars")]


class PriceOption(Options):
    """The price of a machine."""

    usd_per_hour: Usd | None = Field(
        None,
        description="Dollars that an hour of the machine costs. If left out: the price on record of the machine that "
        "is named, or else JOB_USD_PER_HOUR.",
    )

    def price_of(self, machine: str | None = None) -> float | None:
        """Return the price of an hour, if it is known, of this machine or of a type; with ``-spot`` the Spot price."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour
        if machine is None:
            return usd_per_hour()
        kind = machine.removesuffix("-spot")
        provisioning = Provisioning.ON_DEMAND if kind == machine else Provisioning.SPOT
        return find_machine(kind.removesuffix("-on-demand")).usd_per_hour(provisioning)


def _read_fraction(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ValueError(f"must be a fraction of 1 such as 0.72, or 72%, got {text!r}")
    return value


class TargetOption(Options):
    """The goal of advice and campaigns."""

    target_f1: Annotated[float, reads(_read_fraction)] = Field(0.72, description="The F1 to reach, 0.72 or 72%.")


class ProvisioningOptions(Options):
    """How the machine of a job is provisioned; on Spot by default."""

    on_demand: bool = Field(default=False, description="Pay the full price for a machine that is not preempted.")
    flex_start: bool = Field(
        default=False,
        description="Wait for a machine that is not preempted, below the full price (A100, H100; 7 days at most).",
    )

    @property
    def provisioning(self) -> Provisioning:
        """The kind of provisioning."""
        if self.flex_start:
            return Provisioning.FLEX_START
        return Provisioning.ON_DEMAND if self.on_demand else Provisioning.SPOT

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        if self.on_demand and self.flex_start:
            raise Problem(UsageError("--on-demand: contradicts --flex-start; pass one of them"))
        return self

    def require_offered(self, machines: Iterable[Machine]) -> None:
        """Raise `UsageError` unless each of the machines is to be had so."""
        for machine in machines:
            if self.provisioning not in machine.provisioning:
                flag = f"--{self.provisioning.replace('_', '-')}"
                kinds = " or ".join(kind.words for kind in machine.provisioning)
                raise UsageError(f"{flag}: {machine.type} is to be had by {kinds} only; choose another --machine")


class CloudOptions(BucketOption):
    """Settings of the cloud; read from infra/outputs.json, then cloud.yaml, then flags."""

    bucket: str | None = Field(None, description="gs://BUCKET/PREFIX; JOB_BUCKET, or the settings, if left out.")
    project: str | None = Field(None, description="The project's id.")
    region: str | None = Field(None, description="Region of the job and its machines; near the bucket.")
    image: str | None = Field(
        None,
        description="REPOSITORY/NAME@sha256:DIGEST, or NAME@sha256:DIGEST in the repository of infra/outputs.json.",
    )
    service_account: str | None = Field(None, description="The e-mail address that the training runs as.")
    network: str | None = Field(None, description="projects/P/global/networks/NAME.")
    subnetwork: str | None = Field(None, description="projects/P/regions/R/subnetworks/NAME.")
    wandb_secret: str | None = Field(None, description="The secret with the W&B key, projects/P/secrets/NAME.")
    boot_image: str | None = Field(None, description="What machines boot, projects/P/global/images/NAME.")

    @property
    def settings(self) -> dict[str, object]:
        """The settings that were given as flags, by name, in the order of the flags."""
        names = [name for name in CloudOptions.model_fields if name != "bucket"]
        return {name: str(getattr(self, name)) for name in names if getattr(self, name) is not None}

    def require_location(self) -> str:
        """Return the bucket of flags, environment or settings; raises `UsageError` if the cloud cannot reach it."""
        location = self.location
        if location is None:
            found = known_settings(self.settings).get("bucket")
            if not isinstance(found, str):
                why = "none was named; pass --bucket gs://BUCKET, set JOB_BUCKET, or write it to cloud.yaml"
                raise UsageError(f"bucket: {why}")
            location = found if "://" in found else f"gs://{found}"
        if not location.startswith("gs://"):
            why = "is on this machine, where the cloud cannot reach it; pass gs://BUCKET"
            raise UsageError(f"bucket {location}: {why}")
        return location


class SubmittedRunOptions(CloudOptions, RunOptions):
    """A run that was submitted to the cloud."""


def _read_deadline(text: str) -> str:
    """Read ``12h`` from now, or a time; without a zone it is this machine's."""
    try:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)h", text):
            due = datetime.now(UTC) + timedelta(hours=float(match[1]))
        else:
            due = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        what = "hours from now such as 12h, or a time such as 2026-12-24T18:00"
        raise ValueError(f"must be {what}, got {text!r}") from error
    if due <= datetime.now(UTC):
        raise ValueError(f"has passed, got {text!r}")
    return due.isoformat(timespec="seconds")


Deadline = Annotated[str, reads(_read_deadline)]


class LimitOptions(Options):
    """Cost limit of a run in the cloud."""

    max_usd: Dollars | None = Field(
        None,
        description="Dollars that its machines may cost. If left out: 50, or 48 hours of machines whose price is not "
        "known, or max_usd and max_hours of cloud.yaml.",
    )
    no_limit: bool = Field(default=False, description="Set no limit to the cost.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.no_limit and self.max_usd is not None:
            why = f"--max-usd: {self.max_usd:g} and --no-limit contradict each other; pass one of them"
            raise Problem(UsageError(why))
        return self

    @property
    def limit(self) -> Limit | None:
        """The limit of the command line, if there is one."""
        if self.no_limit:
            return Limit()
        return None if self.max_usd is None else Limit(usd=self.max_usd)
