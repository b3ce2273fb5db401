"""Checks of a project and a bucket before a submission: services, image, regions, contents, price.

Guarantees that nothing is made, changed or paid for. A check raises `RefusedError` if this account may not make it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

from job.cloud.budget import usd_per_hour
from job.cloud.findings import Finding, Grade
from job.cloud.google_api import GoogleApi, RefusedError
from job.cloud.machine_types import IMAGE_CUDA, OLDEST_DRIVER, Machine, Provisioning
from job.cloud.settings import Settings, path_of
from job.cloud.submission import Placement, placements_of
from job.datasets.lockfile import read_version
from job.datasets.prepare import find_dataset
from job.errors import DataError
from job.runs.records import InitialWeights
from job.storage.object_store import Store
from job.text import counted

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
    machines: tuple[Machine, ...]
    """Acceptable ones, best first."""

    provisioning: Provisioning
    has_deadline: bool = False
    bucket: str
    """Its name, without ``gs://`` and prefix."""

    road: Road

    @property
    def machine(self) -> Machine:
        """The machine of the first job."""
        return self.machines[0]

    @property
    def other_places(self) -> list[Placement]:
        """Places to which the policy moves a run that gets no machine at the first one."""
        types = [machine.type for machine in self.machines]
        return placements_of(types, self.settings, self.provisioning)[1:] if self.road == "batch" else []

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


def check_network(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check the subnetwork of each region: a machine has no address, so that private access alone leads to Google."""
    for region, subnetwork in asked.settings.subnetworks.items():
        if region != asked.settings.region and asked.road == "vm":
            continue
        path, grade = str(path_of(subnetwork)), _grade_at(asked, region)
        try:
            subnet = api.get(COMPUTE, f"compute/v1/{path}")
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            yield Finding("network", grade, f"{path} does not exist", "make infra-apply, or correct it in cloud.yaml")
            continue
        if subnet.get("privateIpGoogleAccess"):
            yield Finding("network", "ok", f"the subnetwork of {region} is there, with private access")
            continue
        _, project, *_, name = path.split("/")
        found = f"the subnetwork of {region} has no private access, so that machines reach neither bucket nor registry"
        where = f"{name} --region {region} --project {project}"
        remedy = f"gcloud compute networks subnets update {where} --enable-private-ip-google-access"
        yield Finding("network", grade, found, remedy)


def _grade_at(asked: Asked, region: str) -> Grade:
    """Return the grade of a lack: a failure where the first job is, a warning where the run may move to."""
    return "fail" if region == asked.settings.region else "warn"


def check_boot_image(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that the boot image of the settings is there, if they name one, and has the container image inside."""
    path = path_of(asked.settings.boot_image)
    if path is None:
        return
    name = path.rpartition("/")[2]
    try:
        inside = api.get(COMPUTE, f"compute/v1/{path}").get("description")
    except RefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        remedy = "make boot-image makes one; or take boot_image out of infra/terraform.tfvars, then make infra-apply"
        yield Finding("boot image", "fail", f"{name} is not there", remedy)
        return
    if inside == asked.settings.image:
        yield Finding("boot image", "ok", f"{name} has the container image inside")
    else:
        found = f"{name} has another container image inside, so that each machine fetches what differs"
        yield Finding("boot image", "warn", found, "make boot-image IMAGE=... makes one of this")


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
    for other in asked.settings.other_regions if asked.road == "batch" else ():
        if not _is_near(location, other):
            found = (
                f"gs://{asked.bucket} is in {location}, and each start of a run that moves to {other} pays for the way"
            )
            yield Finding("regions", "warn", found, "leave the region out of other_regions, or accept that")


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
            files = counted(len(version.files), "file")
            found = f"{dataset}: version {version.number}, {files}, checked when it was pushed"
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
    """Check that the price of each machine is known."""
    for type_ in [machine.type for machine in asked.machines]:
        price = usd_per_hour(asked.settings.prices, type_, asked.provisioning)
        if price is None:
            found = f"that of {type_} is not known, so hours are limited and not dollars; write to cloud.yaml"
            yield Finding("price", "warn", found, f"prices: {{{type_}: {{{asked.provisioning}: USD}}}}")
        else:
            yield Finding("price", "ok", f"{type_}: {price:g} USD an hour, {asked.provisioning.words}")


def open_questions(asked: Asked) -> Iterator[Finding]:
    """Name the facts that a running machine alone can show."""
    oldest = OLDEST_DRIVER[IMAGE_CUDA]
    found = (
        f"the image's CUDA {IMAGE_CUDA} needs {oldest} or later; an attempt checks the one installed before it trains"
    )
    yield Finding("driver", "open", found)
    yield Finding("capacity", "open", f"whether {asked.settings.region} has a {asked.machine.type} free is not told")
