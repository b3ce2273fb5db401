"""Checks of a project and a bucket before a submission: services, quotas, zones, image, regions, contents, price.

Guarantees that nothing is made, changed or paid for. A check raises `RefusedError` if this account may not make it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

from job.cloud.budget import usd_per_hour
from job.cloud.findings import Finding
from job.cloud.google_api import GoogleApi, RefusedError
from job.cloud.machine_types import IMAGE_CUDA, OLDEST_DRIVER, Machine, Provisioning
from job.cloud.settings import Settings
from job.datasets.lockfile import read_version
from job.datasets.prepare import find_dataset
from job.errors import DataError
from job.runs.records import InitialWeights
from job.storage.object_store import Store

COMPUTE = "compute.googleapis.com"
REGISTRY = "artifactregistry.googleapis.com"
STORAGE = "storage.googleapis.com"

APIS = ("artifactregistry", "batch", "compute", "iam", "logging", "storage")
OF_TRACKING = "secretmanager"

IMAGE = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<name>.+@sha256:[0-9a-f]{64})"
)
"""An image in Artifact Registry."""

CONTINENTS = {
    **dict.fromkeys(("us", "nam4"), "us-"),
    **dict.fromkeys(("eu", "europe", "eur4", "eur5", "eur7", "eur8"), "europe-"),
    **dict.fromkeys(("asia", "asia1"), "asia-"),
}
"""Multi-regions of buckets and registries, and dual-regions, each with the beginning of its regions' names."""

