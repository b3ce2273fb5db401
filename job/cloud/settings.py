"""Cloud settings: project, region, image, identities and network.

Guarantees that loaded settings are complete and well-formed, and that others are refused with every problem at once.
Flags win over ``cloud.yaml``, and that over Terraform's ``infra/outputs.json``.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.dataclasses import dataclass

from job.cloud.machine_types import Provisioning, machines
from job.errors import MachineError
from job.runs.notification import Notify
from job.storage.regular_file import open_regular
from job.text import counted, describe_field, load_yaml, nearest, shown, validation_problems

OUTPUTS = Path("infra/outputs.json")
"""``terraform output -json``."""

FILE = Path("cloud.yaml")

FROM_OUTPUT = {"runtime_service_account": "service_account"}
"""Terraform's outputs whose setting has another name."""

IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[\w.-]+)+@sha256:[0-9a-f]{64}")
"""By digest: the attempts of a run must not differ because a tag was moved."""

PATH = r"(https://\S+/)?projects/[^/]+/"
"""Begin of a resource's path, with the address of an API or without."""

RECORD = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""A record is data that any writer of the bucket can change: no value is converted, and no field is passed over."""

Amount = Annotated[int | float, Field(ge=0, description="a number of at least 0")]
"""Keeps the number's type, and with it the digests of records that have whole dollars."""


@dataclass(frozen=True, slots=True, kw_only=True, config=RECORD)
class Settings:
    """Project, region, image, identities and network of a submission."""

    project: str
    region: str
    image: str
    """By digest; empty for a check of a project that has none yet."""

    service_account: str
    network: str
    subnetwork: str
    wandb_secret: str | None = None
    boot_image: str | None = None
    """Boot image of the machines, with container and driver inside; Batch's own if left out."""

    other_regions: dict[str, str]
    """Further regions near the bucket, each with its subnetwork."""

    prices: dict[str, dict[str, Amount]]
    """Dollars an hour by machine type, under ``spot``, ``flex_start`` and ``on_demand``: the user's own prices."""

    @property
    def subnetworks(self) -> dict[str, str]:
        """Subnetworks by region, the main region first."""
        return {self.region: self.subnetwork, **self.other_regions}


def _form(pattern: str, description: str) -> Any:  # noqa: ANN401 -- as pydantic's Field
    """Return a constraint of text: its pattern, and the pattern's description for messages."""
    return Field(pattern=f"^(?:{pattern})$", description=description)


def _check_machine(type_: str) -> str:
    if type_ not in machines():
        raise ValueError(f"there is no such machine{nearest(type_, list(machines()))}")
    return type_


