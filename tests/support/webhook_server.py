"""A real HTTP server that takes notifications, and may refuse them or never answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.http_server import Handler, serving

SECRET = "T0KEN"  # noqa: S105 -- made up
"""The secret part of the address."""


class WebhookServer:
    """What the server got, and how it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200
        self.answers = threading.Event()
        """Requests are answered while it is set."""

        self.answers.set()
        self.on_request = lambda: None


@contextmanager
def running_webhook() -> Iterator[WebhookServer]:
    """Serve a webhook, and let what hangs go at the end."""
    server = WebhookServer()

    class Hook(Handler):
        """One notification."""

        def do_POST(self):
            """Keep it, and answer as the test says."""
            server.paths.append(self.path)
            server.headers.append(dict(self.headers))
            server.got.append(json.loads(self.body()))
            server.on_request()
            server.answers.wait()
            self.respond(server.status, b"", {"Location": "/elsewhere"})

        def do_GET(self):
            """Keep the path of a redirect that was followed."""
            server.paths.append(self.path)
            self.respond(200, b"", {})

    with serving(Hook) as address:
        server.url = f"http://{address}/hooks/{SECRET}"
        try:
            yield server
        finally:
            server.answers.set()