Road = Literal["batch", "vm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A submission as the project has to take it."""

    settings: Settings
    machine: Machine
    provisioning: Provisioning
    bucket: str
    """Its name, without ``gs://`` and prefix."""

    road: Road

    @property
    def image(self) -> re.Match[str] | None:
        """Location, project, repository and name of an image in Artifact Registry."""
        return IMAGE.fullmatch(self.settings.image)


def check_apis(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that the services are on."""
    project = asked.settings.project
    names = [f"{name}.googleapis.com" for name in (*APIS, *([OF_TRACKING] if asked.settings.wandb_secret else []))]
    paths = [f"projects/{project}/services/{name}" for name in names]
    answer = api.get("serviceusage.googleapis.com", f"v1/projects/{project}/services:batchGet", names=paths)
    on = {found["name"].rpartition("/")[2] for found in answer.get("services", []) if found.get("state") == "ENABLED"}
    off = [name for name in names if name not in on]
    if off:
        remedy = f"gcloud services enable {' '.join(off)} --project {project}"
        yield Finding("APIs", "fail", f"{len(off)} of {len(names)} are off: {', '.join(off)}", remedy)
    else:
        yield Finding("APIs", "ok", f"all {len(names)} are on")


def check_quota(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check the GPU quotas of the project, and of the region by the kind of provisioning, against the machine."""
    machine, region = asked.machine, asked.settings.region
    project = f"compute/v1/projects/{asked.settings.project}"
    everywhere = _free(api.get(COMPUTE, project))
    yield _quota(asked, "all regions", ["GPUS_ALL_REGIONS"], everywhere)
    here = _free(api.get(COMPUTE, f"{project}/regions/{region}"))
    on_demand = asked.provisioning is Provisioning.ON_DEMAND
    metrics = [machine.quota] if on_demand else [f"PREEMPTIBLE_{machine.quota}", machine.quota]
    yield _quota(asked, region, metrics, here)


def _free(resource: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return limit and usage by metric; a negative limit is none."""
    quotas = {
        quota["metric"]: (quota.get("limit", 0.0), quota.get("usage", 0.0)) for quota in resource.get("quotas", [])
    }
    return {metric: (limit if limit >= 0 else math.inf, used) for metric, (limit, used) in quotas.items()}


def _quota(asked: Asked, where: str, metrics: list[str], known: dict[str, tuple[float, float]]) -> Finding:
    """Judge the quota of a place by the first metric, or by a later one if that suffices instead.

    Spot and flex-start count against a quota of their own, or where there is none against that of on demand. A quota
    that suffices and is in use is waited for.
    """
    needed, project = asked.machine.gpus, asked.settings.project
    remedy = f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
    if metrics[0] not in known:
        return Finding("GPU quota", "warn", f"{metrics[0]} is not listed in {where}, so it is not known here", remedy)
    for number, metric in enumerate(metrics):
        limit, used = known.get(metric, (0.0, 0.0))
        if limit - used >= needed and (number == 0 or known[metrics[0]][0] == 0):
            return Finding("GPU quota", "ok", f"{where}: {metric} is {limit:g}, {used:g} in use, {needed} needed")
    limit, used = known[metrics[0]]
    found = f"{where}: {metrics[0]} is {limit:g}, {used:g} in use, {needed} needed"
    if limit >= needed:
        return Finding("GPU quota", "warn", f"{found}; it waits until they are free", remedy)
    return Finding("GPU quota", "fail", f"{found}; ask for more", remedy)


def check_zones(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that a zone of the region has machine type and GPU."""
    machine, region = asked.machine, asked.settings.region
    zones = _zones_with(api, asked, "machineTypes", machine.type) & _zones_with(
        api, asked, "acceleratorTypes", machine.gpu
    )
    here = sorted(zone for zone in zones if zone.startswith(f"{region}-"))
    if here:
        yield Finding("zones", "ok", f"{machine.type} with {machine.gpu} is in {', '.join(here)}")
    else:
        others = sorted({zone.rpartition("-")[0] for zone in zones})
        found = f"{machine.type} with {machine.gpu} is in no zone of {region}, but in {', '.join(others) or 'none'}"
        yield Finding("zones", "fail", found, "choose another --machine, or apply infra/ in another region")


def _zones_with(api: GoogleApi, asked: Asked, kind: str, name: str) -> set[str]:
    """Return the zones that have a resource of a name."""
    zones: set[str] = set()
    query = {"filter": f'name="{name}"', "returnPartialSuccess": "true"}
    while True:
        page = api.get(COMPUTE, f"compute/v1/projects/{asked.settings.project}/aggregated/{kind}", **query)
        zones |= {scope.removeprefix("zones/") for scope, held in page.get("items", {}).items() if held.get(kind)}
        if not page.get("nextPageToken"):
            return zones
        query["pageToken"] = page["nextPageToken"]


def check_image(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that the image is in the registry, and how much a machine fetches of it."""
    image = asked.image
    if not asked.settings.image:
        yield Finding("image", "fail", "none is named", "make image push, then IMAGE=... as it prints")
        return
    if image is None:
        yield Finding("image", "warn", f"{asked.settings.image} is in no Artifact Registry, so it is not looked up")
        return
    parent = f"projects/{image['project']}/locations/{image['location']}/repositories/{image['repository']}"
    try:
        found = api.get(REGISTRY, f"v1/{parent}/dockerImages/{quote(image['name'], safe='@:')}")
    except RefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        yield Finding("image", "fail", f"{asked.settings.image} is not in the registry", "make image push")
        return
    size = int(found.get("imageSizeBytes", 0))
    fetched = f"{size / 1e9:.2f} GB" if size else "a size that the registry does not tell"
    yield Finding("image", "ok", f"it is in the registry; each machine fetches {fetched}")


def check_regions(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that bucket and registry are where the job is: traffic between regions is paid for at each start."""
    region, image = asked.settings.region, asked.image
    remedy = "move it, or apply infra/ in its region; --no-preflight submits all the same"
    if image is not None and not _is_near(image["location"], region):
        found = f"the registry is in {image['location']} and the job in {region}, and each start pays for the way"
        yield Finding("regions", "fail", found, remedy)
    location = str(api.get(STORAGE, f"storage/v1/b/{asked.bucket}", fields="location")["location"]).lower()
    if _is_near(location, region):
        yield Finding("regions", "ok", f"gs://{asked.bucket} is in {location}, the job in {region}")
    else:
        found = f"gs://{asked.bucket} is in {location} and the job in {region}, and each start pays for the way"
        yield Finding("regions", "fail", found, remedy)


def _is_near(location: str, region: str) -> bool:
    """Whether a location is a region, or the multi-region that has it."""
    return location == region or region.startswith(CONTINENTS.get(location, " "))


def check_content(store: Store, dataset: str | None, start: InitialWeights | None) -> Iterator[Finding]:
    """Check data set, the only one if no name is given, and start weights in the bucket."""
    try:
        dataset = find_dataset(store, dataset)
        version = read_version(store, dataset)
    except DataError as error:
        yield Finding("dataset", "fail", str(error).removeprefix("dataset: "))
    else:
        if version.number:
            found = f"{dataset}: version {version.number}, {len(version.files)} files, checked when it was pushed"
            yield Finding("dataset", "ok", found)
        else:
            found = f"{dataset}: was not pushed by `job data push`, so it is checked on the paid machine"
            yield Finding("dataset", "warn", found)
    if start is None or start.kind != "pretrained" or start.source is None:
        return
    if any(stored.key == start.source for stored in store.list(start.source)):
        yield Finding("weights", "ok", f"{start.source} is in the bucket")
    else:
        found = f"{start.source} is not in the bucket; the first machine fetches it from github.com and puts it there"
        remedy = f"job weights push {start.source.removeprefix('weights/')} --bucket {store.uri}"
        yield Finding("weights", "warn", found, remedy)


def check_price(asked: Asked) -> Iterator[Finding]:
    """Check that the machine's price is known."""
    price = usd_per_hour(asked.settings.prices, asked.machine.type, asked.provisioning)
    if price is None:
        found = f"that of {asked.machine.type} is not known, so hours are limited and not dollars; write to cloud.yaml"
        yield Finding("price", "warn", found, f"prices: {{{asked.machine.type}: {{{asked.provisioning}: USD}}}}")
    else:
        yield Finding("price", "ok", f"{asked.machine.type}: {price:g} USD an hour, {asked.provisioning.words}")


def open_questions(asked: Asked) -> Iterator[Finding]:
    """Name the facts that a running machine alone can show."""
    oldest = OLDEST_DRIVER[IMAGE_CUDA]
    found = (
        f"the image's CUDA {IMAGE_CUDA} needs {oldest} or later; an attempt checks the one installed before it trains"
    )
    yield Finding("driver", "open", found)
    yield Finding("capacity", "open", f"whether {asked.settings.region} has a {asked.machine.type} free is not told")