Project = Annotated[str, _form(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id")]
Region = Annotated[str, _form(r"[a-z]+-[a-z]+\d+", "a region such as us-central1")]
Image = Annotated[str, _form(IMAGE.pattern, "an image by digest, REPOSITORY/NAME@sha256:...")]
Account = Annotated[
    str, _form(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", "the e-mail address of a service account")
]
Network = Annotated[str, _form(PATH + "global/networks/[a-z0-9-]+", "projects/P/global/networks/NAME")]
Subnetwork = Annotated[
    str, _form(PATH + "regions/[^/]+/subnetworks/[a-z0-9-]+", "projects/P/regions/R/subnetworks/NAME")
]
Secret = Annotated[
    str,
    _form(r"projects/[^/]+/secrets/[\w-]+/versions/(\d+|latest)", "projects/P/secrets/NAME, perhaps with /versions/N"),
]
BootImage = Annotated[str, _form(PATH + "global/images/[a-z][a-z0-9-]*", "projects/P/global/images/NAME")]
Archive = Annotated[str, _form(r"gs://[a-z0-9][a-z0-9._/-]+", "gs://BUCKET")]
Positive = Annotated[int | float, Field(gt=0, description="a positive number")]
Machine = Annotated[str, AfterValidator(_check_machine)]
Kind = Annotated[str, _form("|".join(Provisioning), f"one of {', '.join(Provisioning)}")]


class LocalSettings(BaseModel):
    """The settings of flags and files, validated; ``None`` for a missing one."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    project: Project
    region: Region
    image: Image | None = None
    service_account: Account | None = None
    network: Network | None = None
    subnetwork: Subnetwork | None = None
    wandb_secret: Secret | None = None
    boot_image: BootImage | None = None
    image_repository: str | None = None
    other_regions: dict[Region, Subnetwork] = {}
    prices: dict[Machine, dict[Kind, Positive]] = {}
    archive: Archive | None = None
    """Second bucket, to which finished runs are copied."""

    max_usd: Positive = 50.0
    """Default limit of a run over all its machines."""

    max_hours: Positive = 48.0
    """Default limit of machine hours, if a price is not known; of a machine with several GPUs, as much less."""

    notify: Notify | None = None
    """Webhook of the supervisor."""

    @property
    def subnetworks(self) -> dict[str, str | None]:
        """Subnetworks by region, the main region first."""
        return {self.region: self.subnetwork, **self.other_regions}

    @field_validator("subnetwork")
    @classmethod
    def _is_in_region(cls, subnetwork: str, others: ValidationInfo) -> str:
        region = others.data.get("region")
        if region is not None and f"/regions/{region}/" not in subnetwork:
            raise ValueError(f"must be in the region {region}, got {subnetwork!r}")
        return subnetwork

    @field_validator("other_regions")
    @classmethod
    def _are_in_regions(cls, subnetworks: dict[str, str]) -> dict[str, str]:
        wrong = {region: name for region, name in subnetworks.items() if f"/regions/{region}/" not in name}
        if wrong:
            raise ValueError(f"must map each region to a subnetwork in it, got {wrong!r}")
        return subnetworks


REQUIRED = ("project", "region", "image", "service_account", "network", "subnetwork")
"""Settings that a submission needs."""

WITHOUT_IMAGE = tuple(name for name in REQUIRED if name != "image")
"""Settings of a project that has no image yet."""


def load_settings(flags: Mapping[str, object], required: Collection[str] = REQUIRED) -> Settings:
    """Return the settings of a new submission, by `local_settings`; flags go by the names of settings."""
    found = local_settings(flags, required)
    names = [*REQUIRED, "wandb_secret", "boot_image", "other_regions", "prices"]
    return Settings(**{name: getattr(found, name) for name in names} | {"image": found.image or ""})


def local_settings(flags: Mapping[str, object], required: Collection[str] = ("project", "region")) -> LocalSettings:
    """Return the settings of flags and files, the required ones among them; `MachineError` lists every problem."""
    given = {name: value for name, value in known_settings(flags).items() if value not in (None, "")}
    image, repository, secret = (given.get(name) for name in ("image", "image_repository", "wandb_secret"))
    if isinstance(image, str) and "/" not in image and isinstance(repository, str):
        given["image"] = f"{repository}/{image}"
    if isinstance(secret, str):
        path = secret if "/" in secret else f"projects/{given.get('project')}/secrets/{secret}"
        given["wandb_secret"] = path if "/versions/" in path else f"{path}/versions/latest"
    missing = [name for name in required if name not in given]
    problems = [
        f"{name}: is missing, {describe_field(LocalSettings, name)}; pass --{name.replace('_', '-')}, or write it to "
        f"{FILE}"
        for name in missing
    ]
    try:
        found = LocalSettings.model_validate(given)
    except ValidationError as error:
        malformed = validation_problems(error, LocalSettings)
        problems += [problem for problem in malformed if problem.partition(":")[0] not in missing]
    if problems:
        raise MachineError(
            f"cloud settings: {counted(len(problems), 'problem')}; `make infra-apply` writes most of them to {OUTPUTS}",
            problems,
        )
    return found


def exported_settings(flags: Mapping[str, object]) -> str:
    """Return the settings of flags and files as JSON, but for the webhook, whose address is a secret.

    Raises `MachineError` as `local_settings`.
    """
    local_settings(flags)
    return json.dumps({name: value for name, value in known_settings(flags).items() if name != "notify"})


def imported_settings(text: str) -> dict[str, object]:
    """Read settings as `exported_settings` writes them, to be taken as flags are; raises `ValueError` for others."""
    try:
        found: dict[str, object] = TypeAdapter(dict[str, object]).validate_json(text)
    except ValidationError as error:
        raise ValueError(f"must be JSON as `job settings` prints it, got {shown(text)}") from error
    if unknown := _unknown(found):
        raise ValueError("; ".join(unknown))
    return found


KNOWN = [*LocalSettings.model_fields, "bucket"]


def _unknown(found: Collection[object]) -> list[str]:
    return [f"{name}: there is no such setting{nearest(str(name), KNOWN)}" for name in found if name not in KNOWN]


def known_settings(flags: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of flags and files, complete or not, bucket included; raises `MachineError`."""
    found: dict[str, object] = {}
    for output, content in _read(OUTPUTS, json.loads).items():
        name = FROM_OUTPUT.get(output, output)
        if name in KNOWN and isinstance(content, dict) and content.get("value") is not None:
            found[name] = content["value"]
    of_file = _read(FILE, load_yaml)
    if unknown := _unknown(of_file):
        raise MachineError(f"{FILE}: not understood; known are {', '.join(KNOWN)}", unknown)
    return {**found, **of_file, **flags}


def _read(path: Path, parse: Callable[[str], object]) -> dict[str, object]:
    try:
        with open_regular(path, follow_links=True) as opened:
            loaded = parse(opened.read().decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise MachineError(f"{path}: cannot be read, {' '.join(str(error).split())}; write it anew") from error
    if not isinstance(loaded, dict):
        raise MachineError(f"{path}: must be a mapping, got {type(loaded).__name__}; write it anew")
    return loaded


def path_of(resource: str | None) -> str | None:
    """Return a resource's path without the address of an API, which Terraform's self links have."""
    return resource and resource[resource.find("projects/") :]
