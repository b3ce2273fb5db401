"""A Google Cloud project as its REST APIs describe it, to a client that is led here; real HTTP.

Everything is as it should be for `tests.cloud.conftest.SETTINGS` until a test seeds a fault.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from job.cloud.machine_types import machines
from tests.support.http_server import Handler, serving

REGION, PROJECT = "us-central1", "demo-project"
ACCOUNT = f"trainer@{PROJECT}.iam.gserviceaccount.com"


def binding(role: str, account: str = ACCOUNT) -> dict[str, Any]:
    """Return a policy's line that gives an account a role."""
    return {"role": role, "members": [f"serviceAccount:{account}"]}


class FakeProject:
    """The project; its attributes are what the APIs answer."""

    def __init__(self) -> None:
        self.host = ""
        self.asked: list[str] = []
        """Each request, as ``METHOD HOST/PATH``."""

        self.off: set[str] = set()
        """Services that are off, by the first part of their host."""

        kinds = machines().values()
        self.quotas = {"GPUS_ALL_REGIONS": [8.0, 0.0]}
        self.region_quotas = {f"PREEMPTIBLE_{kind.quota}": [8.0, 0.0] for kind in kinds} | {
            kind.quota: [0.0, 0.0] for kind in kinds
        }
        """Limit and usage, in each region that `quotas_of` does not have."""

        self.quotas_of: dict[str, dict[str, list[float]]] = {}

        self.zones = {kind.type: [f"{REGION}-a", f"{REGION}-b"] for kind in kinds} | {
            kind.gpu: [f"{REGION}-a", f"{REGION}-c"] for kind in kinds
        }
        """Where a machine type or a GPU is to be had."""

        self.subnetworks: dict[str, bool | None] = {}
        """Whether the one of a region has private access, None if it does not exist; others are sound."""

        self.image_bytes: int | None = 3_240_000_000
        """None if the registry does not have it."""

        self.boot_image: str | None = None
        """Description of each boot image; None if there is none."""

        self.location: str = REGION.upper()
        """Of the bucket."""

        self.lacking: set[str] = set()
        """Permissions that the caller does not have."""

        self.refused: set[str] = set()
        """Paths, or a part of one, that the caller may not ask for."""

        self.has_account = True
        self.policies: dict[str, list[dict[str, Any]]] = {
            "project": [binding("roles/batch.agentReporter"), binding("roles/logging.logWriter")],
            "bucket": [binding("roles/storage.objectUser")],
            "repository": [binding("roles/artifactregistry.reader")],
            "secret": [binding("roles/secretmanager.secretAccessor")],
        }
        self.secret_state: str | None = "ENABLED"  # noqa: S105 -- no secret

    @property
    def env(self) -> dict[str, str]:
        """The variable that leads a client here."""
        return {"GOOGLE_API_EMULATOR_HOST": self.host}

    def answer(self, host: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and content of the answer to a request."""
        service = host.partition(".")[0]
        if service in self.off:
            return 403, f"{host} has not been used in project {PROJECT} before or it is disabled"
        if any(part in path for part in self.refused):
            return 403, f"Permission denied on {path}"
        if path.endswith(("testIamPermissions", "iam/testPermissions")):
            if service == "iam" and not self.has_account:
                return 403 if "projects/-/" in path else 404, f"Service account {ACCOUNT} does not exist"
            wanted = body.get("permissions") or query["permissions"]
            return 200, {"permissions": [name for name in wanted if name not in self.lacking]}
        if path.endswith(("getIamPolicy", "/iam")):
            kind = {"storage": "bucket", "artifactregistry": "repository", "secretmanager": "secret"}
            return 200, {"bindings": self.policies[kind.get(service, "project")]}
        return getattr(self, f"_{service}")(path, query)

    def _serviceusage(self, _path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        states = {
            name: "DISABLED" if name.split("/")[3].split(".")[0] in self.off else "ENABLED" for name in query["names"]
        }
        return 200, {"services": [{"name": name, "state": state} for name, state in states.items()]}

    def _compute(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if "/aggregated/" in path:
            kind, name = path.rpartition("/")[2], query["filter"][0].partition("=")[2].strip('"')
            pages = self.zones.get(name, [])
            number = int(query.get("pageToken", ["0"])[0])  # a page for each zone
            items: dict[str, Any] = {"zones/europe-west9-z": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
            if number < len(pages):
                items[f"zones/{pages[number]}"] = {kind: [{"name": name}]}
            more = {"nextPageToken": str(number + 1)} if number + 1 < len(pages) else {}
            return 200, {"items": items, **more}
        if "/images/" in path:
            return (
                (404, "The resource was not found")
                if self.boot_image is None
                else (200, {"description": self.boot_image})
            )
        _, _, region = path.partition("/regions/")
        if "/subnetworks/" in region:
            has_access = self.subnetworks.get(region.partition("/")[0], True)
            return (404, "not found") if has_access is None else (200, {"privateIpGoogleAccess": has_access})
        quotas = self.quotas_of.get(region, self.region_quotas) if region else self.quotas
        return 200, {"quotas": [{"metric": name, "limit": at[0], "usage": at[1]} for name, at in quotas.items()]}

    def _artifactregistry(self, *_request: object) -> tuple[int, Any]:
        if self.image_bytes is None:
            return 404, "Requested entity was not found."
        return 200, {"imageSizeBytes": str(self.image_bytes)}

    def _cloudscheduler(self, *_request: object) -> tuple[int, Any]:
        return 200, {"state": "PAUSED"}

    def _storage(self, *_request: object) -> tuple[int, Any]:
        return 200, {"location": self.location}

    def _secretmanager(self, *_request: object) -> tuple[int, Any]:
        if self.secret_state is None:
            return 404, "Secret Version not found."
        return 200, {"state": self.secret_state}


@contextmanager
def running_project() -> Iterator[FakeProject]:
    """Serve a project's APIs on a free port of this machine."""
    fake = FakeProject()

    class ProjectHandler(Handler):
        def do_GET(self):
            self.reply({})

        def do_POST(self):
            self.reply(json.loads(self.body()))

        def reply(self, body):
            address = urlsplit(self.path)
            host, _, path = unquote(address.path).removeprefix("/").partition("/")
            fake.asked.append(f"{self.command} {host}/{path}")
            status, content = fake.answer(host, path, parse_qs(address.query), body)
            found = content if status == 200 else {"error": {"code": status, "message": content}}
            self.respond(status, json.dumps(found).encode(), {"Content-Type": "application/json"})

    with serving(ProjectHandler) as fake.host:
        yield fake
