"""The metadata server of a Google Cloud machine: says that the machine is about to be preempted.

Knows nothing of what the machine does. Honours ``GCE_METADATA_HOST`` as Google's own libraries do.
"""

import http.client
import os
from dataclasses import dataclass
from pathlib import Path

HEADERS = {"Metadata-Flavor": "Google"}
PREEMPTED = "/computeMetadata/v1/instance/preempted"

POLL_S = 30
"""How long the server holds a question open when nothing changes."""

CONNECT_S = 3


class MetadataError(Exception):
    """The server cannot be reached, or is not one."""


@dataclass(frozen=True, slots=True)
class MetadataServer:
    """One server, by ``host`` or ``host:port``."""

    host: str

    @classmethod
    def find(cls) -> "MetadataServer | None":
        """Return the server of this machine, or nothing if it is no machine of Google Cloud."""
        named = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT")
        if named:
            return cls(named)
        try:
            product = Path("/sys/class/dmi/id/product_name").read_text(encoding="utf-8")
        except OSError:
            return None
        return cls("metadata.google.internal") if product.startswith("Google") else None

    def preempted(self) -> tuple[bool, str]:
        """Return whether the machine has been given notice, and the state's tag for `wait`.

        Raises:
            MetadataError: If the server does not say.
        """
        return self._ask(PREEMPTED, CONNECT_S)

    def wait(self, tag: str) -> tuple[bool, str]:
        """Return the same once it changed, or after `POLL_S`.

        Raises:
            MetadataError: If the server does not say.
        """
        return self._ask(f"{PREEMPTED}?wait_for_change=true&timeout_sec={POLL_S}&last_etag={tag}", POLL_S + CONNECT_S)

    def _ask(self, path: str, timeout_s: float) -> tuple[bool, str]:
        connection = http.client.HTTPConnection(self.host, timeout=timeout_s)  # by address: no proxy is ever asked
        try:
            connection.request("GET", path, headers=HEADERS)
            answer = connection.getresponse()
            said = answer.read().strip()
        except (OSError, http.client.HTTPException) as error:
            raise MetadataError(f"metadata server {self.host}: cannot be reached, {error}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK or answer.headers.get("Metadata-Flavor") != "Google":
            raise MetadataError(f"metadata server {self.host}: answers {answer.status}, and not as Google's does")
        return said == b"TRUE", answer.headers.get("ETag") or "0"
