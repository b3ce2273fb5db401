"""The metadata server of a VM of Google Cloud; real HTTP, with values that the test sets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import Handler, serving

PREFIX = "/computeMetadata/v1/"


class FakeMetadata:
    """The server's values, by path below ``/computeMetadata/v1/``; a change wakes the requests that wait for it."""

    def __init__(self, **values: str) -> None:
        self._changed = threading.Condition()
        self._values = {"instance/preempted": "FALSE"} | values
        self._tags = dict.fromkeys(self._values, 1)
        self.url = ""
        """``host:port``, which is how `GCE_METADATA_HOST` wants it."""

        self.waiting = threading.Event()
        """Set once a request waits for a change."""

        self.num_failures = 0
        """Answers that are yet to fail."""

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead Google's libraries and ours there."""
        return {"GCE_METADATA_HOST": self.url}

    def set(self, path: str, value: str) -> None:
        """Change a value."""
        with self._changed:
            self._values[path] = value
            self._tags[path] = self._tags.get(path, 0) + 1
            self._changed.notify_all()

    def fail(self, num_failures: int) -> None:
        """Answer 503 so many times, also to waiting requests, and give the machine notice meanwhile."""
        self.num_failures = num_failures
        self.preempt()

    def preempt(self) -> None:
        """Give the machine notice."""
        self.set("instance/preempted", "TRUE")

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[str, str] | None:
        """Return a value and its tag, after a change or the time-out if that is asked for."""
        with self._changed:
            if path not in self._values:
                return None
            if query.get("wait_for_change") == ["true"]:
                known = query.get("last_etag", [str(self._tags[path])])[0]
                self.waiting.set()
                self._changed.wait_for(lambda: str(self._tags[path]) != known, float(query["timeout_sec"][0]))
            return self._values[path], str(self._tags[path])


@contextmanager
def running_metadata_server(**values: str) -> Iterator[FakeMetadata]:
    """Serve metadata on a free port of this machine."""
    fake = FakeMetadata(**values)

    class FakeHandler(Handler):
        def do_GET(self):
            split = urlsplit(self.path)
            flavoured = self.headers.get("Metadata-Flavor") == "Google"
            found = fake.answer(split.path.removeprefix(PREFIX), parse_qs(split.query)) if flavoured else None
            headers = {"Metadata-Flavor": "Google"}
            if found and fake.num_failures:
                fake.num_failures -= 1
                self.respond(503, b"", headers)
            elif found:
                self.respond(200, found[0].encode(), headers | {"ETag": found[1]})
            else:
                self.respond(404 if flavoured else 403, b"", headers)

    with serving(FakeHandler) as fake.url:
        yield fake
