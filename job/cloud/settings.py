"""Where in the cloud a run goes: project, region, image, identities and network.

Guarantees that settings that load are complete and well-formed, and that anything else is answered with every problem
at once. Flags come before ``cloud.yaml``, that before what Terraform wrote to ``infra/outputs.json``.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.cloud.machine_types import machines
from job.errors import MachineError
from job.storage.regular_file import open_regular
from job.text import load_yaml, nearest

OUTPUTS = Path("infra/outputs.json")
"""``terraform output -json``."""

FILE = Path("cloud.yaml")

FROM_OUTPUT = {"runtime_service_account": "service_account"}
"""Outputs of Terraform that have another name here."""

IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[\w.-]+)+@sha256:[0-9a-f]{64}")
"""By digest: the attempts of a run must not differ because a tag was moved."""

FORMS: dict[str, tuple[str, str]] = {
    "project": (r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id"),
    "region": (r"[a-z]+-[a-z]+\d+", "a region such as us-central1"),
    "image": (IMAGE.pattern, "an image by digest, REPOSITORY/NAME@sha256:..."),
    "service_account": (r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", "the e-mail address of a service account"),
    "network": (r"(https://\S+/)?projects/[^/]+/global/networks/[a-z0-9-]+", "projects/P/global/networks/NAME"),
    "subnetwork": (
        r"(https://\S+/)?projects/[^/]+/regions/[^/]+/subnetworks/[a-z0-9-]+",
        "projects/P/regions/R/subnetworks/NAME",
    ),
    "wandb_secret": (
        r"projects/[^/]+/secrets/[\w-]+/versions/(\d+|latest)",
        "projects/P/secrets/NAME, with /versions/N or without",
    ),
}
"""What each setting has to look like, and how to say so."""

OPTIONAL = {"wandb_secret"}

LIMITS = {"max_usd": 50.0, "max_hours": 48.0}
"""Default limit of a run over all its machines: dollars, or hours where a price is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything about the cloud that is not about the run."""

    project: str
    region: str
    image: str
    service_account: str
    network: str
    subnetwork: str
    wandb_secret: str | None = None
    other_regions: dict[str, str]
    """Further regions that are near the bucket's data, each with its subnetwork."""

    prices: dict[str, dict[str, float]]
    """Dollars an hour by machine type, under ``spot`` and ``on_demand``, where the user knows better."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they are recorded with a submission."""
        return asdict(self)

    def subnetwork_in(self, region: str) -> str:
        """Return the subnetwork of one of the regions."""
        return self.subnetwork if region == self.region else self.other_regions[region]


def load_settings(flags: Mapping[str, str | None]) -> Settings:
    """Put the settings together.

    Args:
        flags: Of the command line; those that are nothing count as absent.

    Raises:
        MachineError: If a setting is missing or malformed; lists every problem.
    """
    found = checked_settings(flags, OPTIONAL)
    names = [*FORMS, "other_regions", "prices"]
    return Settings(**{name: found[name] for name in names})


def checked_settings(flags: Mapping[str, str | None], optional: Collection[str]) -> dict[str, Any]:
    """Return every setting by its name, in its form; what may be missing and is, is nothing.

    Args:
        flags: As `load_settings`.
        optional: What may be missing.

    Raises:
        MachineError: If a setting is missing or malformed; lists every problem.
    """
    found = LIMITS | known_settings(flags)
    problems: list[str] = []
    repository = found.setdefault("image_repository", None)
    image = found.get("image")
    if isinstance(image, str) and "/" not in image and isinstance(repository, str):
        found["image"] = f"{repository}/{image}"
    secret = found.get("wandb_secret")
    if isinstance(secret, str) and secret:
        if "/" not in secret:
            secret = f"projects/{found.get('project')}/secrets/{secret}"
        found["wandb_secret"] = secret if "/versions/" in secret else f"{secret}/versions/latest"
    for name, (pattern, form) in FORMS.items():
        value = found.get(name)
        if value is None or value == "":
            found[name] = None
            if name not in optional:
                problems.append(f"{name}: is missing, {form}; pass --{name.replace('_', '-')}, or write it to {FILE}")
        elif not isinstance(value, str) or not re.fullmatch(pattern, value):
            problems.append(f"{name}: must be {form}, got {value!r}")
    subnetwork = found["subnetwork"]
    if isinstance(subnetwork, str) and f"/regions/{found['region']}/" not in subnetwork:
        problems.append(f"subnetwork: must be in the region {found['region']}, got {subnetwork!r}")
    problems += _problems_of_other_regions(found.setdefault("other_regions", {}))
    problems += _problems_of_prices(found.setdefault("prices", {}))
    problems += [
        f"{name}: must be a positive number, got {found[name]!r}" for name in LIMITS if not _is_amount(found[name])
    ]
    if problems:
        raise MachineError(
            f"cloud settings: {len(problems)} problem{'s' if len(problems) > 1 else ''}; `make infra-apply` writes "
            f"most of them to {OUTPUTS}",
            problems,
        )
    return found


def known_settings(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what flags and files say, complete or not, bucket included.

    Raises:
        MachineError: If a file cannot be understood.
    """
    known = [*FORMS, "bucket", "image_repository", "other_regions", "prices", *LIMITS]
    found: dict[str, Any] = {}
    for name, output in _read(OUTPUTS, json.loads).items():
        name = FROM_OUTPUT.get(name, name)  # noqa: PLW2901 -- the same thing
        if name in known and isinstance(output, dict) and output.get("value") is not None:
            found[name] = output["value"]
    of_file = _read(FILE, load_yaml)
    unknown = [f"{name}: there is no such setting{nearest(str(name), known)}" for name in of_file if name not in known]
    if unknown:
        raise MachineError(f"{FILE}: not understood; known are {', '.join(known)}", unknown)
    return found | of_file | {name: value for name, value in flags.items() if value is not None}


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
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


def _problems_of_other_regions(value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"other_regions: must map regions to subnetworks, got {value!r}"]
    return [
        f"other_regions.{region}: must be a region with its subnetwork, {FORMS['subnetwork'][1]}, got {subnetwork!r}"
        for region, subnetwork in value.items()
        if not re.fullmatch(FORMS["region"][0], str(region))
        or not re.fullmatch(FORMS["subnetwork"][0], str(subnetwork))
        or f"/regions/{region}/" not in str(subnetwork)
    ]


def _problems_of_prices(value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"prices: must map machine types to dollars an hour, got {value!r}"]
    problems = []
    for type_, prices in value.items():
        if type_ not in machines():
            problems.append(f"prices.{type_}: there is no such machine{nearest(str(type_), list(machines()))}")
        elif not isinstance(prices, dict) or not all(
            kind in {"spot", "on_demand"} and _is_amount(usd) for kind, usd in prices.items()
        ):
            problems.append(f"prices.{type_}: must be {{spot: USD, on_demand: USD}} an hour, got {prices!r}")
    return problems


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
