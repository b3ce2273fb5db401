"""What a machine asks of Google Cloud besides metadata: to resize its group, and for a secret. Real HTTP."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "ya29.token-of-the-runtime"  # noqa: S105 -- made up


class FakeGoogle:
    """Answers as the Compute and Secret Manager APIs do, to requests that carry the machine's token."""

    def __init__(self) -> None:
        self.url = ""
        self.resized: list[str] = []
        """Each request that was granted, as ``GROUP SIZE``."""

        self.num_asked = 0
        """How often a group was to be resized, granted or not."""

        self.refusals: list[int] = []
        """Statuses to answer the next requests to resize with."""

        self.secrets: dict[str, str] = {}
        """Values by version, ``projects/P/secrets/S/versions/V``."""

        self._changed = threading.Condition()

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead the boot script here."""
        return {"COMPUTE_API": self.url, "SECRETS_API": self.url}

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


@contextmanager
def running_google_apis() -> Iterator[FakeGoogle]:
    """Serve both APIs on a free port of this machine."""
    fake = FakeGoogle()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))  # a POST without a length is refused by Google
            group, _, size = self.path.removeprefix("/compute/v1/").partition("/resize?size=")
            self.respond(fake.resize(group, size) if self.authorized() else 401, {"kind": "compute#operation"})

        def do_GET(self):
            value = fake.secrets.get(self.path.removeprefix("/v1/").removesuffix(":access"))
            data = base64.b64encode((value or "").encode()).decode()
            status = 401 if not self.authorized() else 403 if value is None else 200
            self.respond(status, {"payload": {"data": data, "dataCrc32c": "1"}})

        def authorized(self):
            return self.headers["Authorization"] == f"Bearer {TOKEN}"

        def respond(self, status, content):
            body = json.dumps(content if status == 200 else {"error": {"code": status}}, indent=2).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield fake
        finally:
            server.shutdown()
