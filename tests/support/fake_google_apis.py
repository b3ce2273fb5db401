"""The Compute, Secret Manager and Storage APIs, as far as a VM calls them; real HTTP."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl

from tests.support.http_server import Handler, serving

TOKEN = "ya29.token-of-the-runtime"  # noqa: S105 -- made up


class FakeGoogle:
    """Answers as the Compute, Secret Manager and Storage APIs do, to requests that carry the machine's token."""

    def __init__(self) -> None:
        self.url = ""
        self.resized: list[str] = []
        """Each request that was granted, as ``GROUP SIZE``."""

        self.num_asked = 0
        """The number of requests to resize, granted or not."""

        self.refusals: list[int] = []
        """Statuses to answer the next requests to resize with."""

        self.secrets: dict[str, str] = {}
        """Values by version, ``projects/P/secrets/S/versions/V``."""

        self.objects: set[str] = set()
        """Objects that were made, as ``BUCKET/NAME``."""

        self.recreated: list[tuple[str, list[str]]] = []
        """Groups that were asked for another machine, each with the machines to give back."""

        self._changed = threading.Condition()

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead the boot script here."""
        return {"COMPUTE_API": self.url, "SECRETS_API": self.url, "STORAGE_API": self.url}

    def wait_for_resizes(self, number: int, timeout_s: float) -> bool:
        """Wait until so many requests to resize were granted; false if that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.resized) >= number, timeout_s)

    def resize(self, group: str, size: str) -> int:
        """Resize a group and return the status."""
        with self._changed:
            self.num_asked += 1
            if self.refusals:
                return self.refusals.pop(0)
            self.resized.append(f"{group} {size}")
            self._changed.notify_all()
            return 200

    def make_object(self, bucket: str, name: str) -> int:
        """Make an object that must not be there, and return the status."""
        with self._changed:
            if f"{bucket}/{name}" in self.objects:
                return 412
            self.objects.add(f"{bucket}/{name}")
            return 200

    def recreate(self, group: str, machines: list[str]) -> int:
        """Give machines back for others, and return the status."""
        with self._changed:
            self.recreated.append((group, machines))
            return 200


@contextmanager
def running_google_apis() -> Iterator[FakeGoogle]:
    """Serve the APIs on a free port of this machine."""
    fake = FakeGoogle()

    class FakeHandler(Handler):
        def do_POST(self):
            assert "Content-Length" in self.headers  # or it is refused by Google
            body = self.body()
            self.answer(self.done(body) if self.authorized() else 401, {"kind": "compute#operation"})

        def done(self, body):
            path = self.path.removeprefix("/compute/v1/")
            if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o\?(.*)", path):
                query = dict(parse_qsl(match[2]))
                assert (query["uploadType"], query["ifGenerationMatch"]) == ("media", "0")
                return fake.make_object(match[1], query["name"])
            if path.endswith("/recreateInstances"):
                return fake.recreate(path.removesuffix("/recreateInstances"), json.loads(body)["instances"])
            group, _, size = path.partition("/resize?size=")
            return fake.resize(group, size)

        def do_GET(self):
            value = fake.secrets.get(self.path.removeprefix("/v1/").removesuffix(":access"))
            data = base64.b64encode((value or "").encode()).decode()
            status = 401 if not self.authorized() else 403 if value is None else 200
            self.answer(status, {"payload": {"data": data, "dataCrc32c": "1"}})

        def authorized(self):
            return self.headers["Authorization"] == f"Bearer {TOKEN}"

        def answer(self, status, content):
            error = {"error": {"code": status}}
            self.respond(status, json.dumps(content if status == 200 else error, indent=2).encode(), {})

    with serving(FakeHandler) as address:
        fake.url = f"http://{address}"
        yield fake
